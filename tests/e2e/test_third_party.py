"""Packages of somebody else's, made by following the pages of docs/ to the letter, each alone and all together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm
import yaml
from data.damage import encode, picture
from data.page import files

from dermsearch.results import load

PAGE_FILES = ("simsiam.py", "test_simsiam.py", "pyproject.toml", "study.yaml")
ROOT = Path(__file__).parents[2]
PAGES = ["tasks.md", "fits.md", "protocols.md", "sources.md", "domains.md", "samplers.md"]
PAGE = (ROOT / "docs" / "tasks.md").read_text()
SMALL = ["data.cases=60", "data.size=32", "train.epochs=2", "train.batch=16"]


def call(package: Path, command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command that finds the package where it was installed."""
    path = os.pathsep.join([str(package / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **more}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)


def install(page: str, folder: Path, site: Path) -> dict[str, str]:
    """A page's files, installed by pip apart from this environment, which keeps its own lists."""
    shown = files(page)
    folder.mkdir(exist_ok=True)
    for name, text in shown.items():
        (folder / name).write_text(text)
    pip = "pip install --no-deps --no-build-isolation --no-index --target"
    command = [sys.executable, "-m", *pip.split(), str(site), "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return shown


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task of its page."""
    folder = tmp_path_factory.mktemp("package")
    assert set(install("tasks.md", folder, folder / "site")) == {*PAGE_FILES}
    assert (folder / "site" / "simsiam.py").exists()
    return folder


def test_the_page_says_thirty_lines_and_is_short_itself() -> None:
    code = re.search(r"^class SimSiam.*?(?=^```$)", PAGE, re.MULTILINE | re.DOTALL)
    assert code is not None and len([line for line in code[0].splitlines() if line]) <= 32
    assert len(PAGE.splitlines()) <= 160


@pytest.mark.long
def test_the_study_of_the_page_is_planned_and_run(package: Path) -> None:
    plan = call(package, [sys.executable, "-m", "dermsearch", "plan", "study.yaml"], package)
    assert plan.returncode == 0 and "simsiam" in plan.stdout, plan.stderr
    command = [sys.executable, "-m", "dermsearch", "run", "study.yaml", "--json", *SMALL]
    done = call(package, command, package)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["stages"] == {"proposed": 4, "trained": 4, "reused": 0, "failed": 0, "pruned": 0, "dropped": 0}
    scored = {row["curriculum"]: row["score"] for row in summary["rows"]}
    assert {"simsiam", "relative_location > simsiam", "simsiam > relative_location"} <= set(scored)
    assert all(0 <= score <= 1 for score in scored.values())
    assert "simsiam" in done.stderr  # the leaderboard is printed there

    epochs = load(package / "results" / "simsiam").pandas("epochs")
    assert len(epochs) == 4 * 2 and epochs.loss.notna().all()


def test_its_settings_are_checked_like_any_other(package: Path) -> None:
    for override, message in (
        ("simsiam.width=4", "curriculum.tasks.simsiam.width: must be at least 8, not 4"),
        ("simsiam.widht=64", "did you mean 'width'?"),
    ):
        done = call(package, [sys.executable, "-m", "dermsearch", "plan", "study.yaml", override], package)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_without_the_package_there_is_no_such_task(package: Path) -> None:
    done = warm.run(["plan", str(package / "study.yaml")], ROOT)
    assert done.returncode == 2 and "'simsiam' is not a task" in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_the_check_of_the_page_passes_away_from_a_checkout(package: Path) -> None:
    done = call(package, [sys.executable, "-m", "pytest", "-q", "test_simsiam.py"], package)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]


STUDY = {
    "name": "all",
    "data": {
        "drawn": {"domain": "eye", "modalities": ["fundus"], "normalise": "eye", "cases": 60, "size": 32},
        "harbour": {"domain": "eye", "modalities": ["fundus"], "source": "store", "path": "harbour-36", "size": 32},
    },
    "encoder": {"name": "test_resnet"},
    "curriculum": {"length": [1, 2], "tasks": {"simsiam": {"width": 32}, "rotation": {}}},
    "train": {"epochs": 1, "batch": 16},
    "search": {"sampler": "climber", "trials": 3, "lag": 2},
    "downstream": {
        "linear@drawn": {},
        "focal@harbour": {"epochs": 1, "batch": 16},
        "centres@harbour": {},
        "centres@drawn": {},
    },
    "objective": {"protocol": "centres@drawn", "metric": "balanced_accuracy", "label": "grade"},
    "compute": {"engine": "inline"},
}


@pytest.mark.slow
def test_a_task_fit_protocol_source_domain_and_sampler_of_others_in_one_study(tmp_path: Path) -> None:
    """Each from the package that its page shows; the source is of the domain, as docs/domains.md says it may be."""
    site = tmp_path / "site"
    for page in PAGES:
        install(page, tmp_path / page, site)
    harbour = site / "harbour.py"
    for old, new in (("    read=read,", '    read=read,\n    domain="eye",'), ('{"derm": images', '{"fundus": images')):
        assert old in harbour.read_text()
        harbour.write_text(harbour.read_text().replace(old, new))
    release(tmp_path / "release")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    dermsearch = [sys.executable, "-m", "dermsearch"]
    prepare = [*dermsearch, "data", "prepare", "harbour", "release", "-o", "harbour-36", "--side", "36"]
    for command in (prepare, [*dermsearch, "run", "study.yaml", "--json", "--out", "out"]):
        done = call(tmp_path, command, tmp_path)
        assert done.returncode == 0, done.stderr

    results = load(tmp_path / "out")
    trials, stages, judged = (results.pandas(name) for name in ("trials", "stages", "judgements"))
    assert json.loads(done.stdout)["stages"]["failed"] == 0 and set(trials.status) == {"done"} and len(trials) == 3
    assert any("simsiam" in curriculum for curriculum in trials.curriculum)
    assert set(stages.task[stages.kind == "fit"]) == {"focal"}
    assert set(judged.status) == {"done"}
    scores = results.pandas("scores")
    told = {(p, d): set(rows.label) - {"mean"} for (p, d), rows in scores.groupby(["protocol", "data"])}
    of_eyes, of_sailors = {"grade"}, {"diagnosis"}
    assert told[("linear", "drawn")] == told[("centres", "drawn")] == of_eyes
    assert told[("focal", "harbour")] == told[("centres", "harbour")] == of_sailors
    assert set(scores["class"][scores.label == "diagnosis"]) == {"", "BCC", "NEV", "MEL"}
    assert scores.value.between(0, 1).all()


def release(folder: Path, cases: int = 60) -> None:
    """Harbour's, as its page describes it."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,patient,lesion,diagnosis,age,sex,biopsied"]
    for n in range(cases):
        (folder / "images" / f"H{n}.jpg").write_bytes(encode(picture(n)))
        word = ("melanoma", "naevus", "mole", "basal cell carcinoma")[n % 4]
        lines.append(f"H{n},p{n // 2},l{n},{word},{30 + n},{'mf'[n % 2]},yes")
    (folder / "metadata.csv").write_text("\n".join(lines))
