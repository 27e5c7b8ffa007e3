"""SSD-KD: phases, what learns in each, six terms, and a teacher of any kind."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretext import tiny
from safetensors.torch import save_file

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.distil import weighted_classes
from dermsearch.models.encoders import backbone
from dermsearch.pretext.base import Batch, Material, Setting
from dermsearch.pretext.ssd_kd import LEARNING, ROTATING, SSDKD, TEACHING, by_case, look

TERMS = {"classes", "answers", "turned", "similarity", "distances", "angles", "gram"}
WEIGHTS = {"classes": 0.1, "answers": 0.9, "turned": 2.7, "similarity": 10, "distances": 25, "angles": 50, "gram": 1000}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store", missing={"clinic": [3]})


SEVEN = {label: (16,) * len(names) for label, names in SEVEN_POINT.items()}


def task(**config) -> SSDKD:
    made = tiny.encoders("ssd_kd")
    setting = Setting(48, 32, made.dim, 8, 0, "test_resnet", epochs=10, modalities=("derm", "clinic"),
                      counts={"diagnosis": (16, 16, 16)})  # fmt: skip
    torch.manual_seed(0)
    return SSDKD(made.backbones, SSDKD.Config(**config), setting)


def batches(module: SSDKD, store: CaseStore, units: np.ndarray) -> dict[str, Batch]:
    pools = module.pools(Material(tiny.encoders("ssd_kd"), store, np.arange(48), tiny.CPU))
    return {b: Batch(units, pool, 32, 0, 0, 0) for b, pool in pools.items()}


def test_weights_are_the_authors():
    config = SSDKD.Config()
    assert {name: getattr(config, name) for name in WEIGHTS} == WEIGHTS
    assert (config.temperature, config.sharpness) == (4, 0.5)
    assert SSDKD.supervised and SSDKD.train_defaults["lr"] == 1e-3 and SSDKD.train_defaults["weight_decay"] == 1e-3


def test_parameters_of_the_authors_student_and_teacher():
    setting = Setting(48, 32, 1280, 8, 0, "mobilenetv2_100", epochs=10, modalities=("derm",), counts=SEVEN)
    with torch.device("meta"):
        backbones = torch.nn.ModuleDict({"derm": backbone("mobilenetv2_100")})
        made = SSDKD(backbones, SSDKD.Config(teacher="resnet50"), setting)
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in made.named_children()}
    assert (count["widen"], count["rotation"], count["own_rotation"]) == (2_627_584, 8_392_704, 3_279_360)


def test_a_mobilenets_last_map_is_the_one_that_it_pools():
    torch.manual_seed(0)
    net = backbone("mobilenetv2_100").eval()
    last, features = look(net, torch.rand(2, 3, 64, 64))
    assert last.shape == (2, 1280, 2, 2)
    torch.testing.assert_close(last.mean((2, 3)), features)


def test_classes_of_a_student_of_eight_labels_that_knows_nothing():
    setting = Setting(48, 32, 96, 8, 0, "test_resnet", epochs=10, modalities=("derm",), counts=SEVEN)
    made = SSDKD(torch.nn.ModuleDict({"derm": backbone("test_resnet")}), SSDKD.Config(), setting)
    logits, truth = [torch.zeros(8, len(n)) for n in SEVEN.values()], torch.zeros(8, 8, dtype=torch.int64)
    value = made.config.classes * weighted_classes(logits, truth, made.weights)
    assert value.item() == pytest.approx(0.106110, abs=1e-5)


@pytest.mark.parametrize(
    ("epoch", "phase"), [(0, TEACHING), (3, TEACHING), (4, ROTATING), (5, ROTATING), (6, LEARNING), (9, LEARNING)]
)
def test_who_learns_in_an_epoch(epoch, phase, store):
    module = task()
    module.train()
    module.enter_epoch(epoch)
    assert module.phase == phase
    before = {n: w.clone() for n, w in module.state_dict().items()}
    losses = module.loss(batches(module, store, np.arange(8)))
    sum(loss.value for loss in losses.values()).backward()
    module.after_backward(0)
    torch.optim.SGD(module.parameters(), 0.1, weight_decay=0.1).step()
    moved = {n.split(".")[0] for n, w in module.state_dict().items() if not torch.equal(w, before[n])}
    assert (
        moved
        == {
            TEACHING: {"teachers", "teacher"},
            ROTATING: {"rotation"},
            LEARNING: {"backbones", "student", "own_rotation", "widen"},
        }[phase]
    )


def test_all_six_terms_are_there_with_their_weights(store):
    module = task(teaching=0.0, rotating=0.0)
    given = batches(module, store, np.arange(8))
    module.enter_epoch(0)
    losses = module.loss(given)
    parts = losses["derm"].parts
    assert parts.keys() == TERMS
    value = sum(loss.value for loss in losses.values())
    torch.testing.assert_close(value, torch.stack(list(parts.values())).sum())
    for name in TERMS:
        none = task(teaching=0.0, rotating=0.0, **{name: 0.0})
        none.load_state_dict(module.state_dict())
        none.enter_epoch(0)
        less = sum(loss.value for loss in none.loss(given).values())
        torch.testing.assert_close(value - less, parts[name], atol=1e-3, rtol=1e-3)


def test_the_loss_of_classes_of_a_student_that_knows_nothing(store):
    module = task()
    for p in module.student.parameters():
        torch.nn.init.zeros_(p)
    parts = module.loss(batches(module, store, np.arange(8)))["derm"].parts
    assert parts["classes"].item() == pytest.approx(0.1 * np.log(3), abs=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_but_labels(store):
    module = task().eval()
    module.student.load_state_dict(module.teacher.state_dict())
    module.own_rotation.load_state_dict(module.rotation.state_dict())
    parts = module.loss(batches(module, store, np.arange(8)))["derm"].parts
    for name in ("answers", "turned", "similarity", "distances", "angles"):
        assert parts[name].item() == pytest.approx(0, abs=1e-4), name
    assert parts["classes"] > 0.01


def test_copies_are_turned_alike_in_both_images(store):
    module = task()
    given = batches(module, store, np.arange(3))
    module.view = type(module.view)(32)
    for batch in given.values():
        rows = by_case(module.copies(batch).flatten(1)).unflatten(2, (3, 32, 32))
        for r in range(4):
            torch.testing.assert_close(rows[:, r], torch.rot90(batch.whole(), r, (2, 3)), atol=0.02, rtol=0)


def test_the_student_is_handed_on():
    module = task()
    assert module.handed_on() is module.backbones


def test_a_teacher_of_another_architecture_and_from_a_file(store, tmp_path):
    path = tmp_path / "teacher.safetensors"
    made = backbone("resnet10t")
    save_file(made.state_dict(), path)
    told = hashlib.sha256(path.read_bytes()).hexdigest()
    module = task(teacher="resnet10t", file=str(path), sha256=told)
    for key, weight in module.teachers["clinic"].state_dict().items():
        assert torch.equal(weight, made.state_dict()[key]), key
    module.enter_epoch(9)
    losses = module.loss(batches(module, store, np.arange(8)))
    assert all(loss.value.isfinite() for loss in losses.values())
    with pytest.raises(UserError, match=rf"^ssd_kd.sha256: '.*' has {told}, not {'0' * 64}$"):
        task(teacher="resnet10t", file=str(path), sha256="0" * 64)
    with pytest.raises(UserError, match="has none: there is no such file, not"):
        task(teacher="resnet10t", file=str(tmp_path / "no.pth"), sha256=told)


def test_a_file_without_a_name_holds_the_students_own_architecture(tmp_path):
    path = tmp_path / "teacher.safetensors"
    made = backbone("test_resnet")
    save_file(made.state_dict(), path)
    module = task(file=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    for key, weight in module.teachers["derm"].state_dict().items():
        assert torch.equal(weight, made.state_dict()[key]), key


def test_a_file_of_another_architecture_is_told_by_its_own_fields(tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_file(backbone("test_resnet").state_dict(), path)
    told = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with pytest.raises(UserError, match=r"^ssd_kd\.file: '.*' does not fit ssd_kd\.teacher, 'resnet10t': it has"):
        task(teacher="resnet10t", **told)


@pytest.mark.parametrize(("teaching", "rotating", "epochs"), [(0.5, 0.4, 2), (0.6, 0.3, 5), (0.95, 0.0, 5)])
def test_shares_that_leave_the_student_no_epoch_are_refused(teaching, rotating, epochs):
    config, setting = SSDKD.Config(teaching=teaching, rotating=rotating), Setting(48, 32, 0, 8, 0)
    with pytest.raises(UserError, match=rf"^teaching: must leave .* not {teaching} \+ {rotating} of {epochs} epochs, "):
        SSDKD.check(config, replace(setting, epochs=epochs))
    SSDKD.check(config, replace(setting, epochs=20))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"teaching": 0.8, "rotating": 0.2}, "teaching: must leave epochs to the student"),
        ({"file": "x.pth"}, "sha256: goes with file"),
        ({"sha256": "0" * 64}, "sha256: goes with file"),
    ],
)
def test_what_cannot_be_is_refused(config, said):
    with pytest.raises(UserError, match=said):
        SSDKD.check(SSDKD.Config(**config), Setting(48, 32, 0, 8, 0))


def test_a_whole_stage_goes_through_all_phases(store):
    made, history = tiny.stage("ssd_kd"), None
    stage = type(made)("ssd_kd", {}, made.backbone)
    _, history = stage.train(store, epochs=5, lr=0.005)
    parts = [set(row["parts"]) for row in history]
    names = [{p.split(".")[1] for p in row} for row in parts]
    assert names == [{"teacher"}, {"teacher"}, {"rotation"}, TERMS, TERMS] and json.dumps(history)
