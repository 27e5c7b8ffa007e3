"""The page around the sections: one file that fetches nothing, with its style, its script and that of its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from dermsearch import __version__
from dermsearch.errors import UserError
from dermsearch.results.report.charts import library
from dermsearch.results.report.content import PageSection
from dermsearch.results.report.markup import Markup, el, embedded, together
from dermsearch.results.tables.file import replacing

# A browser that honours it fetches nothing for this page, whatever stands in it.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, sections: Sequence[PageSection], state: Mapping[str, Any], home: str = "") -> str:
    """The whole file. `state` says whether a run is alive; it stands last, so that it is cheap to renew."""
    return body_of(title, sections, home) + tail(state)


def body_of(title: str, sections: Sequence[PageSection], home: str = "") -> str:
    """All but the state of the run and what ends the file."""
    charts = {name: chart for section in sections for name, chart in section.charts.items()}
    data = {name: each for section in sections for name, each in section.data.items()}
    head = together(
        [
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            el("title", f"{title} · dermsearch"),
            Markup(f"<style>{part('page.css')}</style>"),
        ]
    )
    links = [el("li", el("a", section.title, href=f"#{section.id}")) for section in sections]
    theme = el("button", "Theme: system", type="button", id="theme")
    top = el(
        "header",
        el("div", el("p", "dermsearch", class_="brand"), theme, class_="bar"),
        el("h1", title),
        el("p", class_="state", id="state", role="status"),
        el("nav", el("ul", *links), aria_label="Sections"),
    )
    parts = [
        el("section", el("h2", section.title, id=f"{section.id}-title"), section.body, id=section.id,
           aria_labelledby=f"{section.id}-title")
        for section in sections
    ]  # fmt: skip
    foot = el("footer", f"Made by dermsearch {__version__} from the tables{f' of {home}' if home else ''}.")
    dialog = el("dialog", el("button", "Close", type="button", id="close"), el("div", id="behind"), id="details")
    none = el("noscript", el("p", "Tree, leaderboard and pictures of this page need scripts; nothing is fetched."))
    whole = together([top, none, el("main", *parts), foot, dialog])
    scripts = [
        el("script", embedded({"charts": charts, **data}), type="application/json", id="data"),
        Markup(f"<script>(() => {{{harmless(library())}}})()</script>"),
    ]
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{whole}{together(scripts)}'


def tail(state: Mapping[str, Any]) -> str:
    """The state of the run, and the page's own script, which reads it first."""
    own = Markup(f"<script>(() => {{{part('page.js')}}})()</script></body></html>\n")
    return together([el("script", embedded(dict(state)), type="application/json", id="run"), own])


def harmless(script: str) -> str:
    """A script of which no word ends its element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def part(name: str) -> str:
    """A file that travels beside this one."""
    return (files("dermsearch.results.report") / name).read_text("utf-8")


def put(text: str, path: Path) -> None:
    """Replace a file whole: who looks sees the old page or the new one."""
    try:
        with replacing(path) as new:
            new.write_text(text, "utf-8", "replace")  # a path may be no text
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from None
