"""The images of the next batch on their way to a GPU, while it works on those of this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from dermsearch.data.views.pictures import Pictures

Arrival = Callable[[], Pictures]  # what whoever asks for them waits by
Carrier = Callable[[Pictures], Arrival]  # sends pictures from the host on their way


def carrier(device: torch.device) -> Carrier | None:
    """To a device of its own memory: from pinned memory, by a stream beside the one that computes. None for a CPU."""
    if device.type != "cuda":
        return None
    beside = torch.cuda.Stream(device)

    def send(host: Pictures) -> Arrival:
        torch.cuda.set_device(beside.device)  # a thread's own begins as the first: no other process may be met there
        canvas = host.pixels.permute(0, 2, 3, 1)
        with suppress(RuntimeError):  # the host has no such memory left: then the copy waits, in this thread
            canvas = canvas.pin_memory()
        with torch.cuda.stream(beside):
            there = canvas.to(device, non_blocking=True)
            sent = beside.record_event()

        def arrive() -> Pictures:
            computing = torch.cuda.current_stream(device)
            computing.wait_event(sent)
            there.record_stream(computing)  # its memory is not another's before this stream is done with it
            return replace(host, pixels=there.permute(0, 3, 1, 2))

        return arrive

    return send


class Ahead:
    """Reads what is expected next in a thread, one batch ahead."""

    def __init__(self, read: Callable[[np.ndarray], Pictures], send: Carrier) -> None:
        self.read, self.send = read, send
        self.reader = ThreadPoolExecutor(1, "images")
        self.coming: deque[np.ndarray] = deque()
        self.under_way: tuple[np.ndarray, Future[Arrival]] | None = None

    def expect(self, batches: Iterable[np.ndarray]) -> None:
        """These units are asked for in this order, whatever else is asked for between them."""
        self.coming = deque(batches)
        self._begin()

    def take(self, units: np.ndarray) -> Pictures | None:
        """Their pictures, if they were expected; then the next ones set out. What was expected before is let go."""
        while self.under_way is not None and not np.array_equal(self.under_way[0], units):
            if not any(np.array_equal(each, units) for each in self.coming):
                return None  # nobody said that these would be asked for
            self._begin()
        if self.under_way is None:
            return None
        arrival = self.under_way[1].result()
        self._begin()
        return arrival()

    def close(self) -> None:
        """Nothing is under way any more."""
        self.coming.clear()
        self.reader.shutdown(wait=True, cancel_futures=True)
        self.under_way = None

    def _begin(self) -> None:
        units = self.coming.popleft() if self.coming else None
        self.under_way = None if units is None else (units, self.reader.submit(lambda: self.send(self.read(units))))
