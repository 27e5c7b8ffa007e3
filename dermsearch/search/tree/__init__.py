"""Which stages a search needs, and which of them comes next."""
