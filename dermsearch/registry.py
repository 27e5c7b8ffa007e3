"""What a study may name and other packages may bring: found by name, imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from dermsearch.errors import UserError, nearest


class Registry:
    """Shipped things as `module:attribute`, and those that installed packages bring by an entry point group."""

    def __init__(self, kind: str, group: str, shipped: Mapping[str, str]) -> None:
        self.kind, self.group, self.shipped = kind, group, dict(shipped)

    def names(self) -> list[str]:
        """All that may be named, sorted."""
        return sorted({*self.shipped, *(entry.name for entry in entry_points(group=self.group))})

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    @cache  # noqa: B019  a registry lives as long as the process
    def find(self, name: str) -> Any:
        """The thing of that name; UserError names the nearest where there is none."""
        if name in self.shipped:
            return attribute(self.shipped[name])
        for entry in entry_points(group=self.group, name=name):
            return entry.load()
        raise UserError(f"'{name}' is not a {self.kind}; {nearest(name, self.names())}")


def attribute(path: str) -> Any:
    """What stands at `module:attribute`, imported when it is asked for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
