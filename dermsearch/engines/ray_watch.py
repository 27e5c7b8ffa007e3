"""Whether the Ray that a run works on is still there: Ray itself waits for ever for a raylet that was killed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

Address = tuple[str, int]
EVERY, ANSWER = 1.0, 5.0  # seconds between two looks, and until no answer counts as none


class Watch:
    """Knocks at the doors of a Ray, again and again; `lost` says which of them has been shut for too long.

    At each look it gives its own `sign` of life.
    """

    def __init__(
        self, doors: Sequence[tuple[str, Address]], patience: float, sign: Callable[[], None] | None = None
    ) -> None:
        self.doors, self.patience, self.sign = doors, patience, sign
        self.lost = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join(ANSWER)

    def _look(self) -> None:
        answered = {name: time.monotonic() for name, _ in self.doors}
        while not self._stop.wait(EVERY) and not self.lost:
            if self.sign:
                self.sign()
            for name, address in self.doors:
                if answers(address):
                    answered[name] = time.monotonic()
                elif time.monotonic() - answered[name] > self.patience:
                    self.lost = name
                    return


def answers(address: Address) -> bool:
    """Does somebody listen there?"""
    try:
        socket.create_connection(address, timeout=ANSWER).close()
    except OSError:
        return False
    return True
