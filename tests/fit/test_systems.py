"""What all comparison systems keep: shapes, parameters, gradients, recipes, inputs; and that they can learn at all."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fit import pairs
from gloo import Group
from pretext.tiny import CPU, Kept

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.data.views.augment import View
from dermsearch.errors import UserError
from dermsearch.evaluate.base import configure
from dermsearch.fit.base import FITS
from dermsearch.fit.system import COMMON, System
from dermsearch.models.artifact import PREDICTOR
from dermsearch.models.batchnorm import across_processes
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import GlobalDropout
from dermsearch.run.check import check
from dermsearch.study.config import Study
from dermsearch.training.fits import predict_fit, train_fit

pytestmark = pytest.mark.slow

every_system = pytest.mark.parametrize("name", pairs.SYSTEMS)
GROUPS = {
    "baseline": ["dc"],
    "inception_combined": ["d", "c", "dc", "dm", "cm", "dcm"],
    "hccnn": ["d", "c", "h", "joint"],
    "giin": ["d", "c", "g"],
    "amfam": ["f"],
    "fusion_m4net": ["d", "c", "f"],
    "fusion_m4net_svm": ["d", "c", "f"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    torch.set_num_threads(1)
    return pairs.make_store(tmp_path_factory.mktemp("data") / "store")


def added(name: str, shape: Any) -> int:
    """The parameters that a system puts on its encoders."""
    fit = FITS.find(name)
    module: Any = fit.__new__(fit)
    torch.nn.Module.__init__(module)
    module.config = fit.Config()
    with torch.device("meta"):
        return sum(p.numel() for p in module.build(shape).parameters())


COUNTS = {  # over ResNet-50; the whole with ResNet-50, ResNet-18 and ResNet-10t
    "baseline": (98_328, 47_114_392, 22_377_624, 9_869_576),
    "inception_combined": (394_368, 47_410_432, 22_452_480, 9_944_432),
    "hccnn": (167_856_096, 214_872_160, 33_312_480, 20_804_432),
    "giin": (4_274_520, 51_290_584, 23_457_240, 10_949_192),
    "amfam": (12_259_180, 59_275_244, 25_568_236, 13_060_188),
    "fusion_m4net": (3_357_384, 50_373_448, 23_351_112, 10_843_064),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_they_should_be(name):
    over, *whole = COUNTS[name]
    assert added(name, pairs.RESNET50) == over
    for encoder, shape, count in zip(
        ("resnet50", "resnet18", "resnet10t"), (pairs.RESNET50, pairs.RESNET18, pairs.RESNET18), whole, strict=True
    ):
        made = Encoders.empty(encoder, ("derm", "clinic"), "separate")
        assert sum(p.numel() for p in made.parameters()) + added(name, shape) == count


@every_system
def test_groups_and_probabilities_have_the_shapes_of_the_labels(name, store):
    module = pairs.system(name, store)
    given = pairs.batches(module, store, np.arange(6))
    said = module.said(given)
    assert list(said.groups) == GROUPS[name]
    assert all([tuple(x.shape) for x in group] == [(6, c) for c in pairs.CLASSES] for group in said.groups.values())
    for label, p in module.eval().predict(given).items():
        assert p.shape == (6, len(store.classes[label])) and torch.allclose(p.sum(1), torch.ones(6).double(), atol=1e-6)


ZERO = {  # the loss where nothing is known: mean over labels of log(classes), summed over groups
    "baseline": 1.061099, "inception_combined": 6.366595, "hccnn": 4.244397, "giin": 3.183298,
    "fusion_m4net": 1.050488, "fusion_m4net_svm": 1.050488,
}  # fmt: skip


def zeroed(name: str, store: CaseStore, **config: Any) -> tuple[System, Any, Any]:
    """A system that says nothing, and its loss of a batch."""
    module = pairs.system(name, store, **config)
    for p in module.network.parameters():
        torch.nn.init.zeros_(p)
    given = pairs.batches(module, store, np.arange(16))
    losses = module.loss(given)
    return module, sum(loss.value for loss in losses.values()), losses


@pytest.mark.parametrize(("name", "value"), ZERO.items())
def test_the_loss_of_logits_that_are_zero(name, value, store):
    assert zeroed(name, store)[1].item() == pytest.approx(value, abs=1e-5)


def test_the_loss_of_amfam_that_knows_nothing(store):
    _, _, losses = zeroed("amfam", store)
    parts = losses["derm"].parts
    assert parts["classes"].item() == pytest.approx(1.061099, abs=1e-5)
    assert 0.8 * parts["adversary"].item() == pytest.approx(0.554518, abs=1e-5)


@every_system
def test_every_weight_of_both_encoders_learns(name, store):
    module = pairs.system(name, store)
    for n, p in module.encoders.named_parameters():  # timm begins some norms at zero, before which nothing learns
        if n.endswith("weight") and p.ndim == 1:
            torch.nn.init.ones_(p)
    module.before_step(50)
    given = pairs.batches(module, store, np.arange(16), 64)  # of smaller images the last map is one place
    object.__setattr__(module.setting, "size", 64)
    sum(loss.value for loss in module.loss(given).values()).backward()
    still = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@every_system
def test_cases_stand_for_themselves_and_images_are_not_exchanged(name, store):
    module = pairs.system(name, store).eval()
    order = np.array([3, 0, 5, 1])
    given = pairs.batches(module, store, np.arange(6))
    whole, some = module.predict(given), module.predict(pairs.batches(module, store, order))
    exchanged = module.predict({"derm": given["clinic"], "clinic": given["derm"]})
    for label, p in whole.items():
        torch.testing.assert_close(p[order], some[label], atol=1e-5, rtol=0)
    assert max((p - exchanged[label]).abs().max().item() for label, p in whole.items()) > 1e-4


@every_system
def test_it_begins_with_the_weights_that_are_handed_on(name, store):
    module, begun = pairs.system(name, store), Encoders.random("test_resnet", ("derm", "clinic"), "separate", 3)
    for key, weight in begun.state_dict().items():
        assert torch.equal(module.state_dict()[f"encoders.{key}"], weight), key


def test_the_dermoscopic_image_leads_wherever_it_is_named(store):
    fit, given = FITS.find("baseline"), pairs.system("baseline", store).setting
    made = Encoders.random("test_resnet", ("clinic", "derm"), "separate", 3)
    assert fit(made, fit.Config(), replace(given, modalities=("clinic", "derm"))).modalities == ("derm", "clinic")


@pytest.mark.parametrize("encoder", ["resnet10t", "convnext_atto", "test_vit"])
def test_pyramids_are_those_of_timm(encoder, store):
    import timm

    fit, given = FITS.find("baseline"), pairs.system("baseline", store).setting
    made = Encoders.random(encoder, ("derm", "clinic"), "separate", 3)
    module = fit(made, fit.Config(), replace(given, dim=made.dim)).eval()
    batch = pairs.batches(module, store, np.arange(2))
    sight = module.look(batch, {m: b.whole() for m, b in batch.items()})[0]
    torch.testing.assert_close(sight.features, made(batch["derm"].whole(), "derm"))
    if encoder == "resnet10t":
        twin = timm.create_model(encoder, features_only=True, out_indices=(0, 1, 2, 3, 4)).eval()
        twin.load_state_dict(made.backbones["derm"].state_dict())
        for ours, theirs in zip(sight.maps, twin(batch["derm"].whole()), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert len(sight.maps) == {"resnet10t": 5, "convnext_atto": 4, "test_vit": 1}[encoder]


@pytest.mark.parametrize("encoder", ["convnext_atto", "test_vit"])
@pytest.mark.parametrize("name", ["hccnn", "giin", "amfam", "inception_combined"])
def test_other_encoders_than_resnets(encoder, name, store):
    fit, given = FITS.find(name), pairs.system("baseline", store).setting
    made = Encoders.random(encoder, ("derm", "clinic"), "separate", 3)
    if (name, encoder) == ("hccnn", "test_vit"):
        with pytest.raises(UserError, match=r"^encoder.name: must make maps of several sizes for hccnn"):
            fit(made, fit.Config(), replace(given, dim=made.dim))
        return
    module = fit(made, fit.Config(), replace(given, dim=made.dim))
    losses = module.loss(pairs.batches(module, store, np.arange(4)))
    assert all(torch.isfinite(loss.value) for loss in losses.values())


@every_system
def test_recipes(name):
    config = FITS.find(name).Config
    own, common = (FITS.find(name).recipe(config(recipe=which)) for which in ("own", "common"))
    assert common == dict(COMMON)
    assert (own == common) == (name == "baseline")
    assert FITS.find(name).recipe(config(recipe="common", lr=0.1, epochs=3, batch=8)) == {
        **COMMON, "lr": 0.1, "epochs": 3, "batch": 8,
    }  # fmt: skip


def test_own_recipes_are_the_authors_where_they_are_known():
    f4m, amfam = (FITS.find(name).own for name in ("fusion_m4net", "amfam"))
    assert (f4m["lr"], f4m["weight_decay"], f4m["batch"], f4m["epochs"]) == (3e-5, 0, 32, 250)
    assert (amfam["lr"], amfam["weight_decay"], amfam["batch"], amfam["epochs"]) == (1e-5, 1e-4, 8, 150)


@pytest.mark.parametrize(
    ("name", "together"), [("fusion_m4net", True), ("hccnn", True), ("amfam", False), ("inception_combined", False)]
)
def test_both_images_move_together_or_apart(name, together, store):
    module = pairs.system(name, store)
    given = pairs.batches(module, store, np.arange(8))
    twin = {"derm": given["derm"], "clinic": replace(given["derm"], seed=99)}  # the same image twice
    geometry = View(32, scale=(0.3, 0.6), flip=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(module), "views", lambda self, size: (geometry, geometry))
        shown = dict(module.pictures(twin))
    assert torch.equal(shown["derm"], shown["clinic"]) == together


def test_the_colours_of_dermoscopic_images_stay_in_fusion_m4net(store):
    derm, clinic = pairs.system("fusion_m4net", store).views(32)
    assert (derm.jitter_p, clinic.jitter_p) == (0, 0.25)


LEAKS = ["management", "level_of_diagnostic_difficulty"]


@pytest.mark.parametrize("column", [*LEAKS, "age", "biopsy"])
@pytest.mark.parametrize("name", ["inception_combined", "fusion_m4net_svm", "metadata_only"])
def test_metadata_that_give_the_diagnosis_away_are_refused(name, column):
    why = "with the diagnosis known; name one" if column in LEAKS else "must be one"
    told = {name: {"metadata": ["sex", column]}, "linear": {}}
    raw = {"name": "x", "data": {"modalities": ["derm", "clinic"]}, "downstream": told}
    study = Study.model_validate({**raw, "curriculum": {"length": [1, 1], "tasks": {"rotation": {}}},
                                  "objective": {"protocol": "linear"}})  # fmt: skip
    with pytest.raises(UserError, match=rf"^downstream\.{name}\.metadata: '{column}' is no input: .*{why}"):
        check(study)
    with pytest.raises(UserError, match="is no input"):
        configure(name, {"metadata": [column]})


def test_metadata_are_ones_and_zeros(store):
    module = pairs.system("inception_combined", store)
    given = pairs.batches(module, store, np.arange(32))
    table = module.table(given)
    assert table.shape == (32, sum(module.columns.values())) and list(module.columns) == ["sex", "site", "elevation"]
    start = 0
    for name, size in module.columns.items():
        told, part = store.metadata(name)[:32], table[:, start : start + size]
        for row, word in zip(part, told, strict=True):
            place = None if word is None else store.columns[name].vocabulary.index(word)
            assert row.nonzero()[:, 0].tolist() == ([] if place is None else [place])
        start += size
    with pytest.raises(
        UserError, match=r"^inception_combined.metadata: the cases have no column 'sex'; they have none"
    ):
        FITS.find("inception_combined")(module.encoders, module.config, replace(module.setting, words={}))


def gradients(name: str, folder: str) -> dict[str, Any]:
    """Of a step of sixteen cases, in double precision, as the mean over the processes."""
    torch.set_num_threads(1)
    module = across_processes(pairs.system(name, CaseStore(folder)).double().train())
    module.before_step(60)
    given = pairs.batches(module, CaseStore(folder), np.arange(16), 64)
    for place, batch in enumerate(given.values(), 1):  # some cases lack an image, more of them on one process
        batch.pool._own = (np.arange(len(batch.pool)) % 5 != place) & (np.arange(len(batch.pool)) != 3 + place)
    with pytest.MonkeyPatch.context() as patch:
        look = type(module).look
        patch.setattr(type(module), "look", lambda self, b, p: look(self, b, {m: x.double() for m, x in p.items()}))
        losses = module.loss(given)
    value = sum(loss.value for loss in losses.values())
    value.backward()
    found = {n: world.reduce_sum(p.grad) / world.size() for n, p in module.named_parameters() if p.grad is not None}
    return {"loss": float(world.reduce_sum(value.detach()) / world.size()), "gradients": found}


@every_system
def test_two_processes_have_the_gradients_of_one(name, store, two: Group):
    arguments = name, str(store.folder)
    one, (first, _) = gradients(*arguments), two(gradients, *arguments)
    assert first["loss"] == pytest.approx(one["loss"], rel=1e-9)
    for key, gradient in one["gradients"].items():
        torch.testing.assert_close(first["gradients"][key], gradient, rtol=1e-6, atol=1e-9, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(s, marks=() if s == "baseline" else pytest.mark.long) for s in pairs.SYSTEMS]
)
def test_it_learns_32_pairs_by_heart(name, store):
    fit = FITS.find(name)
    config = {"epochs": 60, "batch": 16, "lr": 2e-3} | ({"aside": 0.0} if name.startswith("fusion") else {})
    config |= {"fusion_m4net": {"views": False}, "amfam": {"recipe": "common", "epochs": 150}}.get(name, {})
    with pytest.MonkeyPatch.context() as patch:
        for each in (fit, System):
            patch.setattr(each, "views", lambda self, size: (View(size), View(size)))
        patch.setattr(GlobalDropout, "forward", lambda self, x: x)
        made = Encoders.random("test_resnet", ("derm", "clinic"), "separate", 3)
        rows = np.arange(pairs.CASES)
        where = Kept(), lambda row: None, CPU, "fp32", Look(pairs.SIDE)
        part = train_fit(name, config, 7, {}, made, store, rows, *where).parts[PREDICTOR]
    told = predict_fit(part, store, rows, Look(pairs.SIDE), CPU, "fp32")
    right = {label: float((p.argmax(1) == store.label(label)[rows]).mean()) for label, p in told.items()}
    assert min(right.values()) > 0.95, right


def test_a_study_of_systems_is_accepted():
    text = """
    name: systems
    data: {own: {modalities: [derm, clinic]}, common: {modalities: [derm, clinic]}}
    encoder: {name: resnet10t, branches: separate}
    curriculum: {length: [1, 1], tasks: {paired_contrast: {lr: 0.001}}}
    train: {epochs: 2, batch: 16}
    downstream:
      baseline@common: {recipe: common, epochs: 3}
      fusion_m4net@own: {epochs: 3, labelled: [5, all]}
      fusion_m4net@common: {recipe: common, views: true, search: auc}
      inception_combined@own: {metadata: [sex, site]}
      metadata_only@own: {}
    objective: {protocol: baseline@common, metric: named_auc, label: mean}
    """
    check(Study.model_validate(yaml.safe_load(text)))
