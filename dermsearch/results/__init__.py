"""What a study leaves behind: Arrow tables, and everything drawn from them."""

from dermsearch.results.tables.schema import Results, load

__all__ = ["Results", "load"]
