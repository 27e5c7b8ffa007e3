"""A case store: opened, described, dealt into splits and pools."""
