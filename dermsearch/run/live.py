"""The report of a run under way: written anew when tables changed, renewed as long as the run is alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dermsearch.errors import first_line
from dermsearch.results.report.page import put, tail
from dermsearch.results.report.report import NAME, begun, study_page

EVERY, SHARE = 5.0, 0.05  # seconds between two looks, and the share of the time that writing may take
RENEW = 20.0  # seconds after which a page that has nothing new says that the run is alive; the page waits for 60


class LiveReport:
    """A thread beside a run. Whatever is wrong with the report, the run goes on; it is told once."""

    def __init__(
        self, folder: Path, doing: Callable[[], Sequence[str]], tell: Callable[[str], Any], every: float = EVERY
    ) -> None:
        self.folder, self.doing, self.tell, self.every = folder, doing, tell, every
        self.stop = threading.Event()
        self.seen: tuple[object, ...] = ()
        self.page, self.next, self.renewed, self.said, self.told = "", 0.0, 0.0, "", False

    def __enter__(self) -> LiveReport:
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.stop.set()
        self.thread.join()
        how = "The run is finished." if kind is None else "The run was interrupted; the same command continues it."
        self.told = False  # what is wrong at the end is said once more: the page that stays is an old one, or none
        self._guarded(lambda: self._write({"alive": False, "said": how}, whole=True))

    def _watch(self) -> None:
        while not self.stop.is_set():
            self._guarded(self._look)
            self.stop.wait(self.every)

    def _look(self) -> None:
        """Make the page again if tables changed and it may take the time; renew it if what the run is at changed."""
        now, seen = time.monotonic(), self._state_of_tables()
        said = under_way(self.doing())
        if (seen != self.seen and now >= self.next) or not self.page:
            self._write({"alive": True, "said": said}, whole=False)
            self.seen, took = seen, time.monotonic() - now
            self.next = time.monotonic() + took / SHARE
        elif said != self.said or now - self.renewed > RENEW:
            self._renew({"alive": True, "said": said})
        self.said = said

    def _write(self, state: dict[str, Any], whole: bool) -> None:
        self.page = study_page(begun(self.folder), whole)
        self._renew(state)

    def _renew(self, state: dict[str, Any]) -> None:
        told = {**state, "written": time.time(), "folder": str(self.folder)}
        put(self.page + tail(told), self.folder / NAME)
        self.renewed = time.monotonic()

    def _state_of_tables(self) -> tuple[object, ...]:
        """What changes when a table does."""
        files = sorted((self.folder / "tables").glob("*.arrow"))
        return tuple((file.name, file.stat().st_mtime_ns) for file in files)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # a full disk, a table that is just being replaced: the study itself goes on
            if not self.told:
                self.told = True
                self.tell(f"{self.folder / NAME} is not written: {first_line(error)}")


def under_way(stages: Sequence[str], most: int = 4) -> str:
    """What the run is at, in a sentence."""
    more = f" and {len(stages) - most} more" if len(stages) > most else ""
    return f"{'; '.join(stages[:most])}{more}." if stages else "nothing is being trained right now."
