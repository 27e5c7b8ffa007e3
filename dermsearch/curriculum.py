"""A curriculum: the pretext tasks that encoders are trained on, in their order. A value with steps, written `a > b`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

ARROW = " > "
ROOT_CURRICULUM = "no pre-training"
RANDOM_WEIGHTS = "random weights"  # judged beside the root where that has weights of a file
NO_WEIGHTS = "random"  # the word for them among several roots
BASELINES = (ROOT_CURRICULUM, RANDOM_WEIGHTS)


def titled(root: str, curriculum: str) -> str:
    """A curriculum as a study with several roots calls it."""
    return f"{root}: {curriculum}" if root else curriculum


def given_weights(root: str, roots: Collection[str]) -> bool:
    """Has that root of a study weights from elsewhere? Where weights are what roots differ in, some are random."""
    return root.split()[-1:] != [NO_WEIGHTS] and any(other.split()[-1:] == [NO_WEIGHTS] for other in roots)


@dataclass(frozen=True)
class Curriculum:
    """`tasks` in their order; none of them where encoders are judged as they begin, under the name `baseline`."""

    tasks: tuple[str, ...] = ()
    baseline: str = ROOT_CURRICULUM  # what one without tasks is called

    @classmethod
    def parse(cls, text: str) -> Curriculum:
        """From a cell of a table: 'odc > moco_v2', or the name of a baseline."""
        if text in BASELINES:
            return cls(baseline=text)
        return cls(tuple(task.strip() for task in text.split(ARROW.strip())))

    def __str__(self) -> str:
        return ARROW.join(self.tasks) or self.baseline

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True  # one without tasks is a curriculum too

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    @property
    def last(self) -> str:
        """The task that it ends with; empty where it has none."""
        return self.tasks[-1] if self.tasks else ""

    def prefix(self, length: int) -> Curriculum:
        """The shorter curriculum that it begins with."""
        return Curriculum(self.tasks[:length])

    def then(self, task: str) -> Curriculum:
        """The longer curriculum that goes on with a task."""
        return Curriculum((*self.tasks, task))

    def prefixes(self) -> Iterator[Curriculum]:
        """Everything that it begins with, from its first task alone to itself."""
        return (self.prefix(length) for length in range(1, len(self) + 1))

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Each task with the one after it."""
        return zip(self.tasks, self.tasks[1:], strict=False)
