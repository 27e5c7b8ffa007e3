"""Tasks of another package at which something goes wrong in the middle of an epoch; `installed` makes it one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

from dermsearch import world
from dermsearch.pretext.rotation import Rotation
from dermsearch.training.health import StageFailed
from dermsearch.training.learner import Learner

MARKS = "FAULTY_MARKS"  # names the folder where each fault leaves a file
STEP = 3
PAGE = """Metadata-Version: 2.1
Name: faulty
Version: 1
"""


def installed(folder: Path) -> dict[str, str]:
    """What a process needs in its environment to know these tasks."""
    info = folder / "site" / "faulty-1.dist-info"
    info.mkdir(parents=True)
    shutil.copy(__file__, folder / "site")
    (info / "METADATA").write_text(PAGE)
    tasks = [f"{task.name} = faulty:{task.__name__}" for task in (Refusing, Dying, Sick, Buggy)]
    (info / "entry_points.txt").write_text("\n".join(["[dermsearch.tasks]", *tasks]) + "\n")
    (folder / "marks").mkdir()
    path = [str(folder / "site"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(path), MARKS: str(folder / "marks")}


def marks(folder: Path, task: str) -> list[dict]:
    """When a task's fault struck, and in which process."""
    return [json.loads(path.read_text()) for path in sorted((folder / "marks").glob(f"{task}-*"))]


class Faulty(Rotation):
    """Rotation, until on the last process the fault strikes."""

    def before_step(self, step: int) -> None:
        if step == STEP and world.rank() == world.size() - 1:
            place = Path(os.environ[MARKS])
            struck = len(list(place.glob(f"{self.name}-*")))
            about = {"pid": os.getpid(), "time": time.time()}
            (place / f"{self.name}-{struck}").write_text(json.dumps(about))
            self.strike(struck)

    def strike(self, struck: int) -> None:
        """What goes wrong, for the how manieth time."""


class Refusing(Faulty):
    """A verdict on the stage."""

    name = "refusing"

    def strike(self, struck: int) -> None:
        raise StageFailed(f"refusing: does not like it on process {world.rank()}")


class Dying(Faulty):
    """The process dies, once."""

    name = "dying"

    def strike(self, struck: int) -> None:
        if not struck:
            os.kill(os.getpid(), signal.SIGKILL)


class Sick(Faulty):
    """The process is sick from here on, whatever it is asked to train; once."""

    name = "sick"

    def strike(self, struck: int) -> None:
        if not struck:
            Learner.forward = stale  # type: ignore[method-assign, assignment]


def stale(*args: object) -> None:
    raise OSError(errno.ESTALE, "Stale file handle")


class Buggy(Faulty):
    """A mistake of its author."""

    name = "buggy"

    def strike(self, struck: int) -> None:
        raise ValueError("a mistake of its author")
