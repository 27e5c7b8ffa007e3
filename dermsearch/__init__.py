"""dermsearch: which self-supervised curriculum is worth your GPU-weeks on skin-lesion images."""

import os

__version__ = "0.1.0"

# Before Arrow is imported: its own pool keeps something of every copy of a table that grows.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
