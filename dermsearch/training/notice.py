"""A notice to stop: heard between two steps, when weights and queues belong together and a state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Notice:
    """What this process was told: by a signal, or by who speaks to it in another way."""

    given = False


class Noticed(KeyboardInterrupt):
    """Training has ended on a notice, and its state is saved."""


TOLD = Notice()


@contextmanager
def heard() -> Iterator[None]:
    """While it lasts a signal that would raise KeyboardInterrupt gives notice; a second one raises it as ever.

    What came too late to be heard is raised at the end.
    """

    def note(number: int, frame: object) -> None:
        if TOLD.given:
            raise KeyboardInterrupt
        TOLD.given = True

    main = threading.current_thread() is threading.main_thread()
    own = [n for n in (signal.SIGINT, signal.SIGTERM) if main and signal.getsignal(n) is signal.default_int_handler]
    for number in own:
        signal.signal(number, note)
    late = True
    try:
        yield
    except Noticed:
        late = False
        raise
    finally:
        for number in own:
            signal.signal(number, signal.default_int_handler)
        if own and TOLD.given:
            TOLD.given = False
            if late:
                raise KeyboardInterrupt
