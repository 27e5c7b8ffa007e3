"""Adaptations: the whole loss against numbers, labels of the target that are never read, statistics, collapse."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fit import small
from gloo import Group
from pretext.tiny import CPU
from torch import tensor
from torch.nn import functional as F

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.fit.adaptation import told_of
from dermsearch.fit.base import FITS, predictor
from dermsearch.fit.dcan import DCAN
from dermsearch.fit.our_alignment import OurAlignment
from dermsearch.metrics import predicted_shares
from dermsearch.models.artifact import HEADS, PREDICTOR
from dermsearch.models.encoders import Encoders
from dermsearch.models.relations import LabelHeads
from dermsearch.pretext.base import Material, Setting, Target
from dermsearch.training.fits import predicted_by, train_fit

pytestmark = pytest.mark.slow

near = pytest.approx
each = pytest.mark.parametrize("name", small.ADAPTATIONS)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    torch.set_num_threads(1)
    return small.make_store(tmp_path_factory.mktemp("data") / "store")


class Flat(torch.nn.Module):
    """Encoders of two features."""

    dim, modalities = 2, ("derm",)


def by_hand(fit, **config):
    """A fit over two features and classes, with the weights of the worked example."""
    settings = fit.Config(gates=False, hidden=2, ramp=False, alpha=1.5, balanced=False, **config)
    setting = Setting(4, 32, 2, 4, 0, steps=2, classes={"diagnosis": 2}, modalities=("derm",))
    made = fit(Flat(), settings, replace(setting, counts={"diagnosis": (2, 2)})).double()
    state = {
        "heads.weights.0": tensor([[1, -1], [-1, 1]]), "heads.biases.0": tensor([0, 0.1]),
        "correction.0.weight": tensor([[0.2, 0], [0, -0.1]]), "correction.2.weight": tensor([[0.5, 0], [0.3, 0.2]]),
        "corrections.0.0.weight": tensor([[0.1, 0], [0, 0.1]]), "corrections.0.2.weight": tensor([[0.2, 0], [0, -0.2]]),
    }  # fmt: skip
    state |= {f"{c}.{i}.bias": tensor([0.1, 0.1]) for c in ("correction", "corrections.0") for i in (0, 2)}
    made.load_state_dict({name: w.double().mul(10).round().div(10) for name, w in state.items()})
    return made


SOURCE = tensor([[2, 0], [0, 2], [1.5, 0.5], [0.2, 1.8]], dtype=torch.float64)
OTHER = tensor([[1, 1], [0.5, 2], [2, 1], [1, 0.2]], dtype=torch.float64)
TRUTH = tensor([0, 1, 0, 1])[:, None]
KNOWN = SimpleNamespace(labels=lambda name, units: TRUTH[units, 0].numpy())
BATCH = SimpleNamespace(seed=0, step=1, units=np.arange(4), pool=KNOWN, on_device=torch.from_numpy)


@pytest.mark.parametrize(
    ("estimator", "features", "classes"),
    [("ring", -0.7105487711, -0.1210123321), ("full", -0.3391583108, -0.1347605963)],
)
def test_the_whole_loss(estimator, features, classes):
    made = by_hand(OurAlignment, estimator=estimator)
    assert made.correction(OTHER)[:2].tolist() == [near([1.25, 1.19]), near([0.7, 2.16])]
    value, parts = made.align(SOURCE, OTHER, TRUTH, BATCH)
    assert parts["mmd"].item() == near(features, abs=1e-8) and parts["mmd_classes"].item() == near(classes, abs=1e-6)
    entropy = value - 1.5 * (parts["mmd"] + parts["mmd_classes"])
    assert entropy.item() == near(0.1 * 0.4174678950, abs=1e-8)
    ce = F.cross_entropy(made.heads(SOURCE)[0], TRUTH[:, 0])
    assert ce.item() == near(0.0530206579, abs=1e-8)
    if estimator == "ring":
        assert (ce + value).item() == near(-1.1525738477, abs=1e-8)


def test_the_released_regulariser_sets_each_class_against_the_first_rows(monkeypatch):
    made = by_hand(DCAN, estimator="ring", regulariser="released")
    drawn = tensor([0.0, 0.9, 0.0, 0.0])[:, None].numpy()  # three of four
    monkeypatch.setattr("dermsearch.fit.dcan.uniforms", lambda *given: drawn)
    value, parts = made.align(SOURCE, OTHER, TRUTH, BATCH)
    assert parts["regulariser"].item() == near(0.0159288413, abs=1e-8)
    ce = F.cross_entropy(made.heads(SOURCE)[0], TRUTH[:, 0])
    assert (ce + value).item() == near(-1.1286805857, abs=1e-8)


def aligned(kind: str) -> float:
    """Of this process's rows, with heads that were handed on, which drop."""
    fit, mine = FITS.find(kind), world.mine(4)
    handed = LabelHeads(2, [2], "tel", 4, feedforward=4, dropout=0.5)
    for p in handed.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    setting = Setting(4, 32, 2, 4, 0, steps=2, classes={"diagnosis": 2}, modalities=("derm",))
    setting = replace(setting, counts={"diagnosis": (2, 2)}, artifact={HEADS: handed.part()})
    made = fit(Flat(), fit.Config(gates=False, hidden=2, ramp=False), setting)
    for p in made.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    return made.train().align(SOURCE[mine].float(), OTHER[mine].float(), TRUTH[mine], BATCH)[0].item()


@pytest.mark.parametrize("kind", ["our_alignment", "dcan"])
def test_two_processes_align_as_one_does(kind, two: Group):
    assert two(aligned, kind) == [near(aligned(kind), abs=1e-5)] * 2


def test_without_its_regulariser_it_is_our_alignment():
    found = [by_hand(DCAN, regulariser="none"), by_hand(OurAlignment)]
    assert len({made.align(SOURCE, OTHER, TRUTH, BATCH)[0].item() for made in found}) == 1


@each
def test_labels_of_the_target_change_nothing(name, store, tmp_path):
    """Nor does it help to lack them: held-out cases of this store are the target's."""
    shuffled = {i: small.labels_of(j) for i, j in zip(small.HELDOUT, small.HELDOUT[::-1], strict=True)}
    other = small.make_store(tmp_path / "store", shuffled)
    assert not np.array_equal(other.label("diagnosis"), store.label("diagnosis"))
    one, two = (small.train(name, s).parts[PREDICTOR] for s in (store, other))
    assert small.equal(one.state, two.state)


def test_the_pool_of_the_target_knows_no_label(store):
    found = Material(
        small.encoders(), store, small.ROWS, CPU, small.LOOK, target=Target(store, small.HELDOUT, small.LOOK)
    )
    pools = OurAlignment.pools(found)
    units = np.arange(len(small.HELDOUT))
    assert pools.keys() == {"derm", "target_derm"} and len(pools["target_derm"]) == len(units)
    assert (pools["target_derm"].labels("diagnosis", units) == -1).all()
    assert (pools["derm"].labels("diagnosis", units) >= 0).any()


@each
def test_images_of_the_target_are_looked_at_by_all_but_one(name, store):
    whole = small.train(name, store).parts[PREDICTOR]
    where = (small.Kept(), lambda row: None, CPU, "fp32", small.LOOK)
    target = Target(store, small.HELDOUT[:12], small.LOOK)
    given = small.FITS[name], 7, {}, small.encoders(), store, small.ROWS, *where
    few = train_fit(name, *given, target=target).parts[PREDICTOR]
    assert small.equal(whole.state, few.state) == (name == "source_only")


@pytest.mark.parametrize("name", ["our_alignment", "dcan", "dann"])
@pytest.mark.parametrize("images", [4, 24])
def test_all_learn_the_source_alike_however_many_images_the_target_has(name, images, store):
    """Fewer than a batch has, or more than the source: an epoch is a pass over the source."""
    target = Target(store, small.HELDOUT[:images], small.LOOK)

    def learnt(name: str) -> tuple[dict, list]:
        ungated = {"gates": False} if name in ("our_alignment", "dcan") else {}
        config = {**small.FITS[name], "adapt_epochs": 0, **ungated}
        given = name, config, 7, {}, small.encoders(), store, small.ROWS[:16], small.Kept(), lambda row: None
        found = train_fit(*given, CPU, "fp32", small.LOOK, target=target)
        weights = {n for n, _ in small.encoders().named_parameters()}
        state = found.parts[PREDICTOR].state
        return {n: state[f"encoders.{n}"] for n in weights}, [row["loss"] for row in found.history]

    (ours, losses), (plain, others) = learnt(name), learnt("source_only")
    assert losses == others and small.equal(ours, plain)


def test_images_that_fill_a_small_targets_batch_look_different(store, monkeypatch):
    seen = []
    monkeypatch.setattr(OurAlignment, "align", lambda self, s, t, *_: (seen.append(t.detach()), (s.sum() * 0, {}))[1])
    target = Target(store, small.HELDOUT[:4], small.LOOK)
    given = small.FITS["our_alignment"], 7, {}, small.encoders(), store, small.ROWS, small.Kept(), lambda row: None
    train_fit("our_alignment", *given, CPU, "fp32", small.LOOK, target=target)
    assert seen and all(len(rows.unique(dim=0)) == len(rows) == 16 for rows in seen)


@pytest.mark.parametrize("name", ["our_alignment", "dcan"])
def test_every_setting_counts(name, store):
    plain = small.train(name, store).parts[PREDICTOR].state
    others = [{"estimator": "ring"}, {"alpha": 1.0}, {"beta": 1.0}, {"ramp": False}, {"statistics": "frozen"}]
    others += [{"gates": False}, {"reduction": 4}, {"hidden": 8}, {"adapt_rate": 0.5}, {"balanced": False}]
    for config in others + [{"regulariser": "none"}, {"regulariser": "released"}] * (name == "dcan"):
        found = small.train(name, store, **config).parts[PREDICTOR].state
        assert found.keys() != plain.keys() or not small.equal(found, plain), config


def test_statistics_are_those_of_the_target(store):
    """adabn differs from source_only in statistics alone, and they are what the target's images have."""
    plain, other = (predictor(small.train(n, store).parts[PREDICTOR]) for n in ("source_only", "adabn"))
    state = other.state_dict()
    apart = {n.rpartition(".")[2] for n, w in plain.state_dict().items() if not torch.equal(w, state[n])}
    assert apart == {"running_mean", "running_var", "num_batches_tracked"}
    first = next(n for n in other.encoders.modules() if isinstance(n, torch.nn.BatchNorm2d))
    seen = []
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    predicted_by(other, store, small.HELDOUT, small.LOOK, CPU, "fp32")
    assert torch.allclose(first.running_mean, torch.cat(seen).mean((0, 2, 3)), atol=1e-5)


def test_gates_of_the_target_are_used_ever_after(store):
    made = predictor(small.train("our_alignment", store).parts[PREDICTOR])
    assert made.gates() and all(gate.on_target for gate in made.gates())
    gate = made.gates()[0]
    assert not torch.equal(gate.source.weight, gate.target.weight)


def test_a_vit_has_neither_statistics_nor_maps(store):
    vit = Encoders.random("test_vit", ("derm",), "shared", 3)
    with pytest.raises(UserError, match=r"^adabn: needs an encoder with BatchNorm"):
        small.train("adabn", store, vit)
    with pytest.raises(UserError, match=r"^gates: must be false for encoder 'test_vit'"):
        small.train("our_alignment", store, vit)
    assert small.train("our_alignment", store, vit, gates=False).parts.keys() == {PREDICTOR}


def test_one_without_a_target_is_a_bug(store):
    given = small.FITS["dann"], 7, {}, small.encoders(), store, small.ROWS
    with pytest.raises(ValueError, match=r"^dann: needs a target"):
        train_fit("dann", *given, small.Kept(), lambda row: None, CPU, "fp32", small.LOOK)


def test_a_collapse_is_told():
    classes, truth = {"finding": ("none", "some")}, {"finding": np.array([0, 1, 0, 1, -1])}
    same, apart = np.tile([0.9, 0.1], (5, 1)), np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0, 1]], float)
    for said, share, collapsed in [(same, 1.0, 1.0), (apart, 0.5, 0.0)]:
        found = {(m.cls, m.metric): m for m in predicted_shares(truth, classes, {"finding": said}, np.arange(5))}
        assert found["none", "predicted_share"].values[0] == share and found["", "collapsed"].values[0] == collapsed
        assert {m.n for m in found.values()} == {4}
    told = told_of([torch.from_numpy(same)])
    assert told["target_share"] == 1 and told["target_entropy"].item() == near(0.325083, abs=1e-5)


def test_every_adaptation_is_known():
    assert all(FITS.find(name).name == name for name in small.ADAPTATIONS)
