"""Where commands print: as wide as the terminal, and wide enough for a table where it is a file or a pipe.

Paths and errors are printed as they are. What the encoding of a stream does not have is printed as what looks like it.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dermsearch.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
WIDTH = 110  # of what is not a terminal
PLAIN = str.maketrans("├└│─━–—✓✗●○·Δ×±≥≤’“”…", '|||----vx*o.Dx+><\'"".')


def paper(width: int = WIDTH) -> Console:
    """Standard output, which belongs to results."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else width)


def aside() -> Console:
    """Standard error, for everything else."""
    from rich.console import Console

    width = None if sys.stderr.isatty() else WIDTH
    return Console(stderr=True, highlight=False, markup=False, emoji=False, width=width)


class Stream(io.TextIOWrapper):
    """Standard output that takes any character, and knows what it could not bring out."""

    unsaid: OSError | None = None

    def write(self, text: str) -> int:
        """As ever."""
        return self._try(lambda: super(Stream, self).write(text))

    def flush(self) -> None:
        """As ever."""
        self._try(super().flush)

    def _try(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except OSError as error:
            self.unsaid = error
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes a file that a user has named: where it cannot, a sentence says so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, FileExistsError) and error.filename == str(path):
            raise UserError(f"{path}: is there already; choose another file") from None
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def open_streams() -> None:
    """Make standard output such a stream; one that is closed takes all and keeps nothing."""
    codecs.register_error("plain", _plain)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # the lowest free number: else the next file would get it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))
            if number == 1 and sys.stderr is not None:
                print("dermsearch: standard output is closed, so nothing is printed", file=sys.stderr)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="plain")
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, lines = sys.stdout.encoding, sys.stdout.line_buffering
        through = sys.stdout.write_through
        sys.stdout = Stream(sys.stdout.detach(), encoding, "plain", line_buffering=lines, write_through=through)


def flush() -> OSError | None:
    """Bring out what was printed; says what was in the way, after which nothing more is tried."""
    with suppress(OSError):
        sys.stdout.flush()
    found = getattr(sys.stdout, "unsaid", None)
    if found is not None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    return found


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return "".join(c if c.isascii() else "?" for c in text), error.end
