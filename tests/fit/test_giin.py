"""GIIN: an embedding for each label and image, messages within and between images, and dermoscopy first."""

import numpy as np
import pytest
import torch
from fit import pairs
from scipy.stats.contingency import association

from dermsearch.fit.giin import GraphNetwork, adjacency, cramers_v, dependence, normalised

EDGES = torch.tensor([[0, 0.5], [0.25, 0]], dtype=torch.float64)
H = torch.tensor([[1, 0], [0, 1], [2, 2], [-1, 1]], dtype=torch.float64)
W = torch.tensor([[1, -1], [0.5, 1]], dtype=torch.float64)
STEPS = {
    ("c2d", "row"): [[1.7, 0], [1 / 9, 11 / 9], [11 / 6, 2 / 3], [0.2, 1.6]],
    ("c2d", "symmetric"): [[2.055, 0], [0.029, 1.532], [1.817, 0.730], [0.148, 1.6]],
    ("both", "row"): [[1.7, 0], [1 / 9, 11 / 9], [1.5, 0], [1 / 3, 4 / 3]],
}


@pytest.mark.parametrize(("how", "expected"), STEPS.items())
def test_one_step_of_the_graph(how, expected):
    direction, norm = how
    found = torch.relu(normalised(adjacency(EDGES, direction), norm) @ H @ W)
    np.testing.assert_allclose(found, expected, atol=1e-5 if norm == "row" else 5e-4)  # digits that are known


def test_rows_are_who_hears():
    found = normalised(adjacency(EDGES, "c2d"), "row")
    expected = [[0.4, 0.2, 0.4, 0], [1 / 9, 4 / 9, 0, 4 / 9], [0, 0, 2 / 3, 1 / 3], [0, 0, 0.2, 0.8]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_parameters_at_half_a_thousand_channels():
    with torch.device("meta"):
        made = GraphNetwork(pairs.RESNET18)
    assert sum(p.numel() for p in made.parameters()) == 1_104_216
    assert sum(p.numel() for p in made.layers.parameters()) == 33_024


def network(**options) -> GraphNetwork:
    torch.manual_seed(0)
    made = GraphNetwork(pairs.TINY, **options).eval()
    made.edges.copy_(0.3 * (1 - torch.eye(8)))
    return made


D, C = pairs.sight(pairs.TINY, 0), pairs.sight(pairs.TINY, 1)
TABLE = torch.empty(4, 0)


@pytest.mark.parametrize("image", ["d", "c"])
def test_every_label_has_an_embedding_of_its_own_in_every_image(image):
    made = network()
    before = made(D, C, TABLE).groups[image]
    for label in range(8):
        with torch.no_grad():
            made.embeddings[image].queries.weight[label] += 1
        after = made(D, C, TABLE).groups[image]
        assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [k == label for k in range(8)]
        before = after


def changed(direction: str, which: str) -> tuple[bool, bool]:
    """Do dermoscopic and clinical nodes change when one image does?"""
    made, other = network(direction=direction), pairs.sight(pairs.TINY, 2)
    before = made(D, C, TABLE).extras["nodes"]
    after = made(*((other, C) if which == "d" else (D, other)), TABLE).extras["nodes"]
    return tuple(not torch.equal(a, b) for a, b in zip(before.chunk(2, 1), after.chunk(2, 1), strict=True))


@pytest.mark.parametrize(
    ("direction", "derm", "clinic"),
    [("c2d", (True, False), (True, True)), ("d2c", (True, True), (False, True)), ("both", (True,) * 2, (True,) * 2)],
)
def test_messages_go_one_way_between_the_images(direction, derm, clinic):
    assert (changed(direction, "d"), changed(direction, "c")) == (derm, clinic)


def test_labels_of_an_image_hear_one_another():
    made = network()
    before = made(D, C, TABLE).groups["g"]
    with torch.no_grad():
        made.embeddings["d"].queries.weight[0] += 1
    assert all(not torch.equal(a, b) for a, b in zip(before, made(D, C, TABLE).groups["g"], strict=True))
    made.edges.zero_()
    alone = made(D, C, TABLE).groups["g"]
    with torch.no_grad():
        made.embeddings["d"].queries.weight[0] += 1
    after = made(D, C, TABLE).groups["g"]
    assert [not torch.equal(a, b) for a, b in zip(alone, after, strict=True)] == [True] + [False] * 7


def test_a_layer_may_add_its_input_back():
    assert not torch.equal(network(residual=True)(D, C, TABLE).groups["g"][0], network()(D, C, TABLE).groups["g"][0])


def test_a_map_of_another_stride(tmp_path):
    store = pairs.make_store(tmp_path / "store")
    module = pairs.system("giin", store, stride=16)
    assert module.network.level == 3 and module.network.embeddings["d"].queries.in_channels == 192


def test_dependence_is_cramers_v():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 200)
    b = np.where(rng.random(200) < 0.5, a % 2, rng.integers(0, 2, 200))
    table = np.zeros((3, 2), int)
    np.add.at(table, (a, b), 1)
    assert cramers_v(a, b) == pytest.approx(association(table, method="cramer"), abs=1e-9)
    known = b.copy()
    known[:50] = -1
    assert cramers_v(a, known) == pytest.approx(cramers_v(a[50:], b[50:]))
    assert cramers_v(a, np.zeros(200, int)) == 0 and cramers_v(a, a) == pytest.approx(1)
    found = dependence(np.stack([a, b, a], 1))
    assert np.array_equal(found, found.T) and not found.diagonal().any() and found[0, 2] == pytest.approx(1)


def test_dependence_of_two_labels_of_derm7pt():
    """Of 413 training cases 74 have a veil, 96 regression, 10 both: 0.108."""
    veil, regression = np.repeat([1, 1, 0, 0], [10, 64, 86, 253]), np.repeat([1, 0, 1, 0], [10, 64, 86, 253])
    assert (veil.sum(), regression.sum(), len(veil)) == (74, 96, 413)
    assert cramers_v(veil, regression) == pytest.approx(0.108, abs=5e-4)


def test_the_graph_is_of_training_labels(tmp_path):
    store = pairs.make_store(tmp_path / "store")
    module, none = pairs.system("giin", store), pairs.system("giin", store, graph="identity")

    class Whole:
        def labels(self, name):
            return store.label(name)[: pairs.CASES]

    for each in (module, none):
        each.begin(Whole())
    truth = np.stack([store.label(label)[: pairs.CASES] for label in store.classes], 1)
    np.testing.assert_allclose(module.network.edges, dependence(truth))
    assert not none.network.edges.any()
