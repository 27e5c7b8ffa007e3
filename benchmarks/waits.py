"""What a step of every task and fit makes a GPU wait for, and what it is sent meanwhile; no GPU is needed.

    python benchmarks/waits.py

reads    how often a step asks what a kernel found: seen on the CPU, in a task's second step, in all steps of a fit.
copies   how often it waits for one between host and GPU: seen in an epoch's first step, on tensors that say that they
         are a GPU's, of what `reads` up to its first read. Of fits it is the second epoch's, when domains are aligned.
sent     copies that nobody waits for, and their KB; images lie on the device, or are sent a batch ahead.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.parity import BACKBONE, SMALL, USUAL
from dermsearch.fit.base import FITS
from dermsearch.pretext.base import TASKS
from dermsearch.testing.cuda import on_cuda
from dermsearch.testing.fits import trained
from dermsearch.testing.small import SmallStage, make_store
from dermsearch.testing.steps import Steps
from dermsearch.testing.waits import Copies, waits_of

OTHERS = {"ssd_kd": {"teaching": 0.0, "rotating": 0.0}, "slimp": {"lesions": 4, "width": 16, "out": 16}}
SHORT = {"epochs": 2, "batch": 16, "lr": 1e-3}


def told(name: str, reads: dict[str, int], train: Callable[[], object], waits: str, epoch: int = 0) -> None:
    """A row."""
    copies = Copies()
    wrong = on_cuda(train, waits, epoch, copies=copies)
    sent = f"{copies.sent.total():>8}{copies.bytes / 1e3:>8.1f}"
    where = ", ".join([*reads, *copies.waited] or [wrong])
    print(f"{name:<20}{sum(reads.values()):>8}{copies.waited.total():>8}{sent}  {where}", flush=True)


def main() -> None:
    """All of them."""
    torch.set_num_threads(1)
    print(f"{'':<20}{'reads':>8}{'copies':>8}{'sent':>8}{'KB':>8}  where it waits")
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store")
        for name in TASKS.shipped:
            small = SmallStage(name, SMALL.get(name, OTHERS.get(name, {})), BACKBONE.get(name, USUAL))
            run = Steps(small, store)
            run.step()
            told(name, waits_of(run.step), lambda small=small: small.train(store), TASKS.find(name).waits)
        for name in FITS.shipped:
            own = FITS.find(name).Config.model_fields
            config = {**SHORT, **({"epochs": 1, "adapt_epochs": 1} if "adapt_epochs" in own else {})}
            config |= {"metadata": ()} if "metadata" in own else {}
            train = functools.partial(trained, name, config, store)
            told(name, waits_of(train), train, FITS.find(name).waits, epoch=1)


if __name__ == "__main__":
    main()
