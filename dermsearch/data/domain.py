"""TEMPORARY"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dermsearch.data.case import MODALITIES, NAMED, SEVEN_POINT
from dermsearch.registry import Registry


@dataclass(frozen=True)
class Domain:
    name: str
    modalities: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    named: Mapping[str, str]


SKIN = Domain("skin", MODALITIES, SEVEN_POINT, NAMED)
DOMAINS = Registry("domain", "dermsearch.domains", {"skin": "dermsearch.data.domain:SKIN"})
