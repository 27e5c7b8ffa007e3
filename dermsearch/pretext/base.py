"""The contract of a pretext task, and the registry that finds one by name.

A task is a module over one backbone and one pool of images. It knows nothing of modalities, workers or
resuming: the trainer gives each branch of the encoders a task of its own, hands every process its rows of
the global batch, and saves the module's state dict between steps. In return a task draws no random
numbers of its own (views and dropout are numbered) and keeps whatever it remembers in buffers. A joint task
is the exception that pairs modalities: one module over all branches, and its units are cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dermsearch.data.case import Column
from dermsearch.data.store.pool import CasePool, Look, PairedPool
from dermsearch.models.artifact import Artifact, Part
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.batch import Batch, Pool, epoch_order
from dermsearch.registry import Registry
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
    # Of a task that reads `tables`; a check before any cases are there knows no vocabulary and no patients.
    columns: tuple[Column, ...] = ()  # the metadata that it may read
    patients: int | None = None  # how many are known by name
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of the classes, by label
    words: Mapping[str, int] = field(default_factory=dict)  # how many there are, by column of metadata that has words


@dataclass(frozen=True)
class Target:
    """Cases of another data set, whose images a fit may look at."""

    cases: CaseStore
    rows: np.ndarray  # of the store
    look: Look


@dataclass(frozen=True)
class Material:
    """What a stage has to make its pools of."""

    encoders: Encoders
    cases: CaseStore
    rows: np.ndarray  # of the store
    device: torch.device
    look: Look | None = None  # at the images; None: as the store holds them
    target: Target | None = None  # of a fit that needs one


@dataclass(frozen=True)
class Loss:
    """A step's loss over this process's rows, so that the mean over processes is the global batch's loss."""

    value: Tensor
    embedding: Tensor  # (b, dim) backbone features, watched for collapse
    parts: dict[str, Tensor]  # what else is worth a column in the history


class Whole(Protocol):
    """What a joint task may ask: outputs on every whole image of a branch, whether the case has it, and its classes."""

    def __call__(self, branch: str, module: nn.Module) -> Tensor: ...

    def there(self, branch: str) -> np.ndarray: ...

    def labels(self, name: str) -> np.ndarray: ...


Given = TypeVar("Given")  # to a task at every step: a batch, or one of each branch
Found = TypeVar("Found")  # by it: a loss, or each branch's share
Seen = TypeVar("Seen")  # before an epoch: what gives outputs on whole images


class Pretext(nn.Module, Generic[Given, Found, Seen]):
    """What every pretext task is, `Task` or `JointTask`, and a `fit.base.Fit` too. One file shows one task whole."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # part of the stage key: raise it when results change
    Config: ClassVar[type[Settings]]
    # The authors' optimiser; `lr` is for it, and for a batch of `lr_batch`: another optimiser has one of `optim.RATES`.
    train_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    replacement: ClassVar[bool] = False  # are the images of an epoch drawn with replacement?
    indexed: ClassVar[bool] = False  # does it remember something of each training image, and has no loss on others?
    supervised: ClassVar[bool] = False  # does it read labels? Then it may only come last in a curriculum
    supervised_by: ClassVar[str] = ""  # the setting that makes it read labels, where one does so
    tables: ClassVar[bool] = False  # does it read metadata, the columns of `data.metadata`?
    contrasts: ClassVar[bool] = False  # are the other images of a batch negatives? Then none may stand in it twice
    joint: ClassVar[bool] = False  # does it look at all branches together? See `JointTask`
    composes: ClassVar[bool] = False  # its own batches, so that weights of a mixture's stores would not count?
    least: ClassVar[int] = 2  # modalities that a joint one needs
    waits: ClassVar[str] = ""  # why a step must know on the host what the device found, if it must

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
    def pools(cls, given: Material) -> dict[str, CasePool]:
        """By name, the images that it trains on; losses and batches have these names too."""
        raise NotImplementedError(cls.__name__)

    @classmethod
    def over(cls, encoders: Encoders, config: Any, told: Mapping[str, Setting]) -> Mapping[str, AnyTask]:
        """The tasks of a stage on these encoders: one, or one of each branch; `told` is by the names of the pools."""
        raise NotImplementedError(cls.__name__)

    @classmethod
    def paced(cls, pools: Mapping[str, CasePool]) -> Mapping[str, CasePool]:
        """The pools whose images all come in an epoch; of the others as many do."""
        return pools

    @classmethod
    def batch_of(cls, asked: int, units: int) -> int:
        """The batch of a step, where so large a one is asked for and the smallest pool has so many units."""
        return min(asked, units)

    def plan_epoch(self, epoch: int, pool: Any, count: int) -> Any:
        """The units of an epoch in order, `count` of them, the same on every process; of a joint task by pool.

        Every `setting.batch` of them are what one loss sees, so batches can be composed here.
        """
        seed, again = self.setting.seed, self.replacement
        return {n: epoch_order(seed, epoch, len(p), count, again, strata=p.strata) for n, p in pool.items()}

    def plan_heldout(self, pool: Any, count: int) -> Any:
        """The units of a pool that `patience` looks at, `count` of them, the same every time; as in `plan_epoch`."""
        return {name: np.resize(np.arange(len(units)), count) for name, units in pool.items()}

    def asks(self, batch: Batch) -> list[np.ndarray]:
        """The units whose images this process will ask a pool for, in that order, when it is given this batch of it."""
        return [batch.own]

    def begin(self, features: Seen) -> None:
        """Once, before the first epoch. `features(module)` is its eval-mode output on every whole image of the pool."""

    def enter_epoch(self, epoch: int) -> None:
        """Before `begin_epoch`, and where an epoch is gone on with in its midst: sets what no buffer keeps (modes)."""

    def begin_epoch(self, epoch: int, features: Seen) -> None:
        """Before an epoch's first step, and once: what is changed here is in buffers; `features` as in `begin`."""

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
    def pools(cls, given: Material) -> dict[str, CasePool]:
        """By branch, all images that it sees."""
        g = given
        return {b: CasePool(g.cases, seen, g.rows, g.device, g.look) for b, seen in g.encoders.branches.items()}

    @classmethod
    def over(cls, encoders: Encoders, config: Any, told: Mapping[str, Setting]) -> Mapping[str, Task]:
        return {b: cls(encoders.backbones[b], config, told[b]) for b in encoders.branches}

    def plan_epoch(self, epoch: int, pool: Pool, count: int) -> np.ndarray:
        return epoch_order(self.setting.seed, epoch, len(pool), count, self.replacement, strata=pool.strata)

    def plan_heldout(self, pool: Pool, count: int) -> np.ndarray:
        return np.resize(np.arange(len(pool)), count)

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
    def pools(cls, given: Material) -> dict[str, CasePool]:
        """By branch, the same cases in each."""
        g, among = given, given.encoders.modalities
        seen = {b: modality for b, (modality, *_) in g.encoders.branches.items()}
        return {b: PairedPool(g.cases, m, g.rows, g.device, g.look, among) for b, m in seen.items()}

    @classmethod
    def over(cls, encoders: Encoders, config: Any, told: Mapping[str, Setting]) -> Mapping[str, JointTask]:
        return {JOINT: cls(encoders.backbones, config, next(iter(told.values())))}

    def handed_on(self) -> nn.ModuleDict:
        """The backbones by branch that the next stage begins with and that are judged."""
        return self.backbones


AnyTask = Pretext[Any, Any, Any]

TASKS = Registry(
    "task",
    "dermsearch.tasks",
    {
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
        "slimp": "dermsearch.pretext.slimp:Slimp",
        "ssd_kd": "dermsearch.pretext.ssd_kd:SSDKD",
    },
)


def task_names() -> list[str]:
    """Every task that a study may name: the shipped ones and those of installed packages."""
    return TASKS.names()


def find_task(name: str) -> type[AnyTask]:
    """The task of that name."""
    return TASKS.find(name)
