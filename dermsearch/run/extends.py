"""When a study is more of the same as an earlier one, so that its results may take the place of the earlier one's.

Whatever the earlier one could come to, a curriculum with its settings, a seed, a score, must be one that this one
comes to as well. Where it runs, how fast and what is shown beside it is nobody's concern.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from dermsearch.errors import public

FREE = {"description", "published", "compute", "logging", "train.knn_every"}  # no result depends on them
SEARCHED = ("choice", "log", "range")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What stands in the way, as 'curriculum.length: was [1, 3], now [1, 1]'; both studies as they were resolved."""
    differ = _differ(objective_named(old), objective_named(new), "")
    return [f"{name}: was {said(was)}, now {said(now)}" for name, was, now in differ]


def objective_named(study: Mapping[str, Any]) -> Mapping[str, Any]:
    """The study with the number of labels that its objective goes by, said or not."""
    objective, lines = study.get("objective") or {}, study.get("downstream") or {}
    given = None if objective.get("mean") else (lines.get(objective.get("protocol")) or {}).get("labelled")
    if objective.get("labelled") is not None or given is None:
        return study
    first = given[0] if isinstance(given, list) else given
    return {**study, "objective": {**objective, "labelled": str(first)}}


def _differ(old: Any, new: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if name in FREE or (old == new and name not in ("", "curriculum")):
        return
    rule = RULES.get(name) or next((RULES[form] for form in RULES if fnmatchcase(name, form)), None)
    if rule is not None and rule(old, new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping) and not _is_space(old) and not _is_space(new):
        for key in dict.fromkeys([*old, *new]):
            if not (name in GROWING and key not in old):
                yield from _differ(old.get(key), new.get(key), f"{name}.{key}".strip("."))
        if name == "curriculum" and new.get("order") == "listed" and not more_of([*old["tasks"]], [*new["tasks"]]):
            yield "curriculum.tasks", [*old["tasks"]], [*new["tasks"]]
    else:
        yield name, old, new


GROWING = {"curriculum.tasks", "downstream", "data"}  # mappings in which more names are more of the same
Rule = Callable[[Any, Any], bool]  # is the second more of the first?


def more_of(old: Any, new: Any) -> bool:
    """All of the other, in its order."""
    old, rest = old if isinstance(old, list) else [old], iter(new if isinstance(new, list) else [new])
    return all(any(one == other for other in rest) for one in old)


def wider(old: Any, new: Any) -> bool:
    """From no more to no less."""
    return new[0] <= old[0] and old[1] <= new[1]


def looser(old: Any, new: Any) -> bool:
    """A limit that is higher, or is no more."""
    return new is None or (old is not None and new >= old)


def more_labels(old: Any, new: Any) -> bool:
    """Whatever number of labels was learnt from still is, in whichever order."""
    before, now = (each if isinstance(each, list) else [each] for each in (old, new))
    return {*map(str, before)} <= {*map(str, now)}


def more_draws(old: Any, new: Any) -> bool:
    """Of few labels; one where none are named."""
    return (new or 1) >= (old or 1)


def more_budget(old: Any, new: Any) -> bool:
    """Every limit is looser; hours are those of a run, not of a study."""
    names = {*(old or {}), *(new or {})} - {"hours", "gpu_hours"}
    return all(looser((old or {}).get(name), (new or {}).get(name)) for name in names)


def more_roots(old: Any, new: Any) -> bool:
    """All that curricula began with, they still begin with."""
    return more_of(_several(old), _several(new))


def _several(value: Any) -> list[Any]:
    return value["choice"] if isinstance(value, Mapping) and "choice" in value else [value]


def _searched(old: Any, new: Any) -> bool:
    """A setting of which more values are tried."""
    if not _is_space(new):
        return False
    if "choice" in new:
        return all(value in new["choice"] for value in _several(old))
    (kind,) = (name for name in SEARCHED if name in new)
    return isinstance(old, Mapping) and kind in old and wider(old[kind], new[kind])


def _is_space(value: Any) -> bool:
    return isinstance(value, Mapping) and any(name in value for name in SEARCHED)


RULES: dict[str, Rule] = {
    "curriculum.length": wider,
    "curriculum.order": lambda old, new: new == "any",
    "curriculum.repeats": lambda old, new: new is True,
    "encoder.name": more_roots,
    "encoder.weights": more_roots,
    "search.seeds": more_of,
    "search.trials": looser,
    "search.budget": more_budget,
    "search.replicates": lambda old, new: new == "all",
    "downstream.*.labelled": more_labels,
    "downstream.*.repeats": more_draws,
    "curriculum.tasks.*": _searched,
}


def said(value: Any) -> str:
    """A value on one short line."""
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    text = public(text)  # before it is cut, which may take what tells a secret by
    return text if len(text) <= 60 else text[:57] + "..."
