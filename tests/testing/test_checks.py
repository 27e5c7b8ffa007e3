"""Each check passes what keeps its promises, and fails what breaks one, by the sentence of that promise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data.damage import encode, picture
from testing import broken

from dermsearch.data.domain import DOMAINS, Domain
from dermsearch.data.sources.base import SOURCES, Source
from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.fit.base import Fit
from dermsearch.pretext.base import TASKS, Task
from dermsearch.registry import Registry
from dermsearch.search.propose.sampler import SAMPLERS, Sampler
from dermsearch.testing import (
    check_domain,
    check_evaluator,
    check_fit,
    check_sampler,
    check_source,
    check_store,
    check_task,
)

pytestmark = pytest.mark.slow

KINDS = [(TASKS, Task), (PROTOCOLS, Fit), (PROTOCOLS, broken.Means), (SAMPLERS, Sampler)]
QUICK = {"epochs": 2, "batch": 16, "lr": 0.001}


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All of `broken`, as a package that is installed: seen by other processes too."""
    groups: dict[str, list[str]] = {}
    for attribute, made in vars(broken).items():
        if isinstance(made, Source | Domain):
            groups.setdefault((SOURCES if isinstance(made, Source) else DOMAINS).group, []).append(
                f"{made.name} = testing.broken:{attribute}"
            )
        elif inspect.isclass(made) and made.__module__ == broken.__name__:
            for registry in {r for r, kind in KINDS if issubclass(made, kind)}:
                groups.setdefault(registry.group, []).append(f"{attribute.lower()} = testing.broken:{attribute}")
    folder = tmp_path_factory.mktemp("site")
    about = folder / "broken-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(
        "\n".join(line for group, lines in groups.items() for line in (f"[{group}]", *lines))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    Registry.find.cache_clear()


def fails(promise: str, check: Callable[..., None], *given: object, **more: object) -> None:
    with pytest.raises(AssertionError, match=promise):
        check(*given, **more)


@pytest.mark.parametrize("name", ["colour", "excused"])
def test_a_sound_task(name: str) -> None:
    check_task(name)


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("misnamed", "its name is that of its entry point, not 'colours'"),
        ("unversioned", "version is a whole number from 1 on, not 0"),
        ("loose", "an unknown setting is refused"),
        ("endless", "the loss is finite"),
        ("detached", "the gradient reaches"),
        ("drawing", "draws no random numbers of its own"),
        ("forgetting", "keeps what it remembers in buffers"),
        ("turning", "keeps what it remembers in buffers"),
        ("waiting", "no step waits for the device, or `waits` says why: broken.py:[0-9]+ _local_scalar_dense"),
        ("hosted", "a step runs on a GPU: .*device"),
        ("sending", "a step runs on a GPU: it waits for a copy: broken.py:[0-9]+ _to_copy$"),
        ("listing", "a step runs on a GPU: it waits for a copy: broken.py:[0-9]+ _to_copy$"),
        ("coarse", "a step runs on a GPU: its loss is torch.bfloat16 in bf16$"),
        ("choosing", "no step waits for the device, or `waits` says why: broken.py:[0-9]+ index"),
        ("peeking", "reads labels if, and only if, it is `supervised`"),
    ],
)
def test_a_task_that_breaks_a_promise(name: str, promise: str) -> None:
    fails(promise, check_task, name)


def test_a_task_that_several_processes_train_otherwise() -> None:
    check_task("colour", processes=2)
    check_task("alone")
    fails("2 processes come to what one comes to", check_task, "alone", processes=2)


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("raw", "probabilities of diagnosis are finite, not negative, and come to 1"),
        ("slow", "no step waits for the device, or `waits` says why: broken.py"),
        ("stranded", "a step runs on a GPU: the loss lies on device cpu"),
        ("told", "does not look at the labels of held-out cases"),
        ("deaf", "learns from the labels of training cases"),
        ("passing", "resumed after an epoch and within one it is equal to the bit|keeps what it needs to predict"),
        ("means", "is a dermsearch.fit.base.Fit"),
    ],
)
def test_a_fit_that_breaks_a_promise(name: str, promise: str) -> None:
    fails(promise, check_fit, name, QUICK)


def test_a_fit_of_one_epoch_is_not_checked() -> None:
    fails("two epochs or more", check_fit, "finetune", {**QUICK, "epochs": 1})


def test_a_sound_evaluator() -> None:
    check_evaluator("means")


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("dice", "two judgements are equal to the bit"),
        ("seer", "does not look at the labels of held-out cases"),
        ("shares", "probabilities of diagnosis are finite, not negative, and come to 1"),
        ("turned", "tells classes apart that lie far apart"),
        ("finetune", "is a fit; call check_fit"),
    ],
)
def test_an_evaluator_that_breaks_a_promise(name: str, promise: str) -> None:
    fails(promise, check_evaluator, name)


def test_a_sound_sampler() -> None:
    check_sampler("drawn")


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("closed", "proposes what `self.known.open` lets through"),
        ("early", "ends only when every proposal"),
        ("dicing", "by the same seed it proposes the same"),
    ],
)
def test_a_sampler_that_breaks_a_promise(name: str, promise: str) -> None:
    fails(promise, check_sampler, name)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Of the pier."""
    (tmp_path / "images").mkdir()
    for n in range(4):
        (tmp_path / "images" / f"P{n}.jpg").write_bytes(encode(picture(n)))
    rows = [f"P{n},{'mole' if n % 2 else 'melanoma'},{30 + n}" for n in range(4)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,diagnosis,age", *rows]))
    return tmp_path


def test_a_sound_source(release: Path) -> None:
    check_source("pier", release)


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("looking", r"opens no image, but images/P\d.jpg"),
        ("absent", "P0: 'images/none.jpg' is a file of the release"),
        ("unsafe", "an id may become a file's name"),
        ("words", "'mole' is a class of diagnosis"),
        ("ages", "age is a number, not 'old'"),
        ("allowed", "what is denied is no column: age"),
        ("unlicensed", "says its title and its licence"),
    ],
)
def test_a_source_that_breaks_a_promise(name: str, promise: str, release: Path) -> None:
    fails(promise, check_source, name, release)


def test_a_sound_domain() -> None:
    check_domain("squares")


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("stream", "case i is the same in any number of cases"),
        ("floats", r"an image is uint8 \(40, 40, 3\), not float64"),
        ("nobodys", "says whose it is"),
        ("always", "draws no image where the size is None"),
        ("no_class", "'c', which papers report, is a class of kind"),
        ("coloured", "an image of a grey modality, as photo, has three equal channels"),
        ("nowhere", "what is grey is one of its modalities"),
    ],
)
def test_a_domain_that_breaks_a_promise(name: str, promise: str) -> None:
    fails(promise, check_domain, name)


def test_a_sound_store(tmp_path: Path) -> None:
    for where in (tmp_path / "path", f"file://{tmp_path}/uri"):
        check_store(where)
    left = [p for p in tmp_path.rglob("*") if "check-" in p.name]
    assert not left, "what the check wrote is removed"


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (broken.Cut, "a file holds what was written last"),
        (broken.First, "a file holds what was written last"),
        (broken.Keeping, "a file that was removed is gone"),
        (broken.Trusting, "whose encoders.safetensors is damaged is none"),
    ],
)
def test_a_store_that_breaks_a_promise(kind: type[broken.StageStore], promise: str, tmp_path: Path) -> None:
    fails(promise, check_store, kind(str(tmp_path / "store")))
