"""Which curriculum is best."""
