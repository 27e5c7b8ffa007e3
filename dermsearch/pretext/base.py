"""The contract of a pretext task, and the registry that finds one by name.

A task is a module over one backbone and one pool of images. It knows nothing of modalities, workers or
resuming: the trainer gives each branch of the encoders a task of its own, hands every process its rows of
the global batch, and saves the module's state dict after each epoch. In return a task draws no random
numbers of its own (views and dropout are numbered) and keeps whatever it remembers in buffers. A joint task
is the exception that pairs modalities: one module over all branches, and its units are cases.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.store.pool import CasePool, Look, PairedPool
from dermsearch.data.views.augment import PatchGrid, View, patches, plain, render
from dermsearch.data.views.blockmask import BlockMask, masks
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import UserError, nearest
from dermsearch.models.artifact import Artifact, Part
from dermsearch.models.encoders import Encoders
from dermsearch.numbers import uniforms
from dermsearch.settings import Settings

if TYPE_CHECKING:
    from dermsearch.data.store.case_store import CaseStore

JOINT = "joint"  # the name of a task on all branches, among the branches' names


@dataclass(frozen=True)
class Setting:
    """What a task may know of the stage that it trains in."""

    units: int  # images in the pool
    size: int  # side of an image
    dim: int  # width of the backbone's features; 0 where only `check` asks
    batch: int  # images of all processes that one loss sees: a micro-batch where gradients are accumulated
    seed: int
    encoder: str = "resnet18"  # the backbone's timm name
    epochs: int = 1
    steps: int = 1  # of the whole stage
    classes: Mapping[str, int] = field(default_factory=dict)  # how many, by label; empty where that is not known yet
    modalities: tuple[str, ...] = ()  # of the encoders' branches, in their order
    artifact: Artifact = field(default_factory=dict)  # what the parent handed on, its encoders too
    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of each class, by label; `supervised` only


class Pool(Protocol):
    """The images of one branch: units -> their pictures on the device."""

    def pixels(self, units: np.ndarray) -> Pictures: ...

    def labels(self, name: str, units: np.ndarray) -> np.ndarray: ...

    def there(self, units: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Batch:
    """One step's global batch (or a micro-batch of it), seen from one process."""

    units: np.ndarray  # (B,) of the global batch, the same on every process
    pool: Pool
    size: int
    seed: int
    epoch: int
    step: int  # counted from the start of the stage

    @property
    def own(self) -> np.ndarray:
        """The units of this process."""
        return self.units[world.mine(len(self.units))]

    @cached_property
    def pictures(self) -> Pictures:
        """What this process's units look like: fetched once, however many views a step takes of them."""
        return self.pool.pixels(self.own)

    def view(self, view: View, use: str, units: np.ndarray | None = None) -> Tensor:
        """Pictures as `view` declares them, of this process's units unless others are named.

        They depend on (seed, epoch, unit, use) alone, so any process can make any unit's.
        """
        return self.views([view], use, units)[0]

    def views(self, views: Sequence[View], use: str, units: np.ndarray | None = None) -> list[Tensor]:
        """Several crops of the same pictures, each with random numbers of its own: `[large] * 2 + [small] * 6`."""
        pictures, units = self.pictures_of(units)
        numbers = (self.uniforms(units, f"{use}/{i}", View.numbers) for i in range(len(views)))
        return [render(view, pictures, u) for view, u in zip(views, numbers, strict=True)]

    def whole(self) -> Tensor:
        """Whole pictures of this process's units, as encoders are judged on."""
        return plain(self.pictures, self.size)

    def patches(self, grid: PatchGrid, use: str) -> Tensor:
        """(b, 9, 3, p, p) patches of this process's units."""
        return patches(grid, self.pictures, self.uniforms(self.own, use, PatchGrid.numbers))

    def masks(self, blocks: BlockMask, use: str) -> Tensor:
        """Bool (b, height, width) on the device, True where a patch of this process's units is hidden."""
        found = masks(blocks, self.uniforms(self.own, use, BlockMask.numbers))
        return torch.from_numpy(found).to(self.pictures.pixels.device, non_blocking=True)

    def pictures_of(self, units: np.ndarray | None) -> tuple[Pictures, np.ndarray]:
        """Pictures of these units, from those at hand if they are this process's."""
        own = self.own
        if units is None:
            return self.pictures, own
        order = own.argsort(kind="stable")
        rows = order[np.searchsorted(own, units, sorter=order).clip(max=len(own) - 1)]
        at_hand = np.array_equal(own[rows], units)
        return self.pictures.take(rows) if at_hand else self.pool.pixels(units), units

    def labels(self, name: str) -> Tensor:
        """int64 (b,) of this process's units on the device, -1 where a case has none; for `supervised` tasks alone."""
        found = torch.from_numpy(self.pool.labels(name, self.own).astype(np.int64))
        return found.to(self.pictures.pixels.device, non_blocking=True)

    @property
    def there(self) -> Tensor:
        """Bool (b,) on the device: False where a case lacks this image, and another case's stands in for it."""
        return torch.from_numpy(self.pool.there(self.own)).to(self.pictures.pixels.device, non_blocking=True)

    def uniforms(self, units: np.ndarray, use: str, count: int) -> np.ndarray:
        """(n, count) random numbers of these units in this epoch."""
        return uniforms(self.seed, self.epoch, units, use, count)

    def permutation(self, use: str) -> np.ndarray:
        """A shuffle of the global batch's rows, the same on every process."""
        return uniforms(self.seed, self.step, np.arange(len(self.units)), use, 1)[:, 0].argsort()


@dataclass(frozen=True)
class Loss:
    """A step's loss over this process's rows, so that the mean over processes is the global batch's loss."""

    value: Tensor
    embedding: Tensor  # (b, dim) backbone features, watched for collapse
    parts: dict[str, Tensor]  # what else is worth a column in the history


class Whole(Protocol):
    """What a joint task may ask: outputs on every whole image of a branch, and whether the case has that image."""

    def __call__(self, branch: str, module: nn.Module) -> Tensor: ...

    def there(self, branch: str) -> np.ndarray: ...


Given = TypeVar("Given")  # to a task at every step: a batch, or one of each branch
Found = TypeVar("Found")  # by it: a loss, or each branch's share
Seen = TypeVar("Seen")  # before an epoch: what gives outputs on whole images


class Pretext(nn.Module, Generic[Given, Found, Seen]):
    """What every pretext task is, `Task` or `JointTask`, and a `fit.base.Fit` too. One file shows one task whole."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # part of the stage key: raise it when results change
    Config: ClassVar[type[Settings]]
    # The authors' optimiser; `lr` is for a batch of `lr_batch`.
    train_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    replacement: ClassVar[bool] = False  # are the images of an epoch drawn with replacement?
    indexed: ClassVar[bool] = False  # does it remember something of each training image, and has no loss on others?
    supervised: ClassVar[bool] = False  # does it read labels? Then it may only come last in a curriculum
    tables: ClassVar[bool] = False  # does it read metadata, the columns of `data.metadata`?
    joint: ClassVar[bool] = False  # does it look at all branches together? See `JointTask`

    config: Any
    setting: Setting

    @classmethod
    def check(cls, config: Any, setting: Setting) -> None:
        """Raise UserError when this task cannot work in this setting. Called before anything starts."""

    @classmethod
    def cost(cls, config: Any, size: int) -> float:
        """Passes through the backbone per image, in whole images forward and backward; what `plan` counts."""
        return 1.0

    @classmethod
    def sampling(cls, config: Any, labels: Callable[[str], np.ndarray]) -> np.ndarray | None:
        """Chances of the pool's units to be drawn, with replacement; `labels(name)` are theirs. None: all alike."""
        return None

    @classmethod
    def pools(
        cls, encoders: Encoders, cases: CaseStore, rows: np.ndarray, device: torch.device, look: Look | None
    ) -> dict[str, CasePool]:
        """By name, the images of rows of a store that it trains on; losses and batches have these names too."""
        raise NotImplementedError(cls.__name__)

    @classmethod
    def over(cls, encoders: Encoders, config: Any, told: Mapping[str, Setting]) -> Mapping[str, AnyTask]:
        """The tasks of a stage on these encoders: one, or one of each branch; `told` is by the names of the pools."""
        raise NotImplementedError(cls.__name__)

    @classmethod
    def batch_of(cls, asked: int, units: int) -> int:
        """The batch of a step, where so large a one is asked for and the smallest pool has so many units."""
        return min(asked, units)

    def begin(self, features: Seen) -> None:
        """Once, before the first epoch. `features(module)` is its eval-mode output on every whole image of the pool."""

    def begin_epoch(self, epoch: int, features: Seen) -> None:
        """Before an epoch's first step, in a resumed stage too; `features` as in `begin`."""

    def before_step(self, step: int) -> None:
        """Before a step's forward pass, counted from the start of the stage: momentum encoders move here."""

    def loss(self, batch: Given) -> Found:
        """The loss of this process's rows."""
        raise NotImplementedError(type(self).__name__)

    def after_backward(self, step: int) -> None:
        """When gradients are there: what is frozen in this step loses its own here (`p.grad = None`)."""

    def after_step(self, batch: Given) -> None:
        """After the optimiser's step, with its last micro-batch: queues and banks move here, and slow copies."""

    def after_micro(self, batch: Given) -> None:
        """After a micro-batch that is not its step's last (`train.accumulate`): queues and banks move here too."""

    def hands_on(self) -> dict[str, Part]:
        """What the stage hands on beside its encoders, by kind, for whoever knows what to do with it.

        Asked of a task that is the only one of its stage: a joint one, or one on the only branch.
        """
        return {}

    def options(self) -> dict[str, dict[str, float]]:
        """Optimiser options by parameter-name prefix, where a part of the task has its own."""
        return {}

    def forward(self, batch: Given) -> Found:
        return self.loss(batch)


class Task(Pretext[Batch, Loss, Callable[[nn.Module], Tensor]]):
    """A task on one backbone and one pool: every branch of the encoders has its own."""

    def __init__(self, backbone: nn.Module, config: Any, setting: Setting) -> None:
        super().__init__()
        self.backbone, self.config, self.setting = backbone, config, setting

    @classmethod
    def pools(
        cls, encoders: Encoders, cases: CaseStore, rows: np.ndarray, device: torch.device, look: Look | None
    ) -> dict[str, CasePool]:
        """By branch, all images that it sees."""
        return {b: CasePool(cases, seen, rows, device, look) for b, seen in encoders.branches.items()}

    @classmethod
    def over(cls, encoders: Encoders, config: Any, told: Mapping[str, Setting]) -> Mapping[str, Task]:
        return {b: cls(encoders.backbones[b], config, told[b]) for b in encoders.branches}

    def handed_on(self) -> nn.Module:
        """The backbone that the next stage begins with and that is judged: a teacher, where that is the better one."""
        return self.backbone


class JointTask(Pretext[Mapping[str, Batch], dict[str, Loss], Whole]):
    """A task on all branches of the encoders at once. Its units are cases: a batch of every branch shows the same ones.

    Views are drawn for every branch by itself. `batch.there` tells which rows are of cases that have the image. The
    loss is the sum of the branches' shares.
    """

    joint = True

    def __init__(self, backbones: nn.ModuleDict, config: Any, setting: Setting) -> None:
        super().__init__()
        self.backbones, self.config, self.setting = backbones, config, setting

    @classmethod
    def pools(
        cls, encoders: Encoders, cases: CaseStore, rows: np.ndarray, device: torch.device, look: Look | None
    ) -> dict[str, CasePool]:
        """By branch, the same cases in each."""
        seen = encoders.modalities
        return {b: PairedPool(cases, m, rows, device, look, seen) for b, (m, *_) in encoders.branches.items()}

    @classmethod
    def over(cls, encoders: Encoders, config: Any, told: Mapping[str, Setting]) -> Mapping[str, JointTask]:
        return {JOINT: cls(encoders.backbones, config, next(iter(told.values())))}

    def handed_on(self) -> nn.ModuleDict:
        """The backbones by branch that the next stage begins with and that are judged."""
        return self.backbones


AnyTask = Pretext[Any, Any, Any]

TASKS = {
    "relative_location": "dermsearch.pretext.relative_location:RelativeLocation",
    "moco_v2": "dermsearch.pretext.moco_v2:MoCoV2",
    "odc": "dermsearch.pretext.odc:ODC",
    "simclr": "dermsearch.pretext.simclr:SimCLR",
    "byol": "dermsearch.pretext.byol:BYOL",
    "swav": "dermsearch.pretext.swav:SwAV",
    "dino": "dermsearch.pretext.dino:DINO",
    "ibot": "dermsearch.pretext.ibot:IBOT",
    "rotation": "dermsearch.pretext.rotation:Rotation",
    "colorme": "dermsearch.pretext.colorme:ColorMe",
    "joint_supervised": "dermsearch.pretext.joint_supervised:JointSupervised",
    "paired_contrast": "dermsearch.pretext.paired_contrast:PairedContrast",
    "pseudo_labels": "dermsearch.pretext.pseudo_labels:PseudoLabels",
}


def task_names() -> list[str]:
    """Every task that a study may name: the shipped ones and those of installed packages."""
    return sorted({*TASKS, *(e.name for e in entry_points(group="dermsearch.tasks"))})


def find_task(name: str) -> type[AnyTask]:
    """The task of that name."""
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for entry in entry_points(group="dermsearch.tasks", name=name):
        return entry.load()
    raise UserError(f"'{name}' is not a task; {nearest(name, task_names())}")


@torch.no_grad()
def all_features(
    module: nn.Module, pool: Pool, units: int, size: int, autocast: Callable[[], Any], batch: int = 256
) -> Tensor:
    """Eval-mode output of `module` on every whole image of a pool, float32, the same on every process."""
    was = module.training
    module.eval()
    rows = []
    for start in range(0, units, batch):
        with autocast():
            x = plain(pool.pixels(np.arange(start, min(start + batch, units))), size)
            rows.append(module(x).float())
    module.train(was)
    return torch.cat(rows)
