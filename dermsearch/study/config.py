"""A study: one YAML file, read into frozen settings. Every wrong key, type or value is refused here, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from dermsearch.settings import Pixels
from dermsearch.study.data import Data, DataSets
from dermsearch.study.encoder import Encoder
from dermsearch.study.fields import EntryName, Labelled, Name, Path, Section, Seed, Tables

MAIN = "data"  # what a study's only data set is called


class Curricula(Section):
    """The pretext tasks, each with its settings, and how they may follow one another."""

    tasks: dict[Name, dict[str, Any]] = Field(max_length=20)  # none, with length: [0, 0], judges roots alone
    length: Annotated[tuple[int, int], Field(strict=False)] = (1, 3)  # of the shortest curriculum and of the longest
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
    def _length_fits(self) -> Curricula:
        shortest, longest = self.length
        if not self.tasks and (shortest, longest) == (0, 0):
            return self
        if not self.tasks:
            raise ValueError("tasks: must have at least 1 item, or length must be [0, 0], which judges roots alone")
        if not 1 <= shortest <= longest <= 8:
            raise ValueError(f"length: must be [shortest, longest] within 1 and 8, not [{shortest}, {longest}]")
        if not self.repeats and longest > len(self.tasks):
            raise ValueError(
                f"length: must be at most {len(self.tasks)}, the number of tasks, not {longest}; "
                "lower it or set repeats: true"
            )
        return self


def _rising(value: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if value is not None and list(value) != sorted(set(value)):
        raise ValueError(f"must rise from one to the next, not {list(value)}")
    return value


Share = Annotated[float, Field(gt=0, lt=1)]
Shares = Annotated[tuple[Share, ...] | None, Field(strict=False, max_length=100), AfterValidator(_rising)]
Epoch = Annotated[int, Field(ge=1, le=100_000)]
Epochs = Annotated[tuple[Epoch, ...], Field(strict=False, max_length=100), AfterValidator(_rising)]


class Train(Section):
    """How every stage is trained; a task may override any of it. What is not given is the task's own default."""

    epochs: int = Field(default=10, ge=1, le=100_000)  # of every stage
    batch: int = Field(default=128, ge=4, le=1_000_000)  # global: over all workers
    accumulate: int = Field(default=1, ge=1, le=1024)  # micro-batches of a step; a loss sees one of them
    optimizer: Literal["sgd", "adamw", "lars"] | None = None  # the task's own, unless it is given
    # Null: the task's own, in proportion to the batch.
    lr: float | None = Field(default=None, gt=0, le=1e9)
    weight_decay: float | None = Field(default=None, ge=0, le=100)  # the task's own
    weight_decay_end: float | None = Field(default=None, ge=0, le=100)  # where a cosine takes the weight decay
    momentum: float | None = Field(default=None, ge=0, lt=1)  # of sgd and lars
    schedule: Literal["cosine", "constant", "step"] | None = None  # the task's own
    final_lr: float | None = Field(default=None, ge=0, le=1)  # where the cosine ends, as a share of lr
    milestones: Shares = None  # step: when, as shares
    factor: float | None = Field(default=None, gt=0, le=1)  # step: what the rate is multiplied by
    warmup: float | None = Field(default=None, ge=0, lt=1)  # the share of all steps in which the rate climbs
    clip: float | None = Field(default=None, gt=0, le=1e6)  # largest gradient norm
    patience: int = Field(default=0, ge=0, le=100_000)  # epochs without a lower loss on validation images; 0: no end
    knn_every: int = Field(default=0, ge=0, le=100_000)  # epochs between two looks by kNN, which only watches
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 on GPUs and on CPUs that multiply it, else fp32


class Objective(Section):
    """The number that the search maximises, always on the validation split."""

    protocol: EntryName = "linear"  # one of downstream, such as knn or finetune@ham
    # In the place of protocol: lines of downstream, of whose scores the mean counts.
    mean: Annotated[tuple[EntryName, ...] | None, Field(strict=False, min_length=2, max_length=100)] = None
    metric: Name = "balanced_accuracy"  # one that the protocol gives
    label: Name = "diagnosis"  # or "mean": the mean over all labels
    labelled: Labelled | None = None  # where the protocol learns from several numbers of labels: which of them counts

    @model_validator(mode="after")
    def _one_or_a_mean(self) -> Objective:
        if self.mean and len(set(self.mean)) < len(self.mean):
            raise ValueError(f"mean: must name each line of downstream once, not [{', '.join(self.mean)}]")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The lines of downstream that it is the mean of, be it one."""
        return self.mean or (self.protocol,)


class Limits(Section):
    """What a study may spend; of several limits the first one reached ends the run. What the store has is free."""

    curricula: int | None = Field(default=None, ge=1, le=100_000)  # proposals, as `trials`
    stages: int | None = Field(default=None, ge=1, le=10_000_000)  # over all seeds
    epochs: int | None = Field(default=None, ge=1, le=1_000_000_000)  # of all stages together
    gpu_hours: float | None = Field(default=None, gt=0, le=1e9)  # seconds of all stages and fits, times their GPUs
    hours: float | None = Field(default=None, gt=0, le=1e6)  # on the clock, of every run anew

    @model_validator(mode="after")
    def _something(self) -> Limits:
        if not self.model_fields_set:
            raise ValueError(f"must name one or more of {', '.join(Limits.model_fields)}, such as {{stages: 40}}")
        return self


class Search(Section):
    """Who proposes curricula, how many, and with which replicates."""

    sampler: Name = "grid"  # shipped, or of an installed package
    trials: int | None = Field(default=None, ge=1, le=100_000)  # proposals; grid needs none
    budget: Limits | None = None  # what ends the run: one or several of Limits
    # Replicates of everything, on the same cases.
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1, max_length=100)] = (0,)
    replicates: Literal["all", "leaders"] = "all"  # leaders: seeds behind the first only for what may be the best
    sampler_seed: Seed = 0  # of what chance decides in the sampler
    lag: int = Field(default=1, ge=1, le=1000)  # proposals that a sampler that learns has under way at once
    learn_from: Annotated[tuple[Path, ...], Field(strict=False, max_length=100)] = ()  # tables of other studies
    candidates: int = Field(default=4, ge=1, le=1000)  # Optuna's: of so many, the one with the fewest new stages first
    pruner: Literal["none", "median", "halving", "hyperband", "wilcoxon"] = "none"  # Optuna's, on every prefix's score
    rungs: Epochs = ()  # epochs at which it looks at stages

    @model_validator(mode="before")
    @classmethod
    def _rounds_are_over(cls, value: Any) -> Any:
        if isinstance(value, dict) and "round" in value:
            raise ValueError(
                "round: proposals come no longer in rounds; give search.lag, how many are under way at once"
            )
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

    engine: Literal["ray", "inline"] = "ray"  # inline: one stage after the other in this process, without Ray
    workers: int = Field(default=1, ge=1, le=4096)  # processes per stage, under Ray Train when more than one
    threads: int = Field(default=1, ge=1, le=1024)  # CPU threads of each worker
    gpus: float = Field(default=0, ge=0, le=1)  # of each worker: 1, or a share of one GPU
    concurrency: int | None = Field(default=None, ge=1, le=100_000)  # stages at once; default: what the cluster holds
    retries: int = Field(default=2, ge=0, le=100)  # for a stage whose worker died
    save_every: float = Field(default=20, ge=0, le=86_400)  # seconds between states of a stage under way; 0: an epoch
    compile: bool = False  # torch.compile the backbones: changes results by rounding only, as threads and workers do
    pixels: Pixels = "auto"  # a GPU's: in its memory, sent a batch ahead; auto: as fits
    store: Path = "results/store"  # where finished stages live: a folder or a URI such as s3://bucket/stages

    @model_validator(mode="after")
    def _one_process(self) -> Compute:
        if self.workers > 1 and self.engine == "inline":
            raise ValueError(
                f"workers: must be 1 for engine 'inline', which trains in this process, not {self.workers}"
            )
        if self.pixels != "auto" and not self.gpus:
            raise ValueError(f"pixels: {self.pixels} goes with gpus, which is 0; a CPU reads the store's own files")
        return self


@dataclass(frozen=True)
class Downstream:
    """One line of `downstream`: a protocol, the data set that it judges on, and from how many labels it learns."""

    name: str  # as the study has it
    protocol: str
    data: str
    labelled: tuple[str, ...]
    repeats: int  # draws of the few
    config: dict[str, Any]  # the protocol's own settings


class _Draws(Section):
    """What every protocol may be told beside its own settings."""

    labelled: Annotated[tuple[Labelled, ...], Field(strict=False, min_length=1, max_length=100)]
    repeats: int = Field(default=1, ge=1, le=1000)


class Study(Section):
    """One question, whole."""

    name: Name  # of the folder that its results go to
    description: str = Field(default="", max_length=10_000)  # the question, for tables, figures and the report
    published: Tables = None  # one or several tables of results/published to show beside the measured scores
    data: DataSets = Data()  # cases, or several sets of them by name: stages train on the first
    encoder: Encoder = Encoder()  # what is trained
    curriculum: Curricula  # which tasks, and how they may follow one another
    train: Train = Train()  # how every stage is trained
    # Protocols, each with its settings; on another data set as linear@ham.
    downstream: dict[EntryName, dict[str, Any] | None] = Field(default={"knn": {}, "linear": {}}, min_length=1)
    objective: Objective = Objective()  # what the search maximises
    search: Search = Search()  # which curricula are trained
    compute: Compute = Compute()  # where
    # Who is told of losses while it runs.
    logging: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Field(strict=False)] = ("tensorboard",)

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        for name in self.objective.names:
            if name not in self.downstream:
                field = "mean" if self.objective.mean else "protocol"
                raise ValueError(
                    f"objective.{field}: must be one of downstream ({', '.join(self.downstream)}), not '{name}'"
                )
            wanted = self.entries[name].labelled
            if self.objective.labelled is None and len(wanted) > 1:
                raise ValueError(
                    f"objective.labelled: is missing: '{name}' learns from {', '.join(wanted)} labels "
                    "of every class; name the one that counts"
                )
            if self.objective.labelled not in (None, *wanted):
                said = f"must be one of {', '.join(wanted)}, not {self.objective.labelled}"
                raise ValueError(f"objective.labelled: {said}" + f", for '{name}'" * bool(self.objective.mean))
        for name, data in self.sets.items():
            for field, others in (("mix", data.mix), ("without", data.without)):
                for other in others:
                    if other not in self.sets or self.sets[other].source == "mix":
                        plain = [each for each, of in self.sets.items() if of.source != "mix"]
                        raise ValueError(
                            f"data.{name}.{field}: must name data sets that are no mixtures ({', '.join(plain)}), "
                            f"not '{other}'"
                        )
        wrong = uneven(self.train.batch, self.train.accumulate, self.compute.workers)
        if wrong:
            raise ValueError(f"train.batch: {wrong}")
        if self.search.budget and self.search.budget.gpu_hours and not self.compute.gpus:
            raise ValueError("search.budget.gpu_hours: goes with compute.gpus, which is 0; without GPUs give hours")
        return self

    @property
    def sets(self) -> dict[str, Data]:
        """The data sets by name."""
        return self.data if isinstance(self.data, dict) else {MAIN: self.data}

    @property
    def main(self) -> Data:
        """The data set that stages train on: the first."""
        return next(iter(self.sets.values()))

    @property
    def entries(self) -> dict[str, Downstream]:
        """The lines of `downstream`."""
        first = next(iter(self.sets))
        found = {}
        for name, given in self.downstream.items():
            protocol, _, data = name.partition("@")
            if data and data not in self.sets:
                raise ValueError(f"downstream.{name}: '{data}' is not one of data ({', '.join(self.sets)})")
            own = dict(given or {})
            few = own.pop("labelled", self.sets[data or first].labelled)
            told = {"labelled": few if isinstance(few, list | tuple) else [few]}
            told |= {"repeats": own.pop("repeats")} if "repeats" in own else {}
            try:
                draws = _Draws.model_validate(told)
            except ValidationError as error:
                first_error = error.errors()[0]
                text = str(first_error.get("ctx", {}).get("error", first_error["msg"]))
                raise ValueError(f"downstream.{name}.{first_error['loc'][0]}: {text}") from None
            found[name] = Downstream(name, protocol, data or first, draws.labelled, draws.repeats, own)
        return found

    @property
    def wanted(self) -> list[tuple[Downstream, str]]:
        """The lines of `downstream` whose mean the search maximises, and the labels that each learns from."""
        entries = [self.entries[name] for name in self.objective.names]
        return [(entry, self.objective.labelled or entry.labelled[0]) for entry in entries]


def uneven(batch: int, accumulate: int, workers: int) -> str:
    """What is wrong with a batch that does not divide among workers and micro-batches; nothing if it does."""
    if batch % (workers * accumulate) == 0:
        return ""
    if accumulate == 1:
        return f"must be a multiple of compute.workers, {workers}, not {batch}"
    return f"must be a multiple of accumulate x compute.workers, {accumulate * workers}, not {batch}"
