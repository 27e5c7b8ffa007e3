"""The drawn data: reproducible, with derm7pt's class frequencies, learnable from structure and only from it."""

from dataclasses import dataclass

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch.nn.functional import cross_entropy

from dermsearch.data.case import METADATA, Case
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import draw_labels, synthetic, walk_patients
from dermsearch.errors import UserError
from dermsearch.training.precision import autocast, resolve

CAST = autocast(torch.device("cpu"), resolve("auto", 0))

# Class counts among derm7pt's 1011 cases, in the order of SEVEN_POINT.
DERM7PT = {
    "diagnosis": (42, 575, 252, 97, 45),
    "pigment_network": (400, 381, 230),
    "blue_whitish_veil": (816, 195),
    "vascular_structures": (823, 117, 71),
    "pigmentation": (588, 118, 305),
    "streaks": (653, 107, 251),
    "dots_and_globules": (229, 334, 448),
    "regression_structures": (758, 253),
}


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(synthetic(400, 64, seed=0))


def same(a: Case, b: Case) -> bool:
    images = all((a.images[name] == b.images[name]).all() for name in ("derm", "clinic"))
    rest = [(c.case, c.lesion, c.patient, c.labels, c.metadata) for c in (a, b)]
    assert a.mask is not None and b.mask is not None
    return bool(images and (a.mask == b.mask).all() and rest[0] == rest[1])


def test_the_same_seed_draws_the_same_cases_however_many() -> None:
    few, many = list(synthetic(6, 48, seed=3)), list(synthetic(12, 48, seed=3))
    assert all(same(a, b) for a, b in zip(few, many, strict=False))


def test_another_seed_draws_other_cases() -> None:
    pairs = zip(synthetic(6, 48, seed=3), synthetic(6, 48, seed=4), strict=True)
    assert not any((a.images["derm"] == b.images["derm"]).all() for a, b in pairs)


@pytest.mark.parametrize("size", [32, 100, 512])
def test_sizes(size: int) -> None:
    case = next(synthetic(1, size, seed=0))
    assert set(case.images) == {"derm", "clinic"}
    for image in case.images.values():
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert case.mask is not None and case.mask.shape == (size, size) and set(np.unique(case.mask)) == {0, 255}
    assert list(case.labels) == list(SEVEN_POINT)
    assert set(case.metadata) == set(METADATA)


@pytest.mark.parametrize(("count", "size", "seed"), [(0, 64, 0), (1, 31, 0), (1, 513, 0), (1, 64, -1)])
def test_bad_arguments_are_refused_at_once(count: int, size: int, seed: int) -> None:
    with pytest.raises(UserError):
        synthetic(count, size, seed)


def test_class_frequencies_are_those_of_derm7pt() -> None:
    draws = [draw_labels(7, index) for index in range(20_000)]
    for name, counts in DERM7PT.items():
        seen = np.bincount([labels[name] for labels in draws], minlength=len(counts)) / len(draws)
        assert np.abs(seen - np.array(counts) / 1011).max() < 0.02, name


def test_patients_have_several_lesions() -> None:
    owners = [patient for _, patient, _ in walk_patients(5000, seed=0)]
    assert owners == sorted(owners) and set(owners) == set(range(owners[-1] + 1))
    assert 1.2 < len(owners) / len(set(owners)) < 1.4


def test_a_patients_lesions_agree_on_the_patient() -> None:
    cases = list(synthetic(1600, None, seed=0))
    for name in ("age", "sex", "skin_type"):
        known: dict[str, set[object]] = {}
        for case in cases:
            if case.metadata[name] is not None:
                known.setdefault(case.patient, set()).add(case.metadata[name])
        assert all(len(values) == 1 for values in known.values()), name


def test_metadata_goes_with_the_diagnosis_and_is_partly_missing() -> None:
    cases = list(synthetic(1600, None, seed=0))

    def of(name: str, diagnosis: str) -> list[object]:
        number = SEVEN_POINT["diagnosis"].index(diagnosis)
        values = (case.metadata[name] for case in cases if case.labels["diagnosis"] == number)
        return [value for value in values if value is not None]

    assert np.mean(of("age", "MEL")) > np.mean(of("age", "NEV")) + 8  # type: ignore[arg-type]
    assert of("site", "BCC").count("head neck") / len(of("site", "BCC")) > 0.3
    assert of("elevation", "NEV").count("flat") / len(of("elevation", "NEV")) > 0.45
    for name in METADATA:
        missing = np.mean([case.metadata[name] is None for case in cases])
        assert 0.005 < missing < 0.25, name


def test_the_mask_covers_the_lesion(cases: list[Case]) -> None:
    for case in cases[:300]:
        assert case.mask is not None
        inside = case.mask > 0
        assert 0.03 < inside.mean() < 0.8
        assert inside[16:48, 16:48].mean() > inside.mean()  # in the middle of the picture
    # The lesion is darker than the skin around it in nearly every picture.
    contrast = [c.images["derm"][20:44, 20:44].mean() for c in cases[:300]]
    around = [np.median(c.images["derm"][c.mask == 0]) for c in cases[:300] if c.mask is not None]
    bright = np.array(around) > 60  # not those whose surroundings are the dermoscope's dark frame
    assert (np.array(contrast) < np.array(around))[bright].mean() > 0.9


def test_both_images_show_the_same_lesion(cases: list[Case]) -> None:
    """How strong the texture is and how red the lesion is go together in a case's two images, and only there."""

    def look(image: np.ndarray, radius: float) -> tuple[float, float]:
        axis = np.arange(64) - 31.5
        middle = np.log(image[np.hypot(axis[:, None], axis[None, :]) < radius * 64].astype(float) + 8)
        return float(middle.mean(1).std()), float((middle[:, 0] - middle[:, 1]).mean())

    derm = np.array([look(case.images["derm"], 0.22) for case in cases])
    clinic = np.array([look(case.images["clinic"], 0.14) for case in cases])
    for column in range(2):
        assert np.corrcoef(derm[:, column], clinic[:, column])[0, 1] > 0.5
        assert abs(np.corrcoef(derm[:, column], np.roll(clinic[:, column], 7))[0, 1]) < 0.25


@dataclass
class Split:
    """Cases as a probe sees them, apart by patient."""

    images: np.ndarray
    labels: dict[str, np.ndarray]
    patients: np.ndarray  # numbered
    train: np.ndarray
    test: np.ndarray


def above_chance(name: str, truth: np.ndarray, guesses: np.ndarray) -> float:
    """Balanced accuracy less that of guessing."""
    return round(float(balanced_accuracy_score(truth, guesses)) - 1 / len(SEVEN_POINT[name]), 3)


@pytest.fixture(scope="module")
def split() -> Split:
    cases = list(synthetic(1600, 64, seed=0))
    patients = np.unique([case.patient for case in cases], return_inverse=True)[1]
    held_out = patients >= 0.72 * patients.max()
    return Split(
        np.stack([case.images["derm"] for case in cases]),
        {name: np.array([case.labels[name] for case in cases]) for name in SEVEN_POINT},
        patients,
        np.flatnonzero(~held_out),
        np.flatnonzero(held_out),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@threadpool_limits.wrap(limits=1)  # the fits are small: a second thread costs more than it gives
def test_raw_pixels_do_not_give_the_labels_away(split: Split) -> None:
    pixels = split.images.reshape(len(split.images), -1).astype(np.float32)
    guesses = {name: np.zeros(len(pixels), int) for name in SEVEN_POINT}
    half = split.patients < np.median(split.patients)
    for part in (half, ~half):  # each half is guessed by a probe of the other, so that every case counts
        rows = StandardScaler().fit(pixels[part]).transform(pixels)
        # With a ridge penalty the solution lies in the span of the training rows, where it is cheaper to fit.
        size, basis = np.linalg.eigh(rows[part] @ rows[part].T)
        rows = rows @ (rows[part].T @ (basis / np.sqrt(np.maximum(size, 1))))
        for name, truth in split.labels.items():
            probe = LogisticRegression(class_weight="balanced", C=1e-3, max_iter=60)
            guesses[name][~part] = probe.fit(rows[part], truth[part]).predict(rows[~part])
    gains = {name: above_chance(name, split.labels[name], guess) for name, guess in guesses.items()}
    print("linear probe above chance:", gains)
    assert max(gains.values()) < 0.1, gains
    assert np.mean(list(gains.values())) < 0.07, gains


@pytest.mark.slow
@pytest.mark.long
def test_a_network_learns_every_label(split: Split) -> None:
    net, images = train(split, epochs=4, batch=32)
    with torch.inference_mode():
        scores = torch.cat([forward(net, part) for part in images[split.test].split(64)])
    parts = scores.split([len(classes) for classes in SEVEN_POINT.values()], 1)
    gains = {
        name: above_chance(name, split.labels[name][split.test], part.argmax(1).numpy())
        for name, part in zip(SEVEN_POINT, parts, strict=True)
    }
    print("ResNet-10-t above chance:", gains)
    assert min(gains.values()) > 0.15, gains


def forward(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with CAST():
        return net(images.contiguous(memory_format=torch.channels_last)).float()


def train(split: Split, epochs: int, batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A ResNet-10-t trained from scratch with a head per label, and the images as it takes them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("resnet10t", num_classes=sum(map(len, SEVEN_POINT.values())))
        net = net.to(memory_format=torch.channels_last)
        images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
        images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)
        steps = len(split.train) // batch
        optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=epochs * steps)
        net.train()
        for _ in range(epochs):
            order = torch.from_numpy(split.train)[torch.randperm(len(split.train))]
            for rows in order[: steps * batch].split(batch):
                views = [turn(image, int(torch.randint(8, ()))) for image in images[rows]]
                loss = balanced_loss(forward(net, torch.stack(views)), split, rows)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return net.eval(), images


def turn(image: torch.Tensor, which: int) -> torch.Tensor:
    """One of a square's eight symmetries."""
    return torch.rot90(image.flip(2) if which > 3 else image, which % 4, (1, 2))


def balanced_loss(scores: torch.Tensor, split: Split, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the labels, every class with the same total weight."""
    loss, start = torch.zeros(()), 0
    for name, classes in SEVEN_POINT.items():
        counts = np.bincount(split.labels[name][split.train], minlength=len(classes))
        weights = torch.from_numpy(len(split.train) / (len(classes) * counts)).float()
        truth = torch.from_numpy(split.labels[name])[rows]
        loss = loss + cross_entropy(scores[:, start : start + len(classes)], truth, weights)
        start += len(classes)
    return loss / len(SEVEN_POINT)
