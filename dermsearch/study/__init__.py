"""A study: its settings, and how they are read from a file."""
