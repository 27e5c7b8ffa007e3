"""What the tests of clusters/ share: where the files are, the pins, and which options a command has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTERS = ROOT / "clusters"


def loaded(name: str) -> Any:
    """A YAML file of clusters/."""
    return yaml.safe_load((CLUSTERS / name).read_text())


def pins() -> dict[str, str]:
    """Every package of constraints.txt with its version."""
    return dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())


def long_options(words: list[str]) -> set[str]:
    """The names of the options among the words of a command."""
    return {word.split("=")[0] for word in words if word.startswith("--") and word != "--"}


def declared(command: click.Command) -> set[str]:
    """The names of the options that a command has."""
    return {name for param in command.params for name in [*param.opts, *param.secondary_opts]}


def ray_command(name: str) -> click.Command:
    """One of Ray's own commands."""
    from ray.scripts.scripts import cli

    return cli.commands[name]
