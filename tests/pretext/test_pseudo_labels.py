"""Pseudo-labels: what is clustered and when, the loss written out, frozen encoders, cases without a partner."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import Group
from pretext import tiny
from torch import nn

from dermsearch import world
from dermsearch.data.case import Case
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import PairedPool
from dermsearch.errors import UserError
from dermsearch.models.artifact import HEADS
from dermsearch.models.kmeans import mutual_information, spherical_kmeans
from dermsearch.models.relations import ATTENTIVE, RELATIONS, label_heads
from dermsearch.pretext.base import Setting
from dermsearch.pretext.batch import epoch_order
from dermsearch.pretext.pseudo_labels import PseudoLabels, first_process
from dermsearch.training import stage
from dermsearch.training.learner import Recipe

CLASSES = {name: len(classes) for name, classes in SEVEN_POINT.items()}
SMALL = {"width": 16, "feedforward": 16}
MISSING = {"clinic": [1, 5, 9, 30], "derm": [2, 44]}
LACKING = [1, 2, 5, 9, 30, 44]
PAPER = {"memory": "stale"}


def make_store(folder: Path, missing: dict[str, list[int]], turned: tuple[int, ...] = ()) -> CaseStore:
    """48 cases with the labels of the seven-point checklist; those of some are other images."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(tiny.CASES):
        coarse = torch.from_numpy(rng.uniform(0, 255, (2, 3, 6, 6)))
        fine = F.interpolate(coarse, (tiny.SIZE, tiny.SIZE), mode="bicubic").clamp(0, 255).to(torch.uint8)
        fine = 255 - fine if i in turned else fine
        both = dict(zip(("derm", "clinic"), fine.permute(0, 2, 3, 1).numpy(), strict=True))
        images = {m: x for m, x in both.items() if i not in missing.get(m, ())}
        cases.append(Case(f"c{i}", f"l{i}", f"p{i}", images, {n: i % count for n, count in CLASSES.items()}))
    return write_store(folder, cases, {c.case: "train" for c in cases}, SEVEN_POINT, {"source": "test"})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return make_store(tmp_path_factory.mktemp("data") / "store", {})


@pytest.fixture(scope="module")
def partial(tmp_path_factory) -> CaseStore:
    return make_store(tmp_path_factory.mktemp("data") / "partial", MISSING)


def begun(store: CaseStore, monkeypatch: pytest.MonkeyPatch, begin: bool = True, **config: Any) -> tiny.Steps:
    """A stage whose first clustering is done."""
    monkeypatch.setitem(tiny.TASKS, "pseudo_labels", {**SMALL, **config})
    return tiny.Steps("pseudo_labels", store, begin=begin)


def task_of(run: tiny.Steps) -> PseudoLabels:
    return run.learner.each()[0]  # type: ignore[return-value]


def train(store: CaseStore, kept: tiny.Kept | None = None, report: Any = None, **config: Any) -> dict[str, Any]:
    """Three epochs by the trainer: encoders, history, what is handed on, and the buffers after each epoch's start."""
    torch.set_num_threads(1)
    made, buffers = tiny.encoders("pseudo_labels"), []
    lr = 0.002 if config.get("frozen", True) else 0.0002  # encoders that move magnify rounding
    rate = {**tiny.recipe("pseudo_labels", epochs=3, lr=lr).train}
    config = PseudoLabels.Config(**{**SMALL, **config}).model_dump()
    recipe = Recipe("pseudo_labels", config, rate, 7, "fp32")
    whole = PseudoLabels.begin_epoch

    def watched(self: PseudoLabels, epoch: int, features: Any) -> None:
        whole(self, epoch, features)
        buffers.append({n: b.clone() for n, b in self.named_buffers(recurse=False)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PseudoLabels, "begin_epoch", watched)
        trained = stage.train_stage(
            recipe, made, store, tiny.ROWS, kept or tiny.Kept(), report or (lambda row: None), tiny.CPU
        )
    return {
        "encoders": {n: w.clone() for n, w in made.state_dict().items()},
        "history": trained.history,
        "heads": trained.parts[HEADS].state,
        "buffers": buffers,
    }


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("unit", [True, False])
def test_scores_that_are_all_alike(store, monkeypatch, unit):
    run = begun(store, monkeypatch, unit=unit)
    nn.init.zeros_(task_of(run).heads.relation[-1].last_norm.weight)
    nn.init.zeros_(task_of(run).heads.relation[-1].last_norm.bias)
    assert float(run.backward()) == pytest.approx(1.061099, abs=1e-6)
    assert torch.equal(run.losses["derm"].value, run.losses["clinic"].value)  # each branch has half of it


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("unit, temperature", [(False, 1.0), (True, 0.2)])
def test_loss_written_out(partial, monkeypatch, relation, unit, temperature):
    """Case by case and label by label, of the cases with both images."""
    run = begun(partial, monkeypatch, relation=relation, unit=unit, temperature=temperature, dropout=0.0)
    task, batches = task_of(run), run.batches()
    features = [task.backbones[b](batches[b].view(task.view, "view")) for b in ("derm", "clinic")]
    joined = torch.cat(features, 1)
    terms, units = [], batches["derm"].units.tolist()
    for row, unit_number in enumerate(units):
        if unit_number in LACKING:
            assert (task.label[:, unit_number] == -1).all()
            continue
        for k, embedding in enumerate(task.heads.embed(joined[row : row + 1])[:, 0].tolist()):
            length = math.sqrt(sum(a * a for a in embedding)) if unit else 1.0
            scores = [
                sum(a * b for a, b in zip(embedding, p, strict=True)) / length / temperature
                for p in task.heads.prototypes[k].weight.tolist()
            ]
            chosen = scores[int(task.label[k, unit_number])]
            terms.append(max(scores) - chosen + math.log(sum(math.exp(s - max(scores)) for s in scores)))
    left_out = len(set(units) & set(LACKING))
    assert left_out and len(terms) == 8 * (tiny.BATCH - left_out)
    found = run.learner(batches)
    assert found[0].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    for loss, own in zip(found[1].values(), features, strict=True):
        torch.testing.assert_close(loss.embedding, own)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("relation", ["no_proj", "tel"])
def test_clusters_are_those_of_whole_images_without_dropout(partial, monkeypatch, relation, unit):
    run = begun(partial, monkeypatch, relation=relation, unit=unit, dropout=0.9)
    task = task_of(run)
    whole = [tiny.features(run.encoders.backbones[b], run.pools[b]) for b in ("derm", "clinic")]
    with torch.no_grad():
        x = task.heads.eval().embed(torch.cat(whole, 1))
    complete = [i for i in range(tiny.CASES) if i not in LACKING]
    x = F.normalize(x[:, complete], dim=2) if unit else x[:, complete]
    starts = task.centroid.split(list(CLASSES.values()))
    for k, (count, rows) in enumerate(zip(CLASSES.values(), x, strict=True)):
        assert (task.label[k, LACKING] == -1).all()
        assert torch.equal(starts[k], task.heads.prototypes[k].weight)
        labels, centroids = spherical_kmeans(rows, starts[k], 0)  # labels and centroids go together
        assert torch.equal(task.label[k, complete], labels) and set(labels.tolist()) <= set(range(count))
        torch.testing.assert_close(centroids.norm(dim=1), torch.ones(count))
    assert "memory" not in dict(task.named_buffers())
    sizes = [task.label[k, complete].bincount().max().item() / len(complete) for k in range(8)]
    assert task.watched.tolist() == pytest.approx([np.mean(sizes), 0])


def embedded(task: PseudoLabels, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, tiny.CASES, 16, generator=generator)


def test_a_warm_restart_goes_on_from_the_last_centroids(store, monkeypatch):
    task = task_of(begun(store, monkeypatch, restart="warm"))
    x, before, old = embedded(task), task.centroid.clone(), task.label.clone()
    for prototype in task.heads.prototypes:
        nn.init.zeros_(prototype.weight)  # what they have learnt is no start
    task.cluster(x, tiny.ROWS, 3)
    alike = []
    for k, start in enumerate(before.split(list(CLASSES.values()))):
        labels, centroids = spherical_kmeans(x[k], start, 10)
        assert torch.equal(task.label[k], labels)
        assert torch.equal(task.heads.prototypes[k].weight, centroids)
        alike.append(mutual_information(old[k], labels).item())
    assert float(task.watched[1]) == pytest.approx(np.mean(alike)) and 0 < np.mean(alike) < 1


def test_a_random_restart_begins_with_other_cases_each_time(store, monkeypatch):
    task = task_of(begun(store, monkeypatch, iterations=1))
    x, seen = embedded(task), []
    starts: list[torch.Tensor] = []
    monkeypatch.setattr(
        "dermsearch.pretext.pseudo_labels.spherical_kmeans",
        lambda rows, start, n: starts.append(start) or spherical_kmeans(rows, start, n),
    )
    for epoch in (1, 2, 1):
        starts.clear()
        task.cluster(x, tiny.ROWS, epoch)
        for rows, start, count in zip(x, starts, CLASSES.values(), strict=True):
            chosen = [int((rows == s).all(1).nonzero()) for s in start]
            assert len(set(chosen)) == count
            seen.append(tuple(chosen))
    assert seen[:8] == seen[16:] and len(set(seen[:16])) == 16


def test_optimiser_keeps_its_moments_and_prototypes_are_learnt_between(store, monkeypatch):
    run = begun(store, monkeypatch)
    task = task_of(run)
    run.step()
    weight = task.heads.prototypes[0].weight
    moment = run.optimizer.state[weight]["exp_avg"].clone()
    assert moment.any() and not torch.equal(weight, task.centroid[:5])
    run.learner.tell("begin_epoch", run.whole(), 1)
    assert torch.equal(weight, task.centroid[:5]) and task.heads.prototypes[0].weight is weight
    assert torch.equal(run.optimizer.state[weight]["exp_avg"], moment)


def test_a_stale_memory_holds_what_the_last_batches_were(store, monkeypatch):
    run = begun(store, monkeypatch, memory="stale", dropout=0.5)
    task = task_of(run)
    before, found = task.memory.clone(), []
    torch.testing.assert_close(before, task.embeddings(run.whole()))  # filled without dropout
    assert task.training and task.heads.training
    task.heads.relation.register_forward_hook(lambda module, args, out: found.append(out.detach()))
    run.step()
    (tokens,), units = found, epoch_order(7, 0, tiny.CASES, tiny.BATCH, False)
    assert torch.equal(task.memory[:, units], tokens.transpose(0, 1))
    others = np.setdiff1d(tiny.ROWS, units)
    assert torch.equal(task.memory[:, others], before[:, others])
    monkeypatch.setattr(PseudoLabels, "embeddings", None)  # and is not made anew
    run.learner.tell("begin_epoch", run.whole(), 1)
    rows, start = task.memory[0], task.centroid[:5]
    assert torch.equal(task.label[0], spherical_kmeans(rows, start, 0)[0])


def test_clusters_stay_between(store):
    first, second, third = train(store, every=2)["buffers"]
    assert torch.equal(first["label"], second["label"]) and torch.equal(first["centroid"], second["centroid"])
    assert not torch.equal(second["centroid"], third["centroid"])


@pytest.mark.parametrize("config", [{}, PAPER, {"relation": "no_proj"}], ids=str)
def test_frozen_encoders_do_not_move(store, config):
    start = {n: w.clone() for n, w in tiny.encoders("pseudo_labels").state_dict().items()}
    found = train(store, **config)
    assert equal(found["encoders"], start) and any("running_mean" in n for n in start)
    assert not torch.equal(found["heads"]["prototypes.0.weight"], found["buffers"][-1]["centroid"][:5])
    free = train(store, frozen=False, **config)["encoders"]
    assert [n for n, w in start.items() if not torch.equal(free[n], w)]


def test_frozen_encoders_are_not_the_optimisers(store, monkeypatch):
    run = begun(store, monkeypatch)
    theirs = {id(p) for p in run.encoders.parameters()}
    given = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for p in task_of(run).heads.parameters()} and not given & theirs
    assert not any(m.training for m in run.encoders.backbones.modules()) and task_of(run).heads.training
    assert PseudoLabels.cost(task_of(run).config, 224) == pytest.approx(1 / 3)
    assert PseudoLabels.cost(PseudoLabels.Config(frozen=False), 224) == 1


def test_a_case_without_a_partner_takes_part_in_nothing(partial, tmp_path):
    """Its own image may be any: to the bit, the same comes out."""
    other = make_store(tmp_path / "store", MISSING, tuple(LACKING))
    assert other.fingerprint != partial.fingerprint
    for config in ({}, PAPER):
        one, two = train(partial, **config), train(other, **config)
        assert equal(one["heads"], two["heads"])
        assert [r["loss"] for r in one["history"]] == [r["loss"] for r in two["history"]]
        for a, b in zip(one["buffers"], two["buffers"], strict=True):
            assert torch.equal(a["label"], b["label"]) and (a["label"][:, LACKING] == -1).all()


class Interrupted(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [{}, PAPER, {"every": 2, "restart": "warm", "unit": True, "temperature": 0.1}], ids=str
)
def test_resuming_after_every_epoch_changes_nothing(partial, config):
    def stop(row: dict[str, Any]) -> None:
        raise Interrupted

    whole, kept = train(partial, **config), tiny.Kept()
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(partial, kept, stop, **config)
    again = train(partial, kept, **config)
    assert len(again["buffers"]) == 1  # two epochs were kept
    assert tiny.timeless(again["history"]) == tiny.timeless(whole["history"])
    for part in ("heads", "encoders"):
        assert equal(again[part], whole[part])


def share(folder: str, config: dict[str, Any]) -> dict[str, Any]:
    return train(CaseStore(folder), **config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [{}, {**PAPER, "dropout": 0.4}, {"frozen": False, "relation": "msa", "restart": "warm"}], ids=str
)
def test_two_processes_find_the_same_labels_and_losses(partial, config, two: Group):
    one = share(str(partial.folder), config)
    every = two(share, str(partial.folder), config)
    for many in every:
        for a, b, c in zip(one["buffers"], many["buffers"], every[0]["buffers"], strict=True):
            assert torch.equal(a["label"], b["label"])
            torch.testing.assert_close(a["centroid"], b["centroid"], rtol=1e-3, atol=1e-4)
            assert equal(b, c)
        for a, b in zip(one["history"], many["history"], strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
            assert b["parts"] == pytest.approx(a["parts"], rel=1e-5)
        assert equal(many["heads"], every[0]["heads"])


def whose() -> torch.Tensor:
    return torch.stack([first_process(torch.tensor([3, 4]) + world.rank()), torch.tensor([3, 4]) + world.rank()])


def test_the_first_process_decides(two: Group):
    one, other = two(whose)
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert torch.equal(one[0], one[1])


@pytest.mark.parametrize("relation", RELATIONS)
def test_heads_are_handed_on(store, monkeypatch, relation):
    run = begun(store, monkeypatch, relation=relation)
    run.step()
    part = task_of(run).hands_on()[HEADS]
    x = torch.randn(5, 2 * run.encoders.dim)
    pairs = zip(label_heads(part).eval()(x), task_of(run).heads.eval()(x), strict=True)
    assert [a.shape[1] for a, b in pairs if torch.equal(a, b)] == list(CLASSES.values())


def test_accuracy_is_of_the_pseudo_labels(partial, monkeypatch):
    """On whole images without dropout all are right, because the prototypes are the centroids."""
    run = begun(partial, monkeypatch, dropout=0.0)
    task = task_of(run)
    monkeypatch.setattr(task, "view", type(task.view)(tiny.SIZE))
    run.backward()
    assert float(run.losses["derm"].parts["accuracy"]) == pytest.approx(1)
    task.label[:4] = (task.label[:4] + 1) % torch.tensor([5, 3, 2, 3])[:, None] - 5 * (task.label[:4] < 0)
    task.label.clamp_(min=-1)
    run.backward()
    assert float(run.losses["derm"].parts["accuracy"]) == pytest.approx(0.5)


def told(units: int = 100, **more: Any) -> Setting:
    return Setting(units, 32, 8, 10, 0, classes=CLASSES, **more)


def test_check():
    PseudoLabels.check(PseudoLabels.Config(), told(5))
    with pytest.raises(UserError, match=r"5 clusters, .* need as many training cases; there are 4"):
        PseudoLabels.check(PseudoLabels.Config(), told(4))
    for relation in RELATIONS:
        odd = functools.partial(PseudoLabels.check, PseudoLabels.Config(relation=relation, attention_heads=3), told())
        if relation in ATTENTIVE:
            with pytest.raises(UserError, match=r"width: must be a multiple of attention_heads \(3\), not 512"):
                odd()
        else:
            odd()


def test_cases_without_labels_or_pairs_are_refused(store, monkeypatch):
    with pytest.raises(UserError, match="these cases have none"):
        PseudoLabels(nn.ModuleDict(), PseudoLabels.Config(), Setting(10, 32, 8, 10, 0))
    monkeypatch.setattr(
        PairedPool, "there", lambda self, units: np.arange(len(units)) % 2 == (self.modalities[0] == "derm")
    )
    with pytest.raises(UserError, match="no training case has an image of every modality"):
        begun(store, monkeypatch)
