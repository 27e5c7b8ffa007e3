"""A study as one file for a browser: a section a file, made from the tables alone; its script lies beside them."""
