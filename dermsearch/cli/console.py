"""Where commands print: as wide as the terminal, and wide enough for a table where it is a file or a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 110  # of what is not a terminal


def paper(width: int = WIDTH) -> Console:
    """Standard output, which belongs to results."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else width)


def aside() -> Console:
    """Standard error, for everything else."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDTH)
