"""Discrepancies, regulariser, gate, correction and entropy against numbers that were worked out elsewhere."""

import pytest
import timm
import torch
from torch import tensor

from dermsearch.fit.our_alignment import gated
from dermsearch.models import alignment
from dermsearch.models.alignment import FIXED, Correction, Doubled, Gate, entropy, kernel, mmd, regulariser, weigh

X = tensor([[0, 0], [1, 0], [0, 2]], dtype=torch.float64)
Y = tensor([[1, 1], [2, 0], [0, 1]], dtype=torch.float64)
MORE = torch.cat([Y, tensor([[3.0, 1.0]], dtype=torch.float64)])
P = tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
Q = tensor([[0.5, 0.5], [0.3, 0.7], [0.8, 0.2]], dtype=torch.float64)
near = pytest.approx


@pytest.mark.parametrize(
    ("source", "target", "estimator", "width", "value"),
    [
        (X, Y, "ring", None, -0.2065799964),
        (X, X, "ring", None, 0.0),
        (X, X[[1, 2, 0]], "ring", None, -3.0826024277),
        (X, X[[1, 0, 2]], "ring", None, -1.2517830192),
        (X, Y, "full", None, -0.6578944911),
        (X, X, "full", None, -2.0550682851),
        (P, Q, "ring", FIXED, -0.0661760135),
    ],
)
def test_discrepancies(source, target, estimator, width, value):
    assert mmd(source, target, estimator, width).item() == near(value, abs=1e-9)


def test_the_widths_follow_the_batch():
    rows = torch.cat([X, Y])
    apart = (rows[:, None] - rows[None]).square().sum(2)
    widths = [0.666667, 1.333333, 2.666667, 5.333333, 10.666667]
    torch.testing.assert_close(kernel(rows), sum(torch.exp(-apart / w) for w in widths), atol=1e-5, rtol=0)


def test_all_pairs_with_the_rows_themselves():
    similar = kernel(torch.cat([X, Y]))
    biased = similar[:3, :3].mean() + similar[3:, 3:].mean() - 2 * similar[:3, 3:].mean()
    assert biased.item() == near(1.3053348645, abs=1e-9)


@pytest.mark.parametrize(
    ("of_class", "part", "released", "right"),
    [
        (X, Y, -0.1032899982, -0.1032899982),
        (X, Y[:2], -0.8297302065, 0.4208268874),
        (X[:2], MORE, 0.3097986766, 0.4262391147),
        (X[:1], MORE, 1.6357461716, 2.2289569302),
        (X, MORE, -0.2692812679, -0.1029074650),
    ],
)
def test_the_regulariser_and_the_released_one(of_class, part, released, right):
    assert regulariser(of_class, part, "released").item() == near(released, abs=1e-9)
    assert regulariser(of_class, part, "full", "ring").item() == near(right, abs=1e-7)


def test_entropy():
    rows = tensor([[0.7, 0.2, 0.1], [1 / 3] * 3, [1, 0, 0]], dtype=torch.float64)
    assert [entropy(row[None]).item() for row in rows] == near([0.8018185525, 1.0986122887, 0])
    assert entropy(rows).item() == near(0.6334769471)


def test_an_entropy_of_what_cannot_be_has_a_gradient():
    logits = tensor([[1.0, 0.0, -torch.inf]], requires_grad=True)
    entropy(logits.softmax(1)).backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0


def test_a_gate_weighs_by_domain():
    first = {"source": tensor([[1, 0, 0, 0], [0, 1, 0, 0]]), "target": tensor([[0, 0, 1, 0], [0, 0, 0, 1]])}
    second = tensor([[1, 0], [0, 1], [1, 1], [1, -1]]).double()
    z, found = tensor([[1, -1, 0.5, 2]]).double(), {}
    for domain, weight in first.items():
        found[domain] = weigh(z, lambda x, w=weight: x @ w.double().T, lambda x: x @ second.T)[0].tolist()
    assert found["source"] == near([0.7310585786, 0.5, 0.7310585786, 0.7310585786])
    assert found["target"] == near([0.6224593312, 0.8807970780, 0.9241418200, 0.1824255238])


def test_a_new_gate_is_the_identity_and_domains_part():
    torch.manual_seed(0)
    gate, maps = Gate(8, 2), torch.rand(3, 8, 4, 4)
    assert torch.allclose(gate(maps), maps)
    torch.nn.init.normal_(gate.second.weight)
    one = gate(maps)
    gate.on_target = False
    assert not torch.allclose(gate(maps), one)
    gate.begin()
    two = gate(maps)
    gate.on_target = True
    assert torch.equal(gate(maps), two)


def test_a_correction():
    made = Correction(2, 2).double()
    state = {"0.weight": tensor([[1, -1], [0.5, 0.5]]), "0.bias": tensor([0.1, 0.1])}
    state |= {"2.weight": tensor([[1, 0], [2.0, -1]]), "2.bias": tensor([0.1, 0.1])}
    made.load_state_dict(state)
    assert made(tensor([[1.0, 2.0]]).double())[0].tolist() == near([1.1, 0.5])


@pytest.mark.parametrize(("p", "value"), [(0, 0), (0.1, 0.4621172), (0.5, 0.9866143), (1, 0.9999092)])
def test_the_ramp(p, value):
    assert alignment.ramp(p) == near(value, abs=1e-7)


def test_the_gradient_is_turned_round():
    x = torch.ones(2, requires_grad=True)
    alignment.reversed_gradient(3 * x, 0.5).sum().backward()
    assert x.grad.tolist() == [-1.5, -1.5]


def numbers(module):
    return sum(p.numel() for p in module.parameters())


def gates_of(network):
    return [m for m in network.modules() if hasattr(m, "fc1") and hasattr(m, "fc2") and hasattr(m, "gate")]


def test_parameters_of_dcan():
    assert numbers(Correction(2048, 128)) == 526_464
    assert (numbers(Correction(2, 2)), numbers(Correction(4, 4))) == (12, 40)
    with torch.device("meta"):
        network = timm.create_model("seresnet50", num_classes=0)
        own, plain = sum(map(numbers, gates_of(network))), numbers(network)
        gated(network, "seresnet50", 16)
        small = timm.create_model("seresnet18", num_classes=0)
    assert numbers(network) - plain == 1_258_416
    assert (own, sum(map(numbers, gates_of(small)))) == (2_530_992, 90_112)
    assert plain + 2048 * 1000 + 1000 == 28_088_024  # with timm's head
    doubled = [m for m in network.modules() if isinstance(m, Doubled)]
    second = sum(numbers(m.fc2) for m in network.modules() if hasattr(m, "fc2"))
    assert (len(doubled), second, sum(map(numbers, doubled)) + second) == (16, 1_272_576, 3_789_408)
