"""The commands as a stranger meets them: help at once, mistakes in one line, a plan before a run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import warm
from pace import slowness

from dermsearch import __version__
from dermsearch.cli import names
from dermsearch.cli.main import app
from dermsearch.errors import UserError
from dermsearch.study.finding import shipped_folder

HEAVY = ("torch", "ray", "pydantic", "pandas", "numpy", "pyarrow", "optuna", "yaml", "timm")


def dermsearch(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return warm.run(list(words), cwd, timeout=300)


def commands(command: object, name: str = "dermsearch") -> Iterator[tuple[str, object]]:
    """Every command and group of commands, by its whole name."""
    yield name, command
    for inner, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, f"{name} {inner}")


TREE = dict(commands(typer.main.get_command(app)))


def test_the_commands() -> None:
    assert TREE.keys() == {
        "dermsearch",
        *(
            f"dermsearch {c}"
            for c in ("run", "plan", "test", "replay", "figures", "leaderboard", "explain", "judge", "predict")
        ),
        *(f"dermsearch {c}" for c in ("init", "report", "data", "results", "export", "schema")),
        *(f"dermsearch {c}" for c in ("embed", "copy", "tasks", "protocols", "sources", "samplers", "domains")),
        *(f"dermsearch results {c}" for c in ("audit", "clinical", "samples")),
        *(f"dermsearch data {c}" for c in ("prepare", "check", "describe", "show", "attention")),
        *(f"dermsearch data {c}" for c in ("mix", "borrow", "found", "make", "quality", "view")),
        "dermsearch store",
        *(f"dermsearch store {c}" for c in ("list", "verify", "gc")),
    }


@pytest.mark.parametrize("name", TREE)
def test_every_command_and_option_has_help(name: str) -> None:
    command = TREE[name]
    assert len(getattr(command, "help", "") or "") > 20
    for param in getattr(command, "params", []):
        assert len(getattr(param, "help", "") or "") > 5, f"{name} {param.name}"


@pytest.mark.parametrize("name", TREE)
def test_help_is_printed(name: str, tmp_path: Path) -> None:
    done = dermsearch(*name.split()[1:], "--help", cwd=tmp_path)
    assert done.returncode == 0 and "Usage:" in done.stdout and not done.stderr


@pytest.mark.alone
def test_help_answers_at_once(tmp_path: Path) -> None:
    """By what a start takes of a processor: others may have it meanwhile."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "dermsearch", "--help"], cwd=tmp_path, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    took = [seconds() for _ in range(5)]  # the first reads files from disk
    assert min(took) < 0.4 * slowness(), took


def test_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, dermsearch.cli.main; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_version(tmp_path: Path) -> None:
    assert dermsearch("--version", cwd=tmp_path).stdout == f"dermsearch {__version__}\n"


@pytest.mark.slow
def test_plan_shows_the_tree_and_what_sharing_saves(tmp_path: Path) -> None:
    done = dermsearch("plan", "curriculum_three.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "15 instead of 33" in done.stdout
    tree = done.stdout[done.stdout.index("no pre-training") :]
    assert tree.startswith("no pre-training\n├── relative_location\n│   ├── moco_v2\n│   │   └── odc\n│   └── odc\n")
    assert len(tree.splitlines()) == 16  # the root and 15 stages
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "plan", "data describe"])
def test_a_study_that_is_not_there(command: str, tmp_path: Path) -> None:
    done = dermsearch(*command.split(), "curriculm.yaml", cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        "dermsearch: curriculm.yaml: no such file, and no shipped study of that name; did you mean 'curriculum'?\n"
    )


def test_a_far_off_name_lists_what_is_shipped(tmp_path: Path) -> None:
    done = dermsearch("run", "zzz", cwd=tmp_path)
    assert done.returncode == 2 and "choose from: " in done.stderr and "curriculum_three" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "describe", "."], ".: is not a case store (no readable store.json in it)"),
        (
            ["data", "describe", "ham10000-128"],
            "ham10000-128: is neither a case store's folder (`dermsearch data prepare` makes one) nor a study",
        ),
        (
            ["data", "show", "a/b"],
            "a/b: is neither a case store's folder (`dermsearch data prepare` makes one) nor a study",
        ),
        (["data", "describe", "x" * 300], f"{'x' * 300}: cannot be read: File name too long"),
        (["figures", "."], ".: not the folder of a study: it has no tables/trials.arrow"),
        (["leaderboard", "nowhere"], "there is no folder 'nowhere'; name that of a study's results"),
        (
            ["run", "single_tasks", "--quick"],
            f"--quick: {shipped_folder() / 'single_tasks.yaml'} has no section 'quick' with smaller settings",
        ),
        (
            ["plan", "sm3_fusion", "--quick", "encoder.branches=shared"],
            "command line: encoder.branches: must be separate for paired_contrast, which pairs derm with clinic",
        ),
        (
            ["run", "curriculum_three.yaml", "compute.engine=inline", "--address", "auto"],
            "--address: joins a Ray cluster, but compute.engine is 'inline'",
        ),
    ],
    ids=lambda v: " ".join(v)[:30] if isinstance(v, list) else "",
)
def test_mistakes_are_one_sentence(words: list[str], message: str, tmp_path: Path) -> None:
    done = dermsearch(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"dermsearch: {message}\n")
    assert not list(tmp_path.iterdir())


def test_what_is_written_makes_the_folder_that_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names.copy("single_tasks", tmp_path / "a" / "mine.yaml")
    names.schema(tmp_path / "b" / "study.json")
    assert (tmp_path / "a/mine.yaml").is_file() and (tmp_path / "b/study.json").is_file()
    with pytest.raises(UserError, match="is there already; choose another file"):
        names.copy("single_tasks", tmp_path / "a" / "mine.yaml")


@pytest.mark.parametrize(
    "words", [["rnu"], ["data", "rnu"], ["run"], ["run", "curriculum_three.yaml", "--ot", "x"]], ids=str
)
def test_unknown_commands_and_options(words: list[str], tmp_path: Path) -> None:
    done = dermsearch(*words, cwd=tmp_path)
    assert done.returncode == 2 and "Usage:" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_data_describes_and_shows_the_cases_of_a_study(tmp_path: Path) -> None:
    shipped = (shipped_folder() / "curriculum_three.yaml").read_text()
    (tmp_path / "small.yaml").write_text(shipped.replace("cases: 600, size: 64", "cases: 40, size: 32"))
    told = dermsearch("data", "describe", "small.yaml", cwd=tmp_path)
    assert told.returncode == 0 and "40 cases" in told.stdout and "diagnosis" in told.stdout, told.stderr
    folder = next((tmp_path / "results/store/data").glob("synthetic-*"))  # now by its folder
    shown = dermsearch("data", "show", str(folder), "-o", "sheet.png", "--count", "50", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, "sheet.png\n"), shown.stderr
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    nowhere = dermsearch("data", "show", str(folder), "-o", "small.yaml/sheet.png", cwd=tmp_path)
    assert nowhere.returncode == 2 and nowhere.stderr.startswith("dermsearch: --output: 'small.yaml/sheet.png' cannot")


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("--wrong", 2)])
def test_the_program_ends_as_python_does(word: str, code: int, tmp_path: Path) -> None:
    """With its exit code, after its threads and all that waits for the end, and with everything that was printed."""
    late = "threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start(); atexit.register(print, 'end')"
    words = [
        sys.executable,
        "-c",
        f"import atexit, threading, time, dermsearch.cli.main as c; {late}; c.program()",
        word,
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code and done.stdout.endswith("thread\nend\n"), done.stdout + done.stderr
    assert (f"dermsearch {__version__}\n" in done.stdout) == (code == 0)


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    code = "import dermsearch.study.load as s, dermsearch.cli.main as c; s.load_study = lambda *a: 1 / 0; c.main()"
    done = subprocess.run([sys.executable, "-c", code, "plan", "x"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("place", ["dangling", "file/x"])
@pytest.mark.parametrize("command", ["copy slimp.yaml -o", "schema -o", "init --yes"])
def test_what_cannot_be_written_to_is_a_sentence(command: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere/x")
    (tmp_path / "file").touch()
    done = dermsearch(*command.split(), place, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"dermsearch: {place}: "), done.stderr


def test_a_study_that_is_no_page_is_not_copied(tmp_path: Path) -> None:
    for text, said in ((b"#" * 2_000_000, "larger than"), (b"name: \xff", "UTF-8")):
        (tmp_path / "odd.yaml").write_bytes(text)
        with pytest.raises(UserError, match=said):
            names.copy(str(tmp_path / "odd.yaml"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["make s -o m", "show s -o x.png", "prepare folder s -o x"])
def test_a_seed_is_one_that_a_study_may_have(command: str, tmp_path: Path) -> None:
    done = dermsearch("data", *command.split(), "--seed", str(2**31), cwd=tmp_path)
    assert done.returncode == 2 and "--seed" in done.stderr and "Traceback" not in done.stderr
