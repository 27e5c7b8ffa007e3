"""What a stage is called before people: its tasks with their searched settings, rounded, its root and its seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dermsearch.curriculum import ARROW, titled
from dermsearch.search.space.dimensions import ROOT
from dermsearch.search.space.space import Space
from dermsearch.search.tree.node import Node


def named(node: Node, space: Space, seeds: Sequence[int]) -> str:
    """'a: odc (lr 0.03) > moco_v2, seed 1': so much of it as tells it from the other stages of the study."""
    stages: list[Node] = []
    at: Node | None = node.parent if node.judge is not None else node
    while at is not None and at.parent is not None:
        stages.insert(0, at)
        at = at.origin
    tasks = ARROW.join(stage.task + searched(stage, space) for stage in stages) or str(node.curriculum)
    return titled(node.root.name, tasks) + (f", seed {node.seed}" if len(seeds) > 1 else "")


def searched(stage: Node, space: Space) -> str:
    """' (lr 0.03)': the settings of its task that the study searches; nothing where it searches none."""
    names = [d.name.partition(".")[2] for d in space.dimensions if d.name != ROOT and d.task == stage.task]
    values = {**stage.settings.get("train", {}), **stage.settings.get("config", {})}
    return f" ({', '.join(f'{name} {short(values.get(name))}' for name in names)})" if names else ""


def short(value: Any) -> str:
    """A setting in three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
