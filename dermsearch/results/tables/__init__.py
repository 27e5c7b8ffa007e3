"""The Arrow tables of a study."""
