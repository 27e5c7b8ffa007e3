"""Fine-tuning: encoders learn, heads come from the parent, and every setting counts."""

import numpy as np
import pytest
import torch
from fit import small
from pretext.tiny import CPU

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look, pictures
from dermsearch.data.views.augment import plain
from dermsearch.fit.base import labels_of, predictor
from dermsearch.fit.finetune import Finetune
from dermsearch.fit.heads import balance, mean_loss
from dermsearch.models.artifact import HEADS, PREDICTOR, Part
from dermsearch.models.relations import LabelHeads
from dermsearch.pretext.base import Batch, Material
from dermsearch.training.fits import predict_fit

SIZES = [len(names) for names in small.CLASSES.values()]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    torch.set_num_threads(1)
    return small.make_store(tmp_path_factory.mktemp("data") / "store")


def heads(relation: str = "tel", dim: int = small.encoders().dim) -> Part:
    """As a parent hands them on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LabelHeads(dim, SIZES, relation, width=16, feedforward=8).part()


def test_the_defaults_are_those_of_the_studies():
    c = Finetune.Config()
    assert (c.lr, c.weight_decay, c.epochs, c.batch, c.crop, c.balanced) == (1e-4, 0.01, 50, 64, 0.5, True)
    recipe = Finetune.recipe(c)
    assert recipe == {
        "optimizer": "adamw", "lr": 1e-4, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.1,
        "epochs": 50, "batch": 64,
    }  # fmt: skip


def test_every_setting_counts(store):
    plain = small.train("finetune", store, epochs=1)
    for name, value in {
        "lr": 2e-3,
        "weight_decay": 10.0,
        "warmup": 0.9,
        "crop": 0.9,
        "batch": 8,
        "balanced": False,
    }.items():
        other = small.train("finetune", store, epochs=1, **{name: value})
        assert not small.equal(other.parts[PREDICTOR].state, plain.parts[PREDICTOR].state), name
    cosine = small.train("finetune", store, epochs=3)
    assert cosine.history[0]["lr"] > cosine.history[-1]["lr"]
    constant = small.train("finetune", store, epochs=3, schedule="constant", warmup=0.0)
    assert {row["lr"] for row in constant.history} == {1e-3}


@pytest.mark.parametrize("balanced", [True, False])
def test_classes_weigh_alike_unless_they_are_not_to(store, balanced):
    """Its loss is that with weights of the counts of its own training cases, or without."""
    module = predictor(small.train("finetune", store, epochs=1, balanced=balanced).parts[PREDICTOR]).eval()
    pools = module.pools(Material(module.encoders, store, small.ROWS, CPU, small.LOOK))
    batches = {m: Batch(np.arange(16), pool, small.SIZE, 0, 0, 0) for m, pool in pools.items()}
    losses = module.loss(batches)
    logits = module.heads(torch.cat([losses[m].embedding for m in pools], 1))
    truth, weights = labels_of(batches, list(small.CLASSES)), balance(module.setting.counts)
    assert any(len(set(each.tolist())) > 1 for each in weights), "else nothing would be told apart"
    expected = [mean_loss(logits, truth, w)[0] for w in (weights, None)]
    assert not torch.allclose(*expected)
    torch.testing.assert_close(sum(loss.value for loss in losses.values()), expected[not balanced])


@pytest.mark.parametrize("relation", ["tel", "proj"])
def test_heads_of_the_parent_are_where_it_starts(store, relation):
    part = heads(relation)
    before = {name: w.clone() for name, w in part.state.items()}
    with_heads, fresh = (
        small.train("finetune", store, artifact=artifact, epochs=1, lr=1e-9) for artifact in ({HEADS: part}, {})
    )
    started = predictor(with_heads.parts[PREDICTOR]).heads.handed
    for name, w in started.state_dict().items():
        torch.testing.assert_close(w, before[name], atol=1e-6, rtol=0)
    assert predictor(fresh.parts[PREDICTOR]).heads.handed is None
    assert not small.equal(small.predict(with_heads, store), small.predict(fresh, store))
    learnt = small.train("finetune", store, artifact={HEADS: part})
    assert not torch.equal(learnt.parts[PREDICTOR].state["heads.handed.projectors.weight"], before["projectors.weight"])
    assert small.equal(part.state, before), "what the parent handed on stays as it is"


def test_heads_for_other_labels_or_features_are_not_taken(store):
    part = heads()
    others = heads(dim=8), Part({**part.config, "classes": SIZES[::-1]}, part.state)
    fresh = small.predict(small.train("finetune", store, epochs=1), store)
    for other in others:
        assert small.equal(
            small.predict(small.train("finetune", store, artifact={HEADS: other}, epochs=1), store), fresh
        )


def test_encoders_learn_and_not_only_the_heads(store):
    start = small.encoders()
    trained = predictor(small.train("finetune", store, start, epochs=1).parts[PREDICTOR])
    for (name, before), after in zip(start.named_parameters(), trained.encoders.parameters(), strict=True):
        assert not torch.equal(before, after), name


def test_a_missing_image_is_nothing(tmp_path):
    """Whatever stands in for it, the features are zero, when it predicts and while it learns."""
    lacking = small.make_store(tmp_path / "store", missing={"clinic": range(10, 60)})
    made = small.encoders(("derm", "clinic"), "separate")
    part = small.train("finetune", lacking, made, epochs=1).parts[PREDICTOR]
    state = {name: w.clone() for name, w in part.state.items()}
    for name in (n for n in state if n.startswith("heads.weights")):
        state[name][:, made.dim :] = 9.0  # of the clinical features
    one, other = (small.predict(p, lacking)["diagnosis"] for p in (part, Part(part.config, state)))
    assert np.array_equal(one[:20], other[:20]) and (one[20:, :3] != other[20:, :3]).any(1).all()

    module = predictor(part).eval()
    pools = module.pools(Material(module.encoders, lacking, small.HELDOUT, CPU, small.LOOK))
    batches = {m: Batch(np.arange(8), pool, small.SIZE, 0, 0, 0) for m, pool in pools.items()}
    losses = module.loss(batches)
    logits = module.heads(torch.cat([losses[m].embedding for m in made.modalities], 1))
    truth, weights = labels_of(batches, list(small.CLASSES)), balance(module.setting.counts)
    expected, _ = mean_loss(logits, truth, weights)
    torch.testing.assert_close(losses["derm"].value + losses["clinic"].value, expected)

    module.train()
    pools = module.pools(Material(module.encoders, lacking, small.ROWS, CPU, small.LOOK))
    for units, moved in ((np.arange(10, 26), False), (np.arange(16), True)):
        module.zero_grad()
        losses = module.loss({m: Batch(units, pool, small.SIZE, 0, 0, 0) for m, pool in pools.items()})
        sum(loss.value for loss in losses.values()).backward()
        assert bool(module.heads.weights[0].grad[:, made.dim :].any()) == moved
        assert module.heads.weights[0].grad[:, : made.dim].any()


def test_prediction_is_of_whole_images_as_they_are_looked_at(store):
    part = small.train("finetune", store, epochs=1).parts[PREDICTOR]
    module, truth = predictor(part).to(memory_format=torch.channels_last), small.predict(part, store)
    x = plain(pictures(store, "derm", small.HELDOUT, small.LOOK, CPU), small.SIZE)
    with torch.no_grad():
        logits = module.heads(module.encoders(x, "derm"))
    np.testing.assert_allclose(logits[0].double().softmax(1).numpy(), truth["diagnosis"], rtol=1e-5)
    other = predict_fit(part, store, small.HELDOUT, Look(small.SIZE, border=0.2), CPU, "fp32")
    assert not small.equal(other, truth)
