"""What a command does where standard output is full, closed or knows few characters, and where a signal ends it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
from rich.console import Console

from dermsearch.cli import main, running
from dermsearch.cli.console import aside
from dermsearch.cli.report import report
from dermsearch.data.prepare.progress import Bar
from dermsearch.errors import UserError
from dermsearch.run import extends
from dermsearch.study.wording import say, short

pytestmark = pytest.mark.slow  # each starts the program, which takes seconds

RUN = [sys.executable, "-c", "from dermsearch.cli.main import main; main()"]
SMALL = ["data.cases=60", "data.size=32", "encoder.name=test_resnet", "compute.engine=inline", "train.batch=16"]
SMALL += ["curriculum.tasks={rotation: {}}", "curriculum.length=[1,1]"]


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that could not do what it should."""
    assert done.stderr.startswith("dermsearch: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("dermsearch: ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_tree_is_drawn_with_the_characters_that_there_are(encoding: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([*RUN, "plan", "curriculum_three.yaml"], capture_output=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"|-- relative_location\n|   |-- moco_v2\n" in done.stdout


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_standard_output_is_a_sentence(buffered: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    words = [*RUN, "plan", "curriculum_three.yaml"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert said(done) == "standard output cannot be written to: [Errno 28] No space left on device\n"


def test_a_closed_standard_output_is_a_sentence(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -c 'from dermsearch.cli.main import main; main()' plan curriculum.yaml >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "closed" in said(done)


def test_who_has_read_enough_is_not_bothered(tmp_path: Path) -> None:
    going = subprocess.Popen(
        [*RUN, "plan", "curriculum_three.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert going.stdout is not None and going.stderr is not None
    going.stdout.close()
    assert going.stderr.read() == b"" and going.wait() == 1


def test_paths_and_errors_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("results go to a[/x]b", "[enforce fail at alloc_cpu.cpp:118] :warning:"):
        aside().print(text, soft_wrap=True)
        assert capsys.readouterr().err == f"{text}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "curriculum_three.yaml", "--address", ""], "--address: is empty"),
        (["run", "curriculum_three.yaml", "--address", "127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"),
        (["run", "curriculum_three.yaml", "compute.gpus=1"], "compute.gpus: is 1, and this machine has no GPU"),
        (["plan", "curriculum_three.yaml", "compute.gpus=1"], "compute.gpus: is 1, and this machine has no GPU"),
        (
            ["plan", "curriculum_three.yaml", "data.source=store", "data.path=nowhere"],
            "there is no case store at nowhere",
        ),
    ],
    ids=lambda v: " ".join(v[:5]) if isinstance(v, list) else "",
)
def test_what_a_run_would_refuse_is_refused_at_once(words: list[str], message: str, tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = warm.run(words, tmp_path, timeout=300, env=environment)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and message in lines[-1] and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_a_schedulers_notice_ends_a_run_without_ray_with_a_word_and_its_state(tmp_path: Path) -> None:
    words = ["run", "curriculum_three.yaml", *SMALL, "train.epochs=10000", "compute.save_every=3600"]
    going = subprocess.Popen([*RUN, *words], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    until = time.monotonic() + 300
    while not list((tmp_path / "results").glob("store/partial/*/progress.json")):
        assert time.monotonic() < until and going.poll() is None
        time.sleep(0.1)
    assert not list((tmp_path / "results").glob("store/partial/*/state.pt"))
    going.send_signal(signal.SIGTERM)
    _, err = going.communicate(timeout=300)
    assert going.returncode == 130
    assert len(list((tmp_path / "results").glob("store/partial/*/state.pt"))) == 1
    assert err.endswith("Interrupted. The same command continues from here.\n")


def test_where_all_stages_fail_the_cause_is_told(tmp_path: Path) -> None:
    words = ["run", "curriculum_three.yaml", *SMALL, "train.epochs=2", "train.lr=1e9"]
    done = warm.run(words, tmp_path, timeout=200)
    assert done.returncode == 3, done.stderr
    assert "Failed: " in done.stderr and "Traceback" not in done.stderr


def test_no_more_threads_are_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever in a run one was to be started; any other error of that kind is a bug, and keeps its traceback."""

    def refuse() -> None:
        raise RuntimeError(why)

    monkeypatch.setattr(main, "app", refuse)
    why = "can't start new thread"
    assert main._answer() == 2
    assert capsys.readouterr().err.startswith("dermsearch: this machine gives no more threads; end other programs")
    why = "a bug"
    with pytest.raises(RuntimeError, match="a bug"):
        main._answer()


def test_a_name_that_is_too_long_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a" * 300
    monkeypatch.setattr("sys.argv", ["dermsearch", "replay", name])
    assert main._answer() == 2
    assert capsys.readouterr().err == f"dermsearch: {name}: File name too long\n"


def test_a_notice_is_what_it_was_before_when_a_command_has_ended() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError), running.noticed():
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        raise ValueError
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_page_is_opened_or_it_is_said_that_no_browser_was_found(tmp_path: Path, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("dermsearch.results.report.report.report", lambda folder, output: tmp_path / "report.html")
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or len(opened) < 2)
    report([tmp_path], None, True)
    with pytest.raises(UserError, match=r"--open: no browser was found; open .*report\.html yourself"):
        report([tmp_path], None, True)
    assert opened == [(tmp_path / "report.html").as_uri()] * 2


def test_keys_of_a_store_are_not_told_while_it_is_prepared() -> None:
    console = Console(file=io.StringIO(), width=200)
    Bar(console).say("s3://AKIAKEY:secret/of%20mine@bucket/cases: 12 cases in 3.0 s")
    assert console.file.getvalue() == "s3://bucket/cases: 12 cases in 3.0 s\n"  # type: ignore[attr-defined]


def test_a_secret_is_taken_out_before_a_value_is_cut() -> None:
    keys = f"AKIA0123456789ABCDEF:{'k' * 40}"
    assert short(f"s3://{keys}@bucket/cases") == "s3://bucket/cases" == extends.said(f"s3://{keys}@bucket/cases")
    assert say({"path": f"s3://{keys}@bucket/cases"}) == '{"path": "s3://bucket/cases"}'
