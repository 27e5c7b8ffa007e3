"""Built-in cases, drawn by procedure."""
