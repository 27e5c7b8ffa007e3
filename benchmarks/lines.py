"""How many lines of code two commits have, and how many of them in functions that both have.

Comments, docstrings and blank lines do not count. A function is known again by its class and name, in whatever file;
one that both have under another class counts as moved.

    python benchmarks/lines.py 8386345 HEAD
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter

PACKAGE = "dermsearch"
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def code_lines(text: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def count(commit: str) -> tuple[int, int, Counter[str]]:
    """Lines, lines of code, and lines of code by function."""
    total, code, by_name = 0, 0, Counter[str]()
    for name in git("ls-tree", "-r", "--name-only", commit, PACKAGE).splitlines():
        if not name.endswith(".py"):
            continue
        text = git("show", f"{commit}:{name}")
        tree = ast.parse(text)
        lines = code_lines(text, tree)
        total, code = total + text.count("\n"), code + len(lines)
        classes = [(f"{c.name}.", c.body) for c in tree.body if isinstance(c, ast.ClassDef)]
        for owner, body in [("", tree.body), *classes]:
            for node in body:
                if isinstance(node, ast.FunctionDef):
                    held = lines.intersection(range(node.lineno, (node.end_lineno or 0) + 1))
                    by_name[owner + node.name] += len(held)
    return total, code, by_name


def bare(functions: Counter[str], names: set[str]) -> Counter[str]:
    """Some functions without their classes."""
    told = Counter[str]()
    for name in names:
        told[name.rpartition(".")[2]] += functions[name]
    return told


def main(before: str, after: str) -> None:
    (lines, code, old), (more_lines, more_code, new) = count(before), count(after)
    both = set(old) & set(new)
    left, right = bare(old, set(old) - both), bare(new, set(new) - both)
    moved = set(left) & set(right)
    rows = {
        "lines": (lines, more_lines),
        "lines of code": (code, more_code),
        f"in {len(both):,} functions of both": (sum(old[n] for n in both), sum(new[n] for n in both)),
        f"in {len(moved)} moved to another class": (sum(left[n] for n in moved), sum(right[n] for n in moved)),
        "in functions of one alone": (
            sum(left.values()) - sum(left[n] for n in moved),
            sum(right.values()) - sum(right[n] for n in moved),
        ),
    }
    print(f"{'':<36}{before:>10}{after:>10}")
    for name, (one, other) in rows.items():
        print(f"{name:<36}{one:>10,}{other:>10,}")


if __name__ == "__main__":
    main(*sys.argv[1:])
