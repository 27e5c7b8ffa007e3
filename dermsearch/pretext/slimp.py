"""SLIMP: a lesion's image and its metadata belong together, and a patient's lesions and theirs. (Christopoulos et al.)

View    one of each image: resized crop, flips, a rotation, weak jitter without hue, since colours are in the table.
Tables  of a lesion: columns of that level, or all (`table`). Of a patient: the patient's columns, of numbers the
        median, of words the most frequent over the cases that are trained on. Of both all that the study names, or
        some (`columns`). Each level has an encoder, see `models.tables`.
Inner   InfoNCE both ways between each lesion's image and its table, over all lesions of the batch.
Outer   the same between each patient's phenotype and table; a phenotype is the lesions' image features and encoded
        tables side by side, pooled over the patient's lesions in the batch.
Loss    weight x inner + (1 - weight) x outer. With weight 1 nothing of patients is built.
Batches of patients with `lesions` of each; who has fewer comes again, and what comes again counts once. Where no
        patient is known, or lesions is 0, cases are drawn as they come.

A lesion without an image, or without any known value, is not in the inner loss; it tells its patient what it has. A
patient without any known value is not in the outer one. With several modalities the inner loss is the mean over them.
Equal rows are negatives of each other by name only: `inner_floor` is what they make unavoidable, `inner_above` the
rest; `equal: drop` leaves them out of the denominators.

The stage hands on encoders and projectors of tables, and temperatures that it has learnt. The next slimp stage begins
with them, of encoders column by column; `frozen` lets it learn embedding layers alone, the paper's continual step:
`blocks` keeps all inside the transformers' blocks and the last norm, `attention` their attention alone, and of a
CNN all but the first convolution and its norm.

What is known of the paper, and what is our own, stands in docs/slimp.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.case import Column
from dermsearch.data.store.columns import Table
from dermsearch.data.views.augment import View
from dermsearch.errors import UserError, nearest
from dermsearch.models.artifact import TABLES, Part
from dermsearch.models.contrast import floor, info_nce
from dermsearch.models.encoders import is_vit
from dermsearch.models.nested import LESION, PATIENT, Nested
from dermsearch.pretext.base import Batch, JointTask, Loss, Setting, Settings
from dermsearch.pretext.batch import Pool
from dermsearch.pretext.patients import patient_order

INNER, OUTER = "inner", "outer"  # the contrasts
ALL = "all"  # columns


def unset(value: object) -> bool:
    """Of a setting that came later, and is in a key only where it is given."""
    return value is None


class Slimp(JointTask):
    """Contrast of images with metadata, of lesions and of patients."""

    name = "slimp"
    least = 1
    tables = True
    supervised_by = "positive"
    composes = True
    train_defaults: ClassVar = {
        "optimizer": "adamw",
        "lr": 3e-4,
        "lr_batch": 512,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup": 0.05,
    }

    class Config(Settings):
        """None of these numbers is the paper's, which tells none: they are those of its nearest relatives."""

        weight: float = Field(0.5, ge=0, le=1)  # of the lesions' loss; the patients' has the rest
        temperature: float = Field(0.1, ge=0.01, le=10)  # of both contrasts, or where they begin
        outer_temperature: float | None = Field(None, ge=0.01, le=10, exclude_if=unset)  # of the patients', if another
        learnt: bool = False  # the temperatures are, one of each level, from there on; between 0.01 and 1
        # Where learnt ones begin behind a stage that has learnt them too: where that left off, or as is given here.
        begin: Literal["handed_on", "given"] = "handed_on"
        direction: float = Field(0.5, ge=0, le=1)  # the share of image -> table, and of phenotype -> table
        equal: Literal["keep", "drop"] = "keep"  # rows that are equal, among the negatives of each other
        table: Literal["lesion", "all"] = "lesion"  # all: the patient's columns too are in the lesion's table
        columns: str = Field(ALL, exclude_if=ALL.__eq__)  # of data.metadata those that are read, such as "age, sex"
        corrupt: float = Field(0.0, ge=0, lt=1)  # chance of a value of the lesion's table to be another case's
        aggregate: Literal["features", "projections"] = "features"  # what is pooled: of the encoders, or projected
        normalise_first: bool = False  # to length one, before they are pooled
        pool: Literal["mean", "max", "attention"] = "mean"  # how a patient's lesions become one
        lesions: int = Field(16, ge=0, le=10_000)  # of each patient in a batch; 0: cases as they come
        patients: Literal["uniform", "by_lesions"] = "uniform"  # how they are drawn
        positive: str | None = None  # LABEL=CLASS: a drawn patient's lesions of it come first. This reads labels
        tokens: Literal["column", "trace"] = "column"  # of numbers
        missing: Literal["token", "zero"] = "token"  # what stands for a value that is not known: a learnt vector, or 0
        # What of a table is taken: the mean of its columns, or a token of its own.
        readout: Literal["mean", "cls"] = "mean"
        width: int = Field(128, ge=2, le=65536)  # of encoded tables
        layers: int = Field(1, ge=1, le=100)  # of the transformer over a table
        heads: int = Field(2, ge=1, le=1024)  # of its attention
        out: int = Field(128, ge=2, le=65536)  # width of what is compared
        frozen: Literal["none", "blocks", "attention"] = "none"  # what stays as it was handed on
        scale: float = Field(0.5, gt=0, le=1)  # smallest share of the image that a crop takes
        strength: float = Field(0.2, ge=0, le=1)  # of brightness, contrast and saturation
        rotate: float = Field(45.0, ge=0, le=180)  # degrees either way

        @field_validator("columns")
        @classmethod
        def _listed(cls, value: str) -> str:
            names = [name.strip() for name in value.split(",")]
            if not all(names):
                raise ValueError(f"must be columns of data.metadata with commas between them, not '{value}'")
            return ", ".join(dict.fromkeys(names))

        @model_serializer(mode="wrap")
        def deciding(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
            """Where learnt temperatures begin decides nothing of others, so it is in their keys alone."""
            found: dict[str, Any] = whole(self)
            return found if self.learnt else {name: value for name, value in found.items() if name != "begin"}

        @property
        def temperatures(self) -> dict[str, float]:
            """Of each contrast that the weight asks for."""
            outer = self.temperature if self.outer_temperature is None else self.outer_temperature
            return ({INNER: self.temperature} if self.weight > 0 else {}) | ({OUTER: outer} if self.weight < 1 else {})

    def __init__(self, backbones: nn.ModuleDict, config: Any, setting: Setting) -> None:
        super().__init__(backbones, config, setting)
        c, strength = config, config.strength
        self.view = View(
            setting.size, scale=(c.scale, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, vflip=0.5, rotate=c.rotate,
            jitter=(strength, strength, strength, 0.0), jitter_p=0.8,
        )  # fmt: skip
        chosen = chosen_columns(c, setting.columns)
        columns = {LESION: lesion_columns(c, chosen)}
        columns |= {PATIENT: of_level(chosen, PATIENT)} if c.weight < 1 else {}
        alike = c.model_dump(include={"width", "layers", "heads", "tokens", "missing", "readout"})
        levels = {level: {"columns": [asdict(x) for x in own], **alike} for level, own in columns.items()}
        self.names = {level: tuple(x.name for x in own) for level, own in columns.items()}
        about = {"out": c.out, "inner": c.weight > 0, "aggregate": c.aggregate, "pool": c.pool}
        scales = {level: -math.log(warmth) for level, warmth in c.temperatures.items() if c.learnt}
        self.nested = Nested(setting.dim, list(backbones), levels, **about, scales=scales)
        if c.frozen != "none" and not setting.artifact:
            raise UserError(f"slimp: frozen: {c.frozen} goes on from trained encoders; these begin with random weights")
        taken = self.nested.take_over(setting.artifact, c.begin == "handed_on")
        self.still = self.kept_still(taken)

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """There are columns and patients for what the weight asks for, and batches hold patients whole."""
        if config.width % config.heads:
            raise UserError(f"width: must be a multiple of heads ({config.heads}), not {config.width}")
        for level, warmth in config.temperatures.items():
            if config.learnt and warmth > 1:
                field = "temperature" if level == INNER or config.outer_temperature is None else "outer_temperature"
                raise UserError(f"{field}: must be at most 1 where it is learnt, not {warmth:g}")
        if config.frozen == "attention" and not is_vit(setting.encoder):
            raise UserError(
                f"encoder.name: must be a ViT for slimp with frozen: attention, not '{setting.encoder}'; frozen: "
                "blocks takes a CNN too"
            )
        if setting.patients == 0 and config.weight < 1:
            raise UserError(
                f"weight: must be 1, not {config.weight:g}: the cases' patients are not known, so there is no loss of "
                "patients"
            )
        if setting.patients == 1 and config.weight < 1:
            raise UserError(f"weight: must be 1, not {config.weight:g}: all training cases are of one patient")
        columns = chosen_columns(config, setting.columns)
        field = "data.metadata" if config.columns == ALL or not setting.columns else "columns"
        if not lesion_columns(config, columns):
            other = "; table: all takes those of the patient too" if columns else ""
            raise UserError(f"{field}: names no columns of the lesion, which slimp contrasts with its image{other}")
        if config.weight < 1 and not of_level(columns, PATIENT):
            raise UserError(
                f"{field}: names no columns of the patient, such as age, which slimp contrasts with the patient's "
                "lesions; without them its weight must be 1"
            )
        grouped = config.lesions > 0 and (setting.patients or (setting.patients is None and config.weight < 1))
        if grouped and setting.batch % config.lesions:
            raise UserError(f"lesions: must divide the {setting.batch} cases of a batch, not {config.lesions}")
        if grouped and config.weight < 1 and setting.batch < 2 * config.lesions:
            raise UserError(
                f"lesions: must be at most {setting.batch // 2}, so that a batch of {setting.batch} cases holds two "
                f"patients, not {config.lesions}"
            )
        if config.positive is not None and setting.names:
            label, _, name = config.positive.partition("=")
            if label not in setting.names:
                raise UserError(
                    f"positive: must be LABEL=CLASS of a label of the cases, not '{config.positive}'; "
                    f"{nearest(label, setting.names)}"
                )
            if name not in setting.names[label]:
                raise UserError(
                    f"positive: '{name}' is no class of '{label}'; choose from: {', '.join(setting.names[label])}"
                )

    def train(self, mode: bool = True) -> Slimp:
        """Norms of which nothing learns keep their statistics."""
        super().train(mode)
        still = {id(p) for p in getattr(self, "still", ())}
        for module in self.modules():
            own = list(module.parameters(recurse=False))
            if own and all(id(p) in still for p in own):
                module.eval()
        return self

    def kept_still(self, taken: set[str]) -> list[nn.Parameter]:
        """What does not learn; of encoders of tables, those that begin as another stage left them."""
        if self.config.frozen == "none":
            return []
        found = [p for b in self.backbones.values() for p in inner_layers(b, self.config.frozen == "attention")]
        for level in taken:
            for name, p in self.nested.levels[level].named_parameters():
                if name.startswith("blocks.") and (self.config.frozen == "blocks" or ".attention." in name):
                    found.append(p)
        return found

    def plan_epoch(self, epoch: int, pool: Mapping[str, Pool], count: int) -> dict[str, np.ndarray]:
        order = self.of_patients(epoch, pool, count)
        return super().plan_epoch(epoch, pool, count) if order is None else dict.fromkeys(pool, order)

    def plan_heldout(self, pool: Mapping[str, Pool], count: int) -> dict[str, np.ndarray]:
        order = self.of_patients(0, pool, count)
        return super().plan_heldout(pool, count) if order is None else dict.fromkeys(pool, order)

    def of_patients(self, epoch: int, pools: Mapping[str, Pool], count: int) -> np.ndarray | None:
        """Batches of patients; None where cases come by themselves."""
        c, pool = self.config, next(iter(pools.values()))
        units = np.arange(len(pool))
        patients = pool.patients(units)
        if not c.lesions or not (patients >= 0).any():
            return None
        first = None
        if c.positive is not None:
            label, _, name = c.positive.partition("=")
            first = pool.labels(label, units) == list(self.setting.names[label]).index(name)
        by, batch = c.patients == "by_lesions", self.setting.batch
        return patient_order(
            self.setting.seed, epoch, patients, pool.lesions(units), count, batch, c.lesions, by, first
        )

    def loss(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        c, nested = self.config, self.nested
        features = {b: self.backbones[b](batch.view(self.view, "view")) for b, batch in batches.items()}
        batch = next(iter(batches.values()))
        mine = world.mine(len(batch.units))
        once = first_times(batch.units)
        table = self.lesion_table(batch)
        parts: dict[str, Tensor] = {}
        with torch.autocast(batch.pool.device.type, enabled=False):  # similarities are divided by a tenth
            u = {b: x.to(torch.promote_types(x.dtype, torch.float32)) for b, x in features.items()}
            m = nested.levels[LESION](*(batch.on_device(x[mine]) for x in (table.values, table.known)))
            shares: dict[str, Tensor] = {}
            if c.weight > 0:
                w, kinds = nested.table_projection(m), equal_rows(table)
                for b, x in u.items():
                    told = once & table.known.any(axis=1) & batches[b].pool.there(batch.units)
                    z = nested.image_projection(x, b)
                    value = self.contrast(INNER, z, w, told, kinds, batch, parts, len(u))
                    shares[b] = c.weight * value / len(u)
            if c.weight < 1:
                outer = self.outer(batch, u, {b: each.there for b, each in batches.items()}, m, once, parts)
                shares = {b: shares.get(b, 0) + (1 - c.weight) * outer / len(u) for b in u}
        parts |= {f"{name}_scale": s.detach().exp() for name, s in nested.scales.items()}
        return {b: Loss(shares[b], features[b], {} if i else parts) for i, b in enumerate(features)}

    def outer(
        self,
        batch: Batch,
        features: Mapping[str, Tensor],
        there: Mapping[str, Tensor],
        encoded: Tensor,
        once: np.ndarray,
        parts: dict[str, Tensor],
    ) -> Tensor:
        """The loss of the whole batch's patients, on every process the same: lesions of one may be on several."""
        lesions = self.nested.lesions(features, there, encoded, self.config.normalise_first)
        everyone = world.gather_with_gradient(lesions)
        who = batch.pool.patients(batch.units)
        member = np.flatnonzero(once & (who >= 0))
        people = np.unique(who[member])
        if not len(people):  # the same modules take part in every step
            people, table = np.array([-1]), unknown(len(self.names[PATIENT]))
        else:
            table = batch.pool.people(self.names[PATIENT], people)
        place = batch.on_device(np.searchsorted(people, who[member]))
        phenotypes = self.nested.pooled(everyone[batch.on_device(member)], place, len(people))
        persons = self.nested.levels[PATIENT](batch.on_device(table.values), batch.on_device(table.known))
        assert self.nested.phenotype is not None and self.nested.person is not None
        a, b = self.nested.phenotype(phenotypes), self.nested.person(persons)
        with world.alone():
            return self.contrast(OUTER, a, b, np.any(table.known, axis=1), equal_rows(table), batch, parts)

    def contrast(
        self,
        level: str,
        a: Tensor,
        b: Tensor,
        valid: np.ndarray,
        kinds: np.ndarray,
        batch: Batch,
        parts: dict[str, Tensor],
        among: int = 1,
    ) -> Tensor:
        """One of the two losses; `valid` and `kinds` are of the global batch. `parts` are means `among` branches."""
        mine, c = world.mine(len(valid)), self.config
        learnt = self.nested.scales
        scale = learnt[level].exp() if level in learnt else 1 / c.temperatures[level]
        own = batch.on_device(valid[mine])
        alike = batch.on_device(kinds[mine]) if c.equal == "drop" else None
        value, hits = info_nce(a, b, scale, own, c.direction, alike)
        least = torch.full_like(hits, floor(kinds[valid]) if c.equal == "keep" else 0.0)
        told = {"": value.detach(), "_floor": least, "_above": value.detach() - least, "_found": hits}
        for name, number in told.items():
            parts[level + name] = parts.get(level + name, torch.zeros_like(number)) + number / among
        return value

    def lesion_table(self, batch: Batch) -> Table:
        """The global batch's, the same on every process; some values are those of other cases, where that is asked."""
        names, pool = self.names[LESION], batch.pool
        table = pool.table(names, batch.units)
        if not self.config.corrupt:
            return table
        drawn = batch.uniforms(batch.units, "corrupt", 2 * len(names))
        wrong, donor = np.split(drawn, 2, axis=1)
        wrong, donor = wrong < self.config.corrupt, (donor * len(pool)).astype(np.int64)
        values, known = table.values.copy(), table.known.copy()
        for j, name in enumerate(names):
            other, at = pool.table([name], donor[:, j]), wrong[:, j]
            values[at, j], known[at, j] = other.values[at, 0], other.known[at, 0]
        return Table(table.columns, values, known)

    def after_backward(self, step: int) -> None:
        for p in self.still:  # what has no gradient neither moves nor decays
            p.grad = None

    @torch.no_grad()
    def after_step(self, batch: Mapping[str, Batch]) -> None:
        for scale in self.nested.scales.values():
            scale.clamp_(0, math.log(100))

    def hands_on(self) -> dict[str, Part]:
        return {TABLES: self.nested.part()}


def chosen_columns(config: Any, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Those of the study that the task reads."""
    if config.columns == ALL or not columns:
        return columns
    wanted, known = config.columns.split(", "), [c.name for c in columns]
    for name in wanted:
        if name not in known:
            raise UserError(f"columns: '{name}' is not named in data.metadata; {nearest(name, known)}")
    return tuple(c for c in columns if c.name in wanted)


def lesion_columns(config: Any, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Those of the lesion's table."""
    return columns if config.table == "all" else of_level(columns, LESION)


def of_level(columns: tuple[Column, ...], level: str) -> tuple[Column, ...]:
    """Those of a level."""
    return tuple(c for c in columns if c.level == level)


def first_times(units: np.ndarray) -> np.ndarray:
    """Where each unit stands for the first time."""
    found = np.zeros(len(units), bool)
    found[np.unique(units, return_index=True)[1]] = True
    return found


def equal_rows(table: Table) -> np.ndarray:
    """A number for each row, the same for rows that are equal."""
    if not len(table.values):
        return np.zeros(0, np.int64)
    rows = np.concatenate([np.where(table.known, table.values, 0), table.known], axis=1)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def unknown(columns: int) -> Table:
    """One row of which nothing is known."""
    return Table((), np.zeros((1, columns), np.float32), np.zeros((1, columns), bool))


def inner_layers(backbone: nn.Module, attention: bool) -> list[nn.Parameter]:
    """Of a transformer what is not its embedding layers, or its attention alone; of another all but the stem."""
    named = list(backbone.named_parameters())
    if isinstance(backbone, VisionTransformer):
        kinds = (".attn.",) if attention else ("blocks.", "norm.", "fc_norm.")
        return [p for n, p in named if (kinds[0] in n if attention else n.startswith(kinds))]
    stem: list[nn.Module] = []
    for module in backbone.modules():
        if not stem and isinstance(module, nn.Conv2d):
            stem = [module]
        elif stem and "norm" in type(module).__name__.lower():
            stem.append(module)
            break
    learns = {id(p) for module in stem for p in module.parameters()}
    return [p for _, p in named if id(p) not in learns]
