"""FusionM4Net: a sum, three branches, weights that are searched on cases kept aside; and SVMs behind them."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from fit import pairs
from pretext.tiny import CPU, Kept
from safetensors.torch import load, save

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.fit.base import predictor
from dermsearch.fit.fusion_m4net import BRANCHES, ThreeBranches, fused, mean_worth, searched, triples
from dermsearch.fit.fusion_m4net_svm import MIXES, crossed, mixed, told
from dermsearch.fit.system import Sight
from dermsearch.models.artifact import PREDICTOR, Part
from dermsearch.models.encoders import Encoders
from dermsearch.training.fits import predict_fit, train_fit


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    torch.set_num_threads(1)
    return pairs.make_store(tmp_path_factory.mktemp("data") / "store")


def told_by(logits: list[list[float]], weights: list[float]) -> np.ndarray:
    """Of one case and view."""
    given = torch.tensor(logits, dtype=torch.float64)[:, None, None]
    return fused(given, torch.tensor(weights), {"x": (1,) * given.shape[-1]}).numpy()[0]


def test_logits_are_weighed_and_not_probabilities():
    z = [[2, 0, 0], [0, 3, 0], [1, 1, 0]]
    np.testing.assert_allclose(told_by(z, [0.5, 0.2, 0.3]), [0.514707, 0.345019, 0.140274], atol=1e-5)
    np.testing.assert_allclose(told_by([[1, 0, 0], [0, 6, 0]], [0.7, 0.3]), [0.222185, 0.667481, 0.110334], atol=1e-5)


def test_views_are_averaged_behind_the_softmax():
    views = torch.tensor([[2.0, 0, 0], [0, 0, 4]], dtype=torch.float64)[None, None]
    found = fused(views, torch.ones(1), {"x": (1, 1, 1)})[0]
    np.testing.assert_allclose(found, [0.402327, 0.062088, 0.535585], atol=1e-5)


ORACLE = {
    "d": [[2, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 1]],
    "c": [[0, 1, 0], [0, 1, 0], [0, 0, 3], [0, 2, 0]],
    "f": [[1, 0, 0], [1.5, 0, 0], [0, 0, 1], [0, 0, 2]],
}
TRUTH = torch.tensor([0, 1, 2, 2])


def test_the_search_finds_the_first_of_the_best_weights():
    logits = torch.tensor([ORACLE[b] for b in BRANCHES], dtype=torch.float64)[:, :, None]
    truth, counts = {"x": TRUTH}, {"x": (1, 1, 2)}

    def worth(weights):
        return mean_worth(
            {"x": fused(logits, torch.tensor(weights, dtype=torch.float64), counts).numpy()}, {"x": TRUTH.numpy()},
            "accuracy",
        )  # fmt: skip

    assert [worth(w) for w in ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1 / 3] * 3)] == [0.75, 0.5, 0.75, 1.0]
    assert len(triples()) == 171 and {round(sum(t), 9) for t in triples()} == {1.0}
    best = [t for t in triples() if worth(t) == 1]
    assert len(best) == 30 and best[0] == searched({"x": logits}, truth, counts, "accuracy") == (0.15, 0.40, 0.45)


def test_unknown_labels_do_not_count():
    p = {"x": np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]), "y": np.full((3, 2), 0.5)}
    assert mean_worth(p, {"x": np.array([0, 0, -1]), "y": np.full(3, -1)}, "accuracy") == 0.5
    assert mean_worth(p, {"x": np.array([0, 1, -1]), "y": np.full(3, -1)}, "auc") == 1.0


def test_parameters_of_a_branch():
    with torch.device("meta"):
        made = ThreeBranches(pairs.RESNET50)
    assert [sum(p.numel() for p in b.parameters()) for b in made.branches.values()] == [1_116_032] * 3
    assert [sum(p.numel() for p in h.parameters()) for h in made.heads.values()] == [3_096] * 3


def test_the_third_branch_sees_the_sum():
    torch.manual_seed(0)
    made, g = ThreeBranches(pairs.TINY).eval(), torch.Generator().manual_seed(1)
    d, c = torch.rand(2, 4, 96, generator=g)

    def f(x, y):
        sights = (Sight(x, [], x, torch.ones(4)) for x in (x, y))
        return made(*sights, torch.empty(4, 0)).groups["f"][0]

    torch.testing.assert_close(f(d, c), f(d + 1, c - 1), atol=1e-5, rtol=0)
    assert (f(d, c) - f(d, c + 1)).abs().max() > 1e-4


def test_every_branch_has_a_loss_of_its_own(store):
    module = pairs.system("fusion_m4net", store)
    losses = module.loss(pairs.batches(module, store, np.arange(16)))
    sum(loss.value for loss in losses.values()).backward()
    for branch in BRANCHES:
        assert all(p.grad.any() for p in module.network.heads[branch].parameters())
    parts = losses["derm"].parts
    value = sum(loss.value for loss in losses.values())
    torch.testing.assert_close(value, 0.33 * sum(parts[b] for b in BRANCHES))


def test_six_views_are_turned_and_predicted_alike(store):
    module = pairs.system("fusion_m4net", store).eval()
    given = pairs.batches(module, store, np.arange(3))
    assert module.shown(given)["d/diagnosis"].shape == (3, 6, 5)
    assert pairs.system("fusion_m4net", store, recipe="common").shown(given)["d/diagnosis"].shape == (3, 1, 5)
    assert pairs.system("fusion_m4net", store, views=False).shown(given)["d/diagnosis"].shape == (3, 1, 5)
    by_hand = module.look(given, {m: torch.rot90(b.whole(), 1, (2, 3)) for m, b in given.items()})
    expected = module.network(*by_hand, torch.empty(3, 0)).groups["c"][0].double()
    torch.testing.assert_close(module.shown(given)["c/diagnosis"][:, 4], expected)


def trained(name: str, store: CaseStore, **config: Any) -> Part:
    made = Encoders.random("test_resnet", ("derm", "clinic"), "separate", 3)
    where = Kept(), lambda row: None, CPU, "fp32", Look(pairs.SIDE)
    given = {"epochs": 2, "batch": 16, "lr": 1e-3, "aside": 0.4, **config}
    return train_fit(name, given, 7, {}, made, store, np.arange(pairs.CASES), *where).parts[PREDICTOR]


def test_weights_are_searched_on_cases_kept_aside(store):
    part = trained("fusion_m4net", store)
    weights = tuple(part.state["weights"].tolist())
    assert weights in triples()
    assert trained("fusion_m4net", store, search="none").state["weights"].tolist() == [1 / 3] * 3
    assert trained("fusion_m4net", store, aside=0.0).state["weights"].tolist() == [1 / 3] * 3
    other = Part(part.config, {**part.state, "weights": torch.tensor([1.0, 0, 0], dtype=torch.float64)})
    rows = np.arange(32, 40)
    one, two = (predict_fit(p, store, rows, Look(pairs.SIDE), CPU, "fp32") for p in (part, other))
    assert any(np.abs(one[label] - two[label]).max() > 1e-3 for label in one)


P1 = {"x": np.array([[0.6, 0.4], [0.3, 0.7], [0.55, 0.45], [0.2, 0.8]])}
P2 = {"x": np.array([[0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.7, 0.3]])}


def test_the_mix_of_both_stages():
    truth = {"x": np.array([0, 1, 1, 1])}
    worth = {w: mean_worth({"x": w * P1["x"] + (1 - w) * P2["x"]}, truth, "accuracy") for w in (1, 0.5, 0)}
    assert worth == {1: 0.75, 0.5: 0.75, 0: 0.5}
    best = [
        i for i, w in enumerate(MIXES) if mean_worth({"x": w * P1["x"] + (1 - w) * P2["x"]}, truth, "accuracy") == 1
    ]
    assert (best[0], best[-1]) == (75, 87) and mixed(P1, P2, truth) == pytest.approx(75 / 99)


def test_svms_answer_for_cases_that_they_were_not_fitted_to():
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 2
    x = rng.normal(size=(60, 3)) + truth[:, None] * 2
    otherwise = np.full((60, 2), 0.5)
    whose = np.arange(60)
    found = crossed(x, truth, otherwise, 5, whose)
    assert np.allclose(found.sum(1), 1) and (found.argmax(1) == truth).mean() > 0.85
    exchanged = truth.copy()
    exchanged[::5] = 1 - truth[::5]  # the first fold's own classes say nothing of what it is told
    np.testing.assert_array_equal(crossed(x, exchanged, otherwise, 5, whose)[::5], found[::5])


def test_a_patients_cases_answer_for_none_of_his_own():
    """What is true of a patient says nothing of what any of his cases is told, and would if he were cut apart."""
    rng, whose = np.random.default_rng(0), np.repeat(np.arange(30), 2)
    truth = whose % 2
    x, otherwise = rng.normal(size=(60, 3)) + truth[:, None] * 2, np.full((60, 2), 0.5)
    first = whose % 5 == 0
    exchanged = np.where(first, 1 - truth, truth)

    def same(who):
        return np.array_equal(*(crossed(x, true, otherwise, 5, who)[first] for true in (truth, exchanged)))

    assert same(whose) and not same(np.arange(60))


def test_where_there_is_nothing_to_fit_the_first_stage_answers():
    x, otherwise = np.zeros((4, 2)), np.array([[0.3, 0.7]] * 4)
    for truth in ([0, 0, 0, 0], [-1, -1, -1, -1], [0, 0, 0, 1]):
        np.testing.assert_array_equal(told(x, np.array(truth), x, otherwise), otherwise)


def test_the_second_stage_is_kept_whole(store):
    part = trained("fusion_m4net_svm", store)
    module = predictor(part)
    assert module.inputs.shape[1] == 24 + sum(module.columns.values()) and 0 < len(module.inputs) <= 13
    again = Part(json.loads(json.dumps(part.config)), load(save(part.state)))
    rows = np.arange(32, 40)
    one, two = (predict_fit(p, store, rows, Look(pairs.SIDE), CPU, "fp32") for p in (part, again))
    first = predict_fit(
        Part(part.config, {**part.state, "mix": torch.ones((), dtype=torch.float64)}), store, rows, Look(pairs.SIDE),
        CPU, "fp32",
    )  # fmt: skip
    alone = predict_fit(
        Part(part.config, {**part.state, "mix": torch.zeros((), dtype=torch.float64)}), store, rows, Look(pairs.SIDE),
        CPU, "fp32",
    )  # fmt: skip
    for label, p in one.items():
        assert np.array_equal(p, two[label]) and np.allclose(p.sum(1), 1)
        w = float(part.state["mix"])
        np.testing.assert_allclose(p, w * first[label] + (1 - w) * alone[label], atol=1e-9)
    assert any(np.abs(first[label] - alone[label]).max() > 0.01 for label in one)
