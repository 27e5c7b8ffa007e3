"""A study: one YAML file, read into frozen settings. Every wrong key, type or value is refused here, in words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dermsearch.data.case import MODALITIES, SEVEN_POINT

# A folder name, a task name, a label name: nothing that could leave the folder it is meant for.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Path = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f]+$")]


class Section(BaseModel):
    """A part of a study: frozen, exact types, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    """Which cases, at which size, seen through which modalities."""

    source: Literal["synthetic", "store"] = "synthetic"
    path: Path | None = None  # source: store, a folder that `dermsearch data` made
    cases: int = Field(600, ge=40, le=1_000_000)  # store: the number expected, for `plan`
    size: int = Field(64, ge=32, le=1024)  # side in pixels
    seed: Seed = 0
    modalities: Annotated[tuple[Literal["derm", "clinic"], ...], Field(strict=False)] = ("derm",)
    transductive: bool = False  # pre-train on validation and test images too; recorded in the tables

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError(f"names each of {', '.join(MODALITIES)} at most once and at least one of them")
        return value

    @model_validator(mode="after")
    def _path_goes_with_store(self) -> Data:
        if (self.source == "store") != (self.path is not None):
            raise ValueError("path: goes with source: store, and only with it")
        return self


class Encoder(Section):
    """The backbone, by its timm name, and whether the modalities share it."""

    name: Name = "resnet18"
    branches: Literal["shared", "separate"] = "shared"


class Curriculum(Section):
    """The pretext tasks, each with its settings, and how they may follow one another."""

    tasks: dict[Name, dict[str, Any]] = Field(min_length=1, max_length=20)
    length: Annotated[tuple[int, int], Field(strict=False)] = (1, 3)
    repeats: bool = False  # may a task come twice in one curriculum?

    @field_validator("tasks", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return {name: {} for name in value}
        if isinstance(value, dict):  # "moco_v2:" with nothing behind it means its defaults
            return {k: {} if v is None else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _length_fits(self) -> Curriculum:
        shortest, longest = self.length
        if not 1 <= shortest <= longest <= 8:
            raise ValueError(f"length: [{shortest}, {longest}] must be [shortest, longest] within 1 and 8")
        if not self.repeats and longest > len(self.tasks):
            raise ValueError(
                f"length: {longest} is more than the {len(self.tasks)} tasks; lower it or set repeats: true"
            )
        return self


class Train(Section):
    """How every stage is trained; a task may override any of it. What is not given is the task's own default."""

    epochs: int = Field(10, ge=1, le=100_000)
    batch: int = Field(128, ge=4, le=1_000_000)  # global: over all workers
    optimizer: Literal["sgd", "adamw"] | None = None
    lr: float | None = Field(None, gt=0, le=1e9)
    weight_decay: float | None = Field(None, ge=0, le=100)
    momentum: float | None = Field(None, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] | None = None
    warmup: float | None = Field(None, ge=0, lt=1)  # the share of all steps in which the rate climbs
    clip: float | None = Field(None, gt=0, le=1e6)  # largest gradient norm
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Objective(Section):
    """The number that the search maximises, always on the validation split."""

    protocol: Name = "linear"
    metric: Literal["balanced_accuracy", "macro_f1", "auc"] = "balanced_accuracy"
    label: Name = "diagnosis"  # or "mean": the mean over all labels


class Search(Section):
    """Who proposes curricula, how many, and with which replicates."""

    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: int | None = Field(None, ge=1, le=100_000)  # proposals; grid needs none
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1, max_length=100)] = (0,)
    sampler_seed: Seed = 0
    round: int = Field(4, ge=1, le=1000)  # tpe: proposals that are asked together and told together

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each seed once: a seed that comes twice is no replicate")
        return value

    @model_validator(mode="after")
    def _budget(self) -> Search:
        if self.sampler != "grid" and self.trials is None:
            raise ValueError(f"trials: sampler '{self.sampler}' needs a number of trials")
        return self


class Compute(Section):
    """Where stages run. Nothing here changes a result, so nothing here is part of a stage's key."""

    engine: Literal["ray", "inline"] = "ray"
    workers: int = Field(1, ge=1, le=4096)  # processes per stage, under Ray Train when more than one
    threads: int = Field(1, ge=1, le=1024)  # CPU threads of each worker
    gpus: float = Field(0, ge=0, le=1)  # of each worker: 1, or a share of one GPU
    concurrency: int | None = Field(None, ge=1, le=100_000)  # stages at once; default: what the cluster holds
    retries: int = Field(2, ge=0, le=100)  # for a stage whose worker died
    store: Path = "results/store"  # where finished stages live: a folder or a URI such as s3://bucket/stages

    @model_validator(mode="after")
    def _one_process(self) -> Compute:
        if self.workers > 1 and self.engine == "inline":
            raise ValueError("workers: engine 'inline' trains in this process; use engine: ray or workers: 1")
        return self


class Study(Section):
    """One question, whole."""

    name: Name
    description: str = Field("", max_length=10_000)
    published: Name | None = None  # a table of results/published to show beside the measured scores
    data: Data = Data()
    encoder: Encoder = Encoder()
    curriculum: Curriculum
    train: Train = Train()
    downstream: dict[Name, dict[str, Any] | None] = Field({"knn": {}, "linear": {}}, min_length=1)
    objective: Objective = Objective()
    search: Search = Search()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        if self.objective.protocol not in self.downstream:
            raise ValueError(
                f"objective.protocol: '{self.objective.protocol}' is not among the protocols "
                f"of downstream ({', '.join(self.downstream)})"
            )
        labels = (*SEVEN_POINT, "mean")
        if self.data.source == "synthetic" and self.objective.label not in labels:
            raise ValueError(f"objective.label: '{self.objective.label}' is not one of {', '.join(labels)}")
        if self.train.batch % self.compute.workers:
            raise ValueError(
                f"train.batch: {self.train.batch} images do not divide among {self.compute.workers} workers"
            )
        return self
