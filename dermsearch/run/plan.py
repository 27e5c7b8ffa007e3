"""What a study will do, without doing it: its tree, what sharing saves, and what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dermsearch.curriculum import Curriculum
from dermsearch.data.mixed import left_out, mixed_folder
from dermsearch.data.open import drawn_for_training, is_made
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MANIFEST
from dermsearch.errors import UserError, public
from dermsearch.run.bill import Bill, bill, room, span
from dermsearch.run.bill import lines as bill_lines
from dermsearch.run.check import check, check_cases, check_images, check_machine, training_rows
from dermsearch.run.here import here, is_there, opened
from dermsearch.run.memory import Need, need
from dermsearch.run.roots import origins, starts
from dermsearch.run.run import sets_of
from dermsearch.search.propose.known import stages
from dermsearch.search.space.cost import prices, relative_cost
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.space.rates import Selection
from dermsearch.search.space.space import Space
from dermsearch.search.tree.branches import Branches
from dermsearch.search.tree.budget import limit
from dermsearch.search.tree.judges import Judges
from dermsearch.search.tree.look_up import LookUp
from dermsearch.search.tree.roots import plant
from dermsearch.search.tree.tree import Tree
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.data import Data
from dermsearch.training.precision import resolve
from dermsearch.words import many

SHOWN = 40  # lines of the tree


@dataclass
class Plan:
    """The numbers of a plan; where it is not exact, those of proposals, stages and passes are the most there may be."""

    study: Study
    images: int  # training images
    exact: bool  # False where the proposer decides as it goes
    selections: dict[str, Selection] = field(default_factory=dict)  # task -> its rates to choose from
    left_out: dict[str, int] = field(default_factory=dict)  # images, of mixtures that are made already
    need: Need | None = None  # of memory
    proposals: int = 0
    stages: int = 0  # distinct, over all seeds
    unshared: int = 0  # if every proposal trained its whole curriculum
    passes: float = 0.0  # images through the backbone, forward and backward, over all stages
    unshared_passes: float = 0.0
    tree: dict[Curriculum, int] = field(default_factory=dict)  # curriculum -> stages of it (settings and seeds)
    choices: dict[str, int] = field(default_factory=dict)  # task -> how often a rate is chosen
    looks: int = 0  # of a pruner at a rung, if it let everything go on
    cached: int | None = None  # stages that the store has; None where that cannot be told
    judged: int | None = None  # of these, those that all have judged who are to
    bill: Bill | None = None  # None where the proposer decides without a limit

    @property
    def depths(self) -> list[int]:
        """How many stages a seed has as a first task, as a second one, and so on."""
        seeds = len(self.study.search.seeds)
        longest = max(map(len, self.tree), default=0)
        return [sum(n for c, n in self.tree.items() if len(c) == d) // seeds for d in range(1, longest + 1)]


def make_plan(study: Study) -> Plan:
    """Check the study as `run` does and lay out its tree. Trains nothing, makes no data, starts no Ray."""
    space = check(study)
    folder = Path(study.compute.store).expanduser()
    known = "://" not in study.compute.store and (folder / "stages").is_dir()
    cache = folder.absolute() / "data"
    may = {name: d for name, d in study.sets.items() if d.source != "mix" and (known or d.source == "store")}
    stores = {name: opened(study, name, cache) for name, d in may.items() if is_made(d, cache) or is_there(d)}
    for name, mixture in study.sets.items():
        if mixture.mix and {*mixture.mix, *mixture.without} <= stores.keys():
            place = mixed_folder(mixture, stores, cache)
            parts = [stores[each] for each in mixture.mix]
            stores |= {name: CaseStore(place, parts)} if (place / MANIFEST).is_file() else {}
    check_cases(study, space, stores)
    first, data = next(iter(study.sets.items()))
    if first in stores:
        images = len(training_rows(study, stores[first]))
    elif data.source == "synthetic":
        images = drawn_for_training(data)
    elif data.mix:  # all but a few for validation
        images = round(0.95 * sum(study.sets[name].cases for name in data.mix))
        check_images(study, space, images)
    else:  # not here yet: the usual share of the number that the study expects
        images = data.cases if data.transductive else round(0.7 * data.cases)
        check_images(study, space, images)

    count = space.count()
    exact, limits = study.search.sampler == "grid", study.search.budget
    most = [n for n in (study.search.trials, limits.curricula if limits else None) if n]
    budget = min(most, default=count or 0)
    if exact and budget > 100_000:
        raise UserError(f"search: {budget} proposals are too many to lay out")
    lacking = {name: left_out(cases) for name, cases in stores.items() if study.sets[name].without}
    plan = Plan(study, images, exact, space.selections, lacking, need(study, space))
    if exact:
        proposals = list(itertools.islice(space.every(), min(budget, count or budget)))
        lay_out(plan, space, proposals)
        if len(stores) == len(study.sets) and known and not space.selections:  # else what is chosen decides on stages
            plan.cached, plan.judged = _cached(study, space, stores, proposals)
    else:  # at most a whole curriculum per proposal
        whole = budget * study.curriculum.length[1] * len(study.search.seeds)
        plan.proposals = budget
        plan.stages = min([n for n in (whole, limits.stages if limits else None) if n], default=0)
        plan.passes = plan.stages * dearest(space) * images * len(study.main.modalities)
    if exact or plan.stages:
        plan.bill = bill(study, space, plan.passes, plan.stages, stores)
    return plan


def lay_out(plan: Plan, space: Space, proposals: list[Proposal]) -> None:
    """Count what these proposals come to, a stage that several share once."""
    search, seeds, price = plan.study.search, len(plan.study.search.seeds), prices(space)
    seen: dict[Proposal, float] = {}
    for proposal in proposals:
        for prefix in stages(proposal):
            if prefix not in seen:
                task = prefix.curriculum.last
                epochs = space.settings(task, prefix.settings)["train"]["epochs"]
                chosen = space.selections.get(task)
                times = seeds + (0 if chosen is None else chosen.epochs_in_vain / epochs)  # the first seed chooses
                seen[prefix] = price(prefix) * times * plan.images * len(plan.study.main.modalities)  # of all branches
                plan.tree[prefix.curriculum] = plan.tree.get(prefix.curriculum, 0) + seeds
                plan.looks += len(space.rungs(task, epochs)) * (seeds if search.replicates == "all" else 1)
                if chosen is not None:
                    plan.choices[task] = plan.choices.get(task, 0) + 1
            plan.unshared_passes += seen[prefix]
    plan.proposals, plan.stages, plan.passes = len(proposals), len(seen) * seeds, sum(seen.values())
    plan.unshared = sum(len(p.curriculum) for p in proposals) * seeds


def dearest(space: Space) -> float:
    """Passes through the backbone per training image in a stage of the task that costs most, at its first settings."""
    return max(relative_cost(space, task, space.settings(task, {})) for task in space.tasks)


def refuse(study: Study, elsewhere: bool = False) -> None:
    """Raise what a run on this machine (or elsewhere) would be refused for though it can be planned."""
    if not elsewhere:
        check_machine(study)
    for name in here(study):
        opened(study, name, Path())


def lines(plan: Plan) -> Iterator[str]:
    """The plan as text."""
    study = plan.study
    data, compute, objective = study.main, study.compute, study.objective
    encoder = f"{' and '.join(study.encoder.names)} at {data.size} px"
    shortest, longest = study.curriculum.length
    yield f"Study '{study.name}': {encoder}, {' + '.join(data.modalities)}, {many(plan.images, 'training case')}"
    lengths = f"{shortest} to {longest}" if longest > shortest else f"{longest}"
    told = f"{', '.join(study.curriculum.tasks)}; curricula of {lengths}"
    yield f"  tasks      {told if longest else 'none: what the study begins with is judged, and nothing is trained'}"
    for root, origin in origins(study).items():
        yield f"  weights    {root}: {origin}"
    proposals = many(plan.proposals, "proposal") if plan.proposals else "as many proposals as its budget allows"
    yield f"  search     {study.search.sampler}: {proposals}, {many(len(study.search.seeds), 'seed')}"
    if plan.exact:
        shares = plan.unshared > plan.stages
        times = plan.unshared / max(1, plan.stages)
        saved = f" instead of {plan.unshared}: shared prefixes are trained once ({times:.1f} times fewer)"
        yield f"  stages     {plan.stages}{saved if shares else '; none is shared'}"
        if len(plan.depths) > 1:
            each = f", for each of {many(len(study.search.seeds), 'seed')}" * (len(study.search.seeds) > 1)
            yield f"             {' + '.join(str(n) for n in plan.depths)} by depth{each}"
        instead = f" instead of {amount(plan.unshared_passes)}" if shares else ""
        yield f"  cost       {amount(plan.passes)} image pass{'es' * (plan.passes != 1)}{instead}"
        yield f"             (an image through {encoder}, forward and backward)"
    else:
        most = f"at most {plan.stages}; " if plan.stages else ""
        yield f"  stages     {most}the sampler decides as it goes; shared prefixes are trained once"
        if study.search.sampler not in ("grid", "random"):
            seeds = many(len(study.search.seeds), "stage")
            yield f"  lag        {study.search.lag}: {seeds} at once; a larger search.lag keeps more workers busy"
    if plan.bill is not None:
        yield from bill_lines(plan.bill, compute.gpus, "about" if plan.exact else "at most")
    if plan.need is not None:
        of = "of a GPU " * bool(compute.gpus)
        most = f", most of it in {plan.need.what} with batches of {plan.need.batch}" * bool(plan.need.batch)
        yield f"  memory     about {room(plan.need.bytes)} {of}for each worker{most}"
    for task, chosen in plan.selections.items():
        told = f"{task}: the best of {len(chosen.rates)} goes on after {many(chosen.epochs, 'epoch')}, by {chosen.by}"
        often, vain = plan.choices.get(task), chosen.epochs_in_vain
        yield f"  rates      {told}" + (
            f"; {many(often, 'choice')}, {many(often * vain, 'epoch')} for the others" if often else ""
        )
    if study.search.pruner != "none":
        ends = study.search.rungs
        rungs = f" after {', '.join([*map(str, ends[:-1]), many(ends[-1], 'epoch')])} and" if ends else ""
        yield f"  pruner     {study.search.pruner}: looks at each stage{rungs} at its end; less may be trained"
        if plan.looks:
            yield f"             (up to {many(plan.looks, 'judgement')} more, before a stage's end)"
    if study.search.budget:
        given = study.search.budget.model_dump(exclude_none=True)
        limits = ", ".join(limit(name, n) for name, n in given.items())
        yield f"  budget     {limits}: {'the first one reached' if len(given) > 1 else 'which'} ends the run"
    if study.search.replicates == "leaders" and len(study.search.seeds) > 1:
        yield "  replicates at most that: seeds behind the first are for what may still be the best"
    if plan.cached is not None:
        yield f"  in store   {in_store(plan)}"
    gpu = f", {compute.gpus:g} GPU" if compute.gpus else ""
    workers = f"{many(compute.workers, 'worker')} of {many(compute.threads, 'CPU thread')}{gpu}"
    yield f"  compute    engine {compute.engine}, {workers} per stage; store {public(compute.store)}"
    for name, mixture in study.sets.items():
        if mixture.mix:
            yield f"  mixture    {name}: {', '.join(shared(mixture))}{mixed_of(plan, name, mixture)}"
    for entry in study.entries.values():
        few = [each for each in entry.labelled if each != "all"]
        draws = f", {many(entry.repeats, 'draw')}" * (entry.repeats > 1)
        if few or entry.data != next(iter(study.sets)):
            yield f"  judged     {entry.name} from {labels(*entry.labelled)}{draws}"
    few = [f" from {labels(labelled)}" * (labelled != "all") for _, labelled in study.wanted]
    by = [entry.name + said for (entry, _), said in zip(study.wanted, few, strict=True)]
    mean = "the mean of " * (len(by) > 1)
    yield f"  objective  {objective.metric} of {objective.label} by {mean}{', '.join(by)}, validation"
    if plan.tree:
        yield ""
        yield from _tree_lines(plan.tree, study)


def in_store(plan: Plan) -> str:
    """What need not be trained again, what of it is yet to be judged, and how long the rest takes."""
    there, judged = plan.cached or 0, plan.judged or 0
    said = f"{there} of {many(plan.stages, 'stage')} trained, to be reused"
    if there > judged:
        said += f"; {there - judged} to be judged"
    if there and plan.bill is not None:
        train, judge = (1 - n / plan.stages for n in (there, judged))
        said += f"; {span(train * plan.bill.to_train + judge * plan.bill.to_judge)} are left" * (judged < plan.stages)
    return said


def shared(mixture: Data) -> list[str]:
    """The stores of a mixture, with their shares of an epoch where weights decide them."""
    if mixture.shares is None:
        return [*mixture.mix]
    whole = sum(mixture.shares)
    return [f"{name} {100 * part / whole:.0f} %" for name, part in zip(mixture.mix, mixture.shares, strict=True)]


def mixed_of(plan: Plan, name: str, mixture: Data) -> str:
    """What is kept out of a mixture, and where it is made already how many images that was."""
    without = f", without what {' or '.join(mixture.without)} shows" * bool(mixture.without)
    out = plan.left_out.get(name)
    return without if out is None else f"{without}: {many(out, 'image')} {'is' if out == 1 else 'are'} left out"


def labels(*few: str) -> str:
    """5, 20, all labels of every class; 1 label of every class."""
    return f"{', '.join(few)} label{'s' * (few != ('1',))} of every class"


def _tree_lines(tree: dict[Curriculum, int], study: Study) -> Iterator[str]:
    yield "no pre-training"
    curricula = sorted(tree, key=lambda c: [list(study.curriculum.tasks).index(task) for task in c])
    for i, curriculum in enumerate(curricula[:SHOWN]):
        bars = ""
        for depth in range(1, len(curriculum) + 1):
            # Does a sibling of this ancestor follow further down?
            before, later = curriculum.prefix(depth - 1), curricula[i + 1 :]
            more = any(len(c) == depth and c.prefix(depth - 1) == before for c in later)
            last = depth == len(curriculum)
            bars += ("├── " if more else "└── ") if last else ("│   " if more else "    ")
        times = f"  x {tree[curriculum]}" if tree[curriculum] > 1 else ""
        yield f"{bars}{curriculum.last}{times}"
    if len(curricula) > SHOWN:
        yield f"... and {len(curricula) - SHOWN} more"


def _cached(study: Study, space: Space, stores: Mapping[str, CaseStore], proposals: list[Proposal]) -> tuple[int, int]:
    """How many of its stages the store has, and how many of these have all their judgements."""
    store, sets = StageStore(study.compute.store, create=False), sets_of(study, stores)
    precision = resolve(study.train.precision, study.compute.gpus)
    tree, judges = Tree(), Judges(study, sets, precision)
    plant(tree, study, next(iter(sets.values())), starts(study))
    branches, look_up = Branches(space, tree, judges, study.search), LookUp(store, judges)
    for seed in study.search.seeds:
        for proposal in proposals:
            branches.path(proposal, seed)
    stages, fits = tree.stages(), tree.fits()
    look_up.look([*stages, *fits])
    waits = {fit.parent.key for fit in fits if fit.parent and fit.key not in look_up.stored}
    judged = sum(node.key in look_up.stored and node.key not in waits for node in stages)
    return sum(look_up.has(node) for node in stages), judged


def amount(number: float) -> str:
    """12,300 or 1.2 M."""
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,.0f}"
