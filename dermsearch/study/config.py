"""A study: one YAML file, read into frozen settings. Every wrong key, type or value is refused here, in words."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from dermsearch.data.case import MODALITIES, SEVEN_POINT
from dermsearch.errors import nearest

# A folder name, a task name, a label name: nothing that could leave the folder it is meant for.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _a_path(value: str) -> str:
    """What no file system would take is refused before one is asked."""
    if not value.strip() or not value.isprintable():
        raise ValueError(f"must be the path of a folder in printable characters, not {value[:60]!r}")
    if any(len(os.fsencode(part)) > 255 for part in value.split("/")):
        raise ValueError(f"must have no part longer than 255 bytes, as '{value[:30]}...' has")
    if value.startswith("~") and os.path.expanduser(value) == value:
        raise ValueError(f"there is no home folder '{value.split('/')[0]}'")
    return value


Path = Annotated[str, Field(max_length=1000), AfterValidator(_a_path)]


def _labelled(value: Any) -> Any:
    """20, "20" or "10%"; what is none of them is told in words."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"all|[1-9][0-9]{0,8}|[0-9]{1,3}([.][0-9]{1,6})?%", text):
        raise ValueError(
            f"must be all, a number of cases of every class such as 20, or a share such as 10%, not {value!r}"
        )
    if text.endswith("%") and not 0 < float(text[:-1]) <= 100:
        raise ValueError(f"must be a share above 0 and up to 100 %, not {text}")
    return text


Labelled = Annotated[str, BeforeValidator(_labelled)]


def _tables(value: Any) -> Any:
    """The name of a published table, or a list of them; what is neither is told in words."""
    names = [value] if isinstance(value, str) else value
    if value is None:
        return None
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        said = str(value)[:60]
        raise ValueError(f"must be a published table or a list such as [sm3_table2, sm3_table3], not {said!r}")
    wrong = [name for name in names if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name)]
    if wrong:
        raise ValueError(f"must hold names such as sm3_table2, not {wrong[0][:60]!r}")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise ValueError(f"names '{twice[0]}' twice")
    return value if isinstance(value, str) else tuple(names)


Tables = Annotated[str | tuple[str, ...] | None, BeforeValidator(_tables)]


class Section(BaseModel):
    """A part of a study: frozen, exact types, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    """Which cases, at which size, seen through which modalities."""

    source: Literal["synthetic", "store"] = "synthetic"
    path: Path | None = None  # source: store, a folder or URI that `dermsearch data prepare` made
    cases: int = Field(default=600, ge=40, le=1_000_000)  # store: the number expected, for `plan`
    size: int = Field(default=64, ge=32, le=1024)  # side of a view in pixels; a store may hold larger images
    border: float = Field(default=0.0, ge=0, le=0.4)  # cut from every edge, as a share of the short side
    normalise: Literal["imagenet", "derm7pt"] = "imagenet"  # the statistics that pixels are normalised by
    labelled: Labelled = "all"  # the training cases that protocols learn from: all, N of every class, or N%
    seed: Seed = 0
    modalities: Annotated[tuple[Literal["derm", "clinic", "xray"], ...], Field(strict=False)] = ("derm",)
    transductive: bool = False  # pre-train on validation and test images too; recorded in the tables

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError(f"must name one or more of {', '.join(MODALITIES)}, each once, not [{', '.join(value)}]")
        return value

    @model_validator(mode="after")
    def _goes_with_source(self) -> Data:
        if self.source == "store" and self.path is None:
            raise ValueError("path: is missing: source 'store' reads the case store in that folder")
        if self.source != "store" and self.path is not None:
            raise ValueError(f"path: goes with source 'store' only, not with '{self.source}'")
        if self.source == "synthetic" and self.size > 512:
            raise ValueError(f"size: must be at most 512 for source 'synthetic', not {self.size}")
        return self


class Encoder(Section):
    """The backbone, by its timm name, and whether the modalities share it."""

    name: Name = "resnet18"
    branches: Literal["shared", "separate"] = "shared"
    weights: Path | None = None  # a file on this machine that every curriculum starts with; else random


class Curriculum(Section):
    """The pretext tasks, each with its settings, and how they may follow one another."""

    tasks: dict[Name, dict[str, Any]] = Field(min_length=1, max_length=20)
    length: Annotated[tuple[int, int], Field(strict=False)] = (1, 3)
    order: Literal["any", "listed"] = "any"  # listed: tasks follow one another only as they stand in `tasks`
    repeats: bool = False  # may a task come twice in one curriculum? With order: listed, straight after itself

    @field_validator("tasks", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            twice = [name for name in value if value.count(name) > 1]
            if twice:
                raise ValueError(f"names '{twice[0]}' twice; 'curriculum.repeats: true' lets tasks come again")
            return {name: {} for name in value}
        if isinstance(value, dict):  # "moco_v2:" with nothing behind it means its defaults
            return {k: {} if v is None else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _length_fits(self) -> Curriculum:
        shortest, longest = self.length
        if not 1 <= shortest <= longest <= 8:
            raise ValueError(f"length: must be [shortest, longest] within 1 and 8, not [{shortest}, {longest}]")
        if not self.repeats and longest > len(self.tasks):
            raise ValueError(
                f"length: must be at most {len(self.tasks)}, the number of tasks, not {longest}; "
                "lower it or set repeats: true"
            )
        return self


Share = Annotated[float, Field(gt=0, lt=1)]


class Train(Section):
    """How every stage is trained; a task may override any of it. What is not given is the task's own default."""

    epochs: int = Field(default=10, ge=1, le=100_000)
    batch: int = Field(default=128, ge=4, le=1_000_000)  # global: over all workers
    accumulate: int = Field(default=1, ge=1, le=1024)  # micro-batches of a step; a loss sees one of them
    optimizer: Literal["sgd", "adamw", "lars"] | None = None
    lr: float | None = Field(default=None, gt=0, le=1e9)
    weight_decay: float | None = Field(default=None, ge=0, le=100)
    weight_decay_end: float | None = Field(default=None, ge=0, le=100)  # where a cosine takes the weight decay
    momentum: float | None = Field(default=None, ge=0, lt=1)
    schedule: Literal["cosine", "constant", "step"] | None = None
    final_lr: float | None = Field(default=None, ge=0, le=1)  # where the cosine ends, as a share of lr
    milestones: Annotated[tuple[Share, ...] | None, Field(strict=False, max_length=100)] = None  # step: when, as shares
    factor: float | None = Field(default=None, gt=0, le=1)  # step: what the rate is multiplied by
    warmup: float | None = Field(default=None, ge=0, lt=1)  # the share of all steps in which the rate climbs
    clip: float | None = Field(default=None, gt=0, le=1e6)  # largest gradient norm
    patience: int = Field(default=0, ge=0, le=100_000)  # epochs without a lower loss on validation images; 0: no end
    knn_every: int = Field(default=0, ge=0, le=100_000)  # epochs between two looks by kNN, which only watches
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @field_validator("milestones")
    @classmethod
    def _in_order(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and list(value) != sorted(set(value)):
            raise ValueError(f"must rise from one to the next, not {list(value)}")
        return value


class Objective(Section):
    """The number that the search maximises, always on the validation split."""

    protocol: Name = "linear"
    metric: Literal[
        "balanced_accuracy",
        "macro_f1",
        "auc",
        "named_auc",  # named_*: of the class that papers report of each label, such as MEL; with label: mean
        "named_recall",
        "named_specificity",
        "named_precision",
        "acc_at_1",  # of protocol pairs, with label: pairs
        "acc_at_5",
    ] = "balanced_accuracy"
    label: Name = "diagnosis"  # or "mean": the mean over all labels

    @model_validator(mode="after")
    def _goes_together(self) -> Objective:
        paired, of_pairs = self.protocol == "pairs", self.metric in ("acc_at_1", "acc_at_5")
        if self.protocol in ("majority", "stratified"):
            raise ValueError(f"protocol: '{self.protocol}' never looks at an image, so it cannot tell encoders apart")
        if paired and not of_pairs:
            raise ValueError(f"metric: must be acc_at_1 or acc_at_5 for protocol 'pairs', not '{self.metric}'")
        if of_pairs and not paired:
            raise ValueError(f"metric: '{self.metric}' goes with protocol 'pairs' only, not with '{self.protocol}'")
        if paired != (self.label == "pairs"):
            raise ValueError(
                f"label: must be pairs for protocol 'pairs', not '{self.label}'"
                if paired
                else f"label: 'pairs' goes with protocol 'pairs' only, not with '{self.protocol}'"
            )
        if self.metric.startswith("named_") and self.label != "mean":
            raise ValueError(f"label: must be mean for metric '{self.metric}', not '{self.label}'")
        return self


class Limits(Section):
    """What a study may spend; of several limits the first one reached ends the run. What the store has is free."""

    curricula: int | None = Field(default=None, ge=1, le=100_000)  # proposals, as `trials`
    stages: int | None = Field(default=None, ge=1, le=10_000_000)  # over all seeds
    epochs: int | None = Field(default=None, ge=1, le=1_000_000_000)  # of all stages together
    gpu_hours: float | None = Field(default=None, gt=0, le=1e9)
    hours: float | None = Field(default=None, gt=0, le=1e6)  # on the clock, of every run anew

    @model_validator(mode="after")
    def _something(self) -> Limits:
        if not self.model_fields_set:
            raise ValueError(f"must name one or more of {', '.join(Limits.model_fields)}, such as {{stages: 40}}")
        return self


Epoch = Annotated[int, Field(ge=1, le=100_000)]


class Search(Section):
    """Who proposes curricula, how many, and with which replicates."""

    sampler: Name = "grid"  # shipped, or of an installed package
    trials: int | None = Field(default=None, ge=1, le=100_000)  # proposals; grid needs none
    budget: Limits | None = None
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1, max_length=100)] = (0,)
    replicates: Literal["all", "leaders"] = "all"  # leaders: seeds behind the first only for what may be the best
    sampler_seed: Seed = 0
    round: int = Field(default=4, ge=1, le=1000)  # proposals that a sampler that learns makes before it hears of them
    candidates: int = Field(default=4, ge=1, le=1000)  # Optuna's: of so many, the one with the fewest new stages first
    pruner: Literal["none", "median", "halving", "hyperband", "wilcoxon"] = "none"  # Optuna's, on every prefix's score
    rungs: Annotated[tuple[Epoch, ...], Field(strict=False, max_length=100)] = ()  # epochs at which it looks at stages

    @field_validator("rungs")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"must rise from one to the next, not {list(value)}")
        return value

    @model_validator(mode="after")
    def _pruning(self) -> Search:
        if self.rungs and self.pruner == "none":
            raise ValueError("rungs: go with a pruner, which judges stages there; give search.pruner, such as halving")
        if self.pruner == "wilcoxon" and (len(self.seeds) < 4 or self.replicates != "all"):
            raise ValueError(
                "pruner: wilcoxon compares curricula seed by seed, so it needs four seeds or more and replicates: all"
            )
        return self

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            twice = next(seed for seed in value if value.count(seed) > 1)
            raise ValueError(f"must name each seed once; {twice} comes twice and would be no replicate")
        return value


class Compute(Section):
    """Where stages run. Nothing here changes a result, so nothing here is part of a stage's key."""

    engine: Literal["ray", "inline"] = "ray"
    workers: int = Field(default=1, ge=1, le=4096)  # processes per stage, under Ray Train when more than one
    threads: int = Field(default=1, ge=1, le=1024)  # CPU threads of each worker
    gpus: float = Field(default=0, ge=0, le=1)  # of each worker: 1, or a share of one GPU
    concurrency: int | None = Field(default=None, ge=1, le=100_000)  # stages at once; default: what the cluster holds
    retries: int = Field(default=2, ge=0, le=100)  # for a stage whose worker died
    compile: bool = False  # torch.compile the backbones: changes results by rounding only, as threads and workers do
    store: Path = "results/store"  # where finished stages live: a folder or a URI such as s3://bucket/stages

    @model_validator(mode="after")
    def _one_process(self) -> Compute:
        if self.workers > 1 and self.engine == "inline":
            raise ValueError(
                f"workers: must be 1 for engine 'inline', which trains in this process, not {self.workers}"
            )
        return self


class Study(Section):
    """One question, whole."""

    name: Name
    description: str = Field(default="", max_length=10_000)
    published: Tables = None  # one or several tables of results/published to show beside the measured scores
    data: Data = Data()
    encoder: Encoder = Encoder()
    curriculum: Curriculum
    train: Train = Train()
    downstream: dict[Name, dict[str, Any] | None] = Field(default={"knn": {}, "linear": {}}, min_length=1)
    objective: Objective = Objective()
    search: Search = Search()
    compute: Compute = Compute()
    logging: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Field(strict=False)] = ("tensorboard",)

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        if self.objective.protocol not in self.downstream:
            raise ValueError(
                f"objective.protocol: must be one of downstream ({', '.join(self.downstream)}), "
                f"not '{self.objective.protocol}'"
            )
        labels = (*SEVEN_POINT, "mean")
        if self.data.source == "synthetic" and self.objective.label not in (*labels, "pairs"):
            raise ValueError(
                f"objective.label: must be one of {', '.join(labels)}, not '{self.objective.label}'; "
                f"{nearest(self.objective.label, labels)}"
            )
        wrong = uneven(self.train.batch, self.train.accumulate, self.compute.workers)
        if wrong:
            raise ValueError(f"train.batch: {wrong}")
        if self.search.budget and self.search.budget.gpu_hours and not self.compute.gpus:
            raise ValueError("search.budget.gpu_hours: goes with compute.gpus, which is 0; without GPUs give hours")
        return self


def uneven(batch: int, accumulate: int, workers: int) -> str:
    """What is wrong with a batch that does not divide among workers and micro-batches; nothing if it does."""
    if batch % (workers * accumulate) == 0:
        return ""
    if accumulate == 1:
        return f"must be a multiple of compute.workers, {workers}, not {batch}"
    return f"must be a multiple of accumulate x compute.workers, {accumulate * workers}, not {batch}"
