"""HTML from text: whatever is not marked as markup is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def el(tag: str, *inside: str, **attributes: str | bool | None) -> Markup:
    """An element; `class_` is class, and `data_what` data-what. What is inside is escaped unless it is markup."""
    told = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{told}>{together(inside)}</{tag}>")


def together(parts: Iterable[str]) -> Markup:
    """Pieces behind one another."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def table(headings: Sequence[str], lines: Iterable[Sequence[str]], words: int = 1, name: str = "") -> Markup:
    """A table; its first columns, `words` many, hold words, the others numbers that stand at the right."""
    sides = ["" if i < words else "num" for i in range(len(headings))]
    head = [el("th", text, class_=side or None, scope="col") for text, side in zip(headings, sides, strict=True)]
    body = [
        el("tr", *(el("td", cell, class_=side or None) for cell, side in zip(line, sides, strict=True)))
        for line in lines
    ]
    whole = el("table", el("thead", el("tr", *head)), el("tbody", *body))
    return el("div", whole, class_="wide", role="region" if name else None, aria_label=name or None, tabindex="0")


def embedded(value: Any) -> Markup:
    """Plain data for a script element: no character of it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    for sign in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
