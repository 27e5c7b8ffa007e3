"""What a study may say: `dermsearch tasks`, `protocols`, `sources`, `samplers`, `domains`, `schema`; and `copy`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dermsearch.cli.console import paper, writing

KINDS = {
    "tasks": "pretext tasks, for curriculum.tasks",
    "protocols": "evaluators and fits, for downstream",
    "sources": "data sets, for `dermsearch data prepare`",
    "samplers": "samplers, for search.sampler",
    "domains": "domains, which are what images are of, for data.domain",
}


def command(kind: str) -> Callable[[str | None], None]:
    """The command of one kind."""

    def show(name: Annotated[str | None, typer.Argument(help="One of them, with all its settings.")] = None) -> None:
        from dermsearch.run.reference import described, listed, settings_of

        if name is None:
            print_table(["name", "what it is"], [[n + f" ({p})" * bool(p), text] for n, p, text in listed(kind)])
            return
        print(described(kind, name))
        found = settings_of(kind, name)
        if found:
            print()
            may = [", ".join(filter(None, [each.kind, each.limits])) for each in found]
            rows = [[s.name, s.default or "required", m, s.about] for s, m in zip(found, may, strict=True)]
            print_table(["setting", "default", "may be", "what for"], rows)

    show.__doc__ = f"List the {KINDS[kind]}, those of other packages too; with a NAME describe it and its settings."
    return show


def print_table(headings: list[str], rows: list[list[str]]) -> None:
    """Aligned columns, the last one wrapped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=heading in ("name", "setting"))
    for row in rows:
        table.add_row(*map(Text, row))
    paper().print(table)


def copy(
    study: Annotated[str, typer.Argument(help="A shipped study, such as curriculum.yaml.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file that is written. Default: its name, here.")
    ] = None,
) -> None:
    """Write a shipped study to a file of yours, comments and all, to be changed."""
    from dermsearch.study.finding import find
    from dermsearch.study.reading import text_of

    source = find(study)
    text = text_of(source)
    target = output or Path(source.name)
    if target.is_dir():
        target = target / source.name
    with writing(target), target.open("x", encoding="utf-8") as file:
        file.write(text)
    print(f"{target}: change its name, too, then `dermsearch plan {target}`")


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file that is written. Default: standard output.")
    ] = None,
) -> None:
    """Write the JSON schema of a study file, by which an editor completes and checks it as you type."""
    import json

    from dermsearch.run.schema import study_schema

    text = json.dumps(study_schema(), indent=1) + "\n"
    if output is None:
        print(text, end="")
        return
    with writing(output):
        output.write_text(text, encoding="utf-8")
    print(f"{output}: a study whose first line is '# yaml-language-server: $schema={output}' is checked by it")
