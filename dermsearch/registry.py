"""What a study may name and other packages may bring: found by name, imported when it is first asked for."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from dermsearch.errors import UserError, first_line, nearest


class Registry:
    """Shipped things as `module:attribute`, and those that installed packages bring by an entry point group."""

    def __init__(self, kind: str, group: str, shipped: Mapping[str, str]) -> None:
        self.kind, self.group, self.shipped = kind, group, dict(shipped)

    def names(self) -> list[str]:
        """All that may be named, sorted."""
        return sorted({*self.shipped, *(entry.name for entry in entry_points(group=self.group))})

    def __contains__(self, name: object) -> bool:
        return name in self.shipped or name in self.names()  # what is installed takes milliseconds to list

    @cache  # noqa: B019  a registry lives as long as the process
    def find(self, name: str) -> Any:
        """The thing of that name; UserError names the nearest where there is none, and what keeps it from loading."""
        if name in self.shipped:
            return attribute(self.shipped[name])
        for entry in entry_points(group=self.group, name=name):
            try:
                return entry.load()
            except Exception as error:
                told = f"{type(error).__name__}: {first_line(error)}{place(error)}"
                raise UserError(f"{self.kind} '{name}' of package {brings(entry)} cannot be loaded: {told}") from error
        raise UserError(f"'{name}' is not a {self.kind}; {nearest(name, self.names())}")

    def loadable(self) -> Iterator[tuple[str, Any]]:
        """Every name with its thing, but for what an installed package breaks."""
        for name in self.names():
            with suppress(UserError):
                yield name, self.find(name)

    def package(self, name: str) -> str:
        """Which package brings what is called so; empty of what is shipped."""
        if name in self.shipped:
            return ""
        return next(map(brings, entry_points(group=self.group, name=name)), "")


def brings(entry: EntryPoint) -> str:
    """The package of an entry point, as it is installed; else its module."""
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]


def place(error: Exception) -> str:
    """Where in a file an error was raised; nothing where it was on the way to one."""
    on_the_way = ("<", str(Path(importlib.__file__).parent), __file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(on_the_way)]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def attribute(path: str) -> Any:
    """What stands at `module:attribute`, imported when it is asked for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
