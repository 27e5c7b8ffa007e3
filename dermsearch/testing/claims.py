"""What all checks share: a promise that is kept or is told, and what everything with a name and settings keeps to."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from dermsearch.registry import Registry

BEYOND = (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0))  # a bound, and what lies beyond it


def claim(kept: object, promise: str) -> None:
    """A promise, told where it is not kept; it holds under `python -O` too."""
    if not kept:
        raise AssertionError(promise)


def named(registry: Registry, name: str) -> Any:
    """What is installed under that name, which it must bear itself."""
    made = registry.find(name)
    claim(made.name == name, f"{name}: its name is that of its entry point, not {made.name!r}")
    return made


def numbered(made: Any) -> None:
    """The version is part of keys."""
    kept = type(made.version) is int and made.version >= 1
    claim(kept, f"{made.name}: version is a whole number from 1 on, not {made.version!r}")


def strict(name: str, config: type[BaseModel]) -> None:
    """Settings are frozen and refuse what they do not know and what lies beyond a field's bounds."""
    claim(
        _refused(config, "no_such_setting", 1), f"{name}: an unknown setting is refused (dermsearch.settings.Settings)"
    )
    claim(config.model_config.get("frozen"), f"{name}: settings are frozen (dermsearch.settings.Settings)")
    for field, info in config.model_fields.items():
        for limit in info.metadata:
            for bound, beyond in BEYOND:
                if hasattr(limit, bound):
                    value = getattr(limit, bound) + beyond
                    claim(_refused(config, field, value), f"{name}: {field}={value} is refused")


def _refused(config: type[BaseModel], field: str, value: Any) -> bool:
    try:
        config.model_validate({field: value})
    except ValidationError as error:
        return any(wrong["loc"][:1] == (field,) for wrong in error.errors())
    return False


def probable(name: str, label: str, told: np.ndarray, cases: int, classes: int) -> None:
    """Probabilities of a label's classes."""
    claim(told.shape == (cases, classes), f"{name}: {label} is of shape ({cases}, {classes}), not {told.shape}")
    kept = np.isfinite(told).all() and (told >= 0).all() and np.allclose(told.sum(1), 1)
    claim(kept, f"{name}: probabilities of {label} are finite, not negative, and come to 1")
