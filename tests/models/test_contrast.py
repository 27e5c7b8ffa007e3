"""NT-Xent: its known values, its definition written out, and one loss on any number of processes."""

import math

import pytest
import torch
from gloo import Group

from dermsearch import world
from dermsearch.models.contrast import nt_xent

E1, E2 = (1.0, 0.0), (0.0, 1.0)


def vectors(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def draw(n: int, d: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return a, b


def plainly(a: torch.Tensor, b: torch.Tensor, temperature: float) -> list[float]:
    """The loss of each anchor, term by term."""
    rows = [r / r.norm() for r in torch.cat([a, b])]
    found = []
    for i, anchor in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        terms = {j: math.exp(float((anchor @ rows[j]).detach()) / temperature) for j in others}
        partner = (i + len(a)) % len(rows)
        found.append(-math.log(terms[partner] / sum(terms.values())))
    return found


@pytest.mark.parametrize("pairs, expected", [(2, 1.098612), (48, 4.553877), (96, 5.252273)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_collapse_is_worth_the_log_of_the_others(pairs, expected, temperature):
    z = torch.ones(pairs, 3, dtype=torch.float64)
    assert nt_xent(z, z, temperature).item() == pytest.approx(expected, abs=1e-5)


D1, D2 = vectors(E1, E2), vectors((0.8, 0.6), E2)
C1, C2 = vectors((0.6, 0.8), E2), vectors(E1, (0.6, 0.8))


@pytest.mark.parametrize(
    "a, b, temperature, expected",
    [
        (vectors(E1, E2), vectors(E1, E2), 0.5, 0.239545),
        (vectors(E1, E2), vectors(E1, E2), 0.1, 9.0796e-05),
        (vectors(E1, E2), vectors((0.6, 0.8), E2), 0.5, 0.758885),
        (vectors(E1, E2), vectors((0.6, 0.8), E2), 0.1, 0.754376),
        (D1, D2, 0.5, 0.527587),
        (C1, C2, 0.5, 1.081312),
    ],
)
def test_known_values(a, b, temperature, expected):
    assert nt_xent(a, b, temperature).item() == pytest.approx(expected, abs=1e-6)
    assert nt_xent(3 * a, 0.1 * b, temperature).item() == pytest.approx(expected, abs=1e-6)  # lengths do not count
    assert nt_xent(b, a, temperature).item() == pytest.approx(expected, abs=1e-6)


def test_each_anchor_of_a_known_value():
    found = plainly(vectors(E1, E2), vectors((0.6, 0.8), E2), 0.5)
    assert found == pytest.approx([0.471495, 0.590924, 1.382198, 0.590924], abs=1e-6)


def test_sm3_is_made_of_it():
    """Intra-modal, and across the modalities in the three ways that its code knows."""
    cross = {(i, j): nt_xent(d, c, 0.5).item() for i, d in enumerate((D1, D2)) for j, c in enumerate((C1, C2))}
    assert (cross[0, 0] + cross[1, 1]) / 2 == pytest.approx(0.814799, abs=1e-6)
    assert (cross[0, 1] + cross[1, 0]) / 2 == pytest.approx(0.648711, abs=1e-6)
    assert sum(cross.values()) / 4 == pytest.approx(0.731755, abs=1e-6)
    whole = nt_xent(D1, D2, 0.5).item() + nt_xent(C1, C2, 0.5).item() + (cross[0, 0] + cross[1, 1]) / 2
    assert whole == pytest.approx(2.423698, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_definition(n, temperature):
    """An anchor's own similarity is in no sum, its partner's in it once."""
    a, b = draw(n)
    found = nt_xent(a, b, temperature).item()
    assert found == pytest.approx(sum(plainly(a, b, temperature)) / (2 * n), abs=1e-9)


def test_gradient():
    a, b = (z.requires_grad_() for z in draw(4))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.2), (a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_around_it_costs_no_digits(dtype):
    """At a small temperature the eight bits of a bfloat16 similarity are too few."""
    a, b = draw(64, 16, dtype=dtype)
    expected = nt_xent(a.double(), b.double(), 0.01).item()
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(a, b, 0.01)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_far_apart_at_a_small_temperature_is_finite():
    a = torch.tensor([E1, E2], requires_grad=True)
    value = nt_xent(a, -a, 1e-3)
    value.backward()
    assert value.item() == pytest.approx(1000, rel=1e-3) and a.grad.isfinite().all()


def share(temperature: float) -> dict[str, torch.Tensor]:
    """Value, gradient to this process's rows, and to a layer behind them as DDP would average it."""
    a, b = draw(8)
    rows = world.mine(8)
    weight = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3).requires_grad_()
    inputs = [z[rows].clone().requires_grad_() for z in (a, b)]
    value = nt_xent(*(z @ weight for z in inputs), temperature)
    value.backward()
    return {
        "value": value.detach(),
        "mean": world.reduce_sum(value) / world.size(),
        "layer": world.reduce_sum(weight.grad) / world.size(),
        "rows": torch.stack([world.gather(z.grad) for z in inputs]) / world.size(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_one_loss_and_one_gradient_on_any_number_of_processes(temperature, two: Group, four: Group):
    one = share(temperature)
    assert one["layer"].norm() > 1e-3 and one["rows"].norm() > 1e-3
    for every in (two(share, temperature), four(share, temperature)):
        for part in every:
            for what in ("mean", "layer", "rows"):
                torch.testing.assert_close(part[what], one[what].detach(), rtol=1e-10, atol=1e-12)
        assert len({float(part["value"]) for part in every}) > 1  # each has the loss of its own rows


def gathered() -> tuple[torch.Tensor, torch.Tensor]:
    """All rows, and the gradient when each process weighs them its own way."""
    x = (torch.arange(6.0).reshape(2, 3) + 10 * world.rank()).requires_grad_()
    everything = world.gather_with_gradient(x)
    (everything.sum(1) @ torch.arange(1.0, len(everything) + 1) * (world.rank() + 1)).backward()
    return everything.detach(), x.grad


def test_gather_keeps_rank_order_and_sums_what_all_send_back(two: Group):
    for rank, (rows, gradient) in enumerate(two(gathered)):
        torch.testing.assert_close(
            rows, torch.arange(6.0).reshape(2, 3).repeat(2, 1) + torch.tensor([[0.0], [0], [10], [10]])
        )
        weights = torch.tensor([1.0, 2.0]) + 2 * rank
        torch.testing.assert_close(gradient, (3 * weights)[:, None].expand(2, 3))  # 1 + 2 of the two processes
    rows, gradient = gathered()
    torch.testing.assert_close(rows, torch.arange(6.0).reshape(2, 3))
    torch.testing.assert_close(gradient, torch.tensor([1.0, 2.0])[:, None].expand(2, 3))
