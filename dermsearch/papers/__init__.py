"""What papers printed: their tables, and whether the numbers can be true."""
