"""Which choices of the search matter for the best scores: Optuna's conditional PED-ANOVA, held against chance."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from dermsearch.curriculum import Curriculum
from dermsearch.results.explain.effects import Effect
from dermsearch.results.tables.measure import Measure, read_scores
from dermsearch.results.tables.schema import Results

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SHUFFLES = 100
HANDED_ON = (0.5, 1.0)  # shares of a stage's luck that its children may have
FEWEST = 10  # proposals, so that there are two or three of the best
TOP = 0.25  # the share of proposals that counts as the best


@dataclass(frozen=True)
class Sample:
    """A proposal that has a score: its choices by name. What does not apply is not there."""

    choices: Mapping[str, Any]
    value: float
    log: frozenset[str] = frozenset()  # the names that were searched on a logarithmic scale
    path: tuple[str, ...] = ()  # its stages, by names that proposals with the same beginning share


def samples(results: Results, measure: Measure) -> list[Sample]:
    """The proposals of a study with their scores."""
    scores, _ = read_scores(results, measure)
    log = frozenset(logarithmic(results.study))
    found = []
    for trial in results.trials.to_pylist():
        values = [scores[key].value for key in trial["keys"] or [] if key in scores]
        if values and len(values) == len(trial["keys"]):
            choices = places(Curriculum.parse(trial["curriculum"]).tasks) | json.loads(trial["settings"] or "{}")
            choices |= {"root": trial["root"]} if trial["root"] else {}
            found.append(Sample(choices, fmean(values), log, path_of(choices)))
    return found


def published_samples(scores: Mapping[tuple[str, ...], float]) -> list[Sample]:
    """The curricula of a paper's table, which has no settings."""
    return [Sample(places(tasks), value, path=path_of(places(tasks))) for tasks, value in scores.items()]


def places(tasks: Sequence[str]) -> dict[str, Any]:
    """A curriculum as choices: how many tasks, and which is the first, the second and so on."""
    return {"length": len(tasks)} | {f"task {k}": task for k, task in enumerate(tasks, 1)}


def path_of(choices: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages of a proposal: each by its tasks so far and what was chosen for them."""
    tasks = [choices[f"task {k}"] for k in range(1, choices["length"] + 1)]
    own = {task: sorted((n, str(v)) for n, v in choices.items() if n.rpartition(".")[0] == task) for task in tasks}
    root = str(choices.get("root", ""))
    return tuple(f"{root}: {[(task, own[task]) for task in tasks[:k]]}" for k in range(1, len(tasks) + 1))


def logarithmic(study: Mapping[str, Any]) -> Iterator[str]:
    """The settings that a study searches on a logarithmic scale."""
    tasks = (study.get("curriculum") or {}).get("tasks") or {}
    for task, settings in tasks.items() if isinstance(tasks, dict) else ():
        for name, value in settings.items() if isinstance(settings, dict) else ():
            if isinstance(value, dict) and "log" in value:
                yield f"{task}.{name}"


def importance(samples: Sequence[Sample]) -> list[Effect]:
    """The share of each choice in reaching the best quarter, and how often chance gives as much.

    The interval is what chance gives in 95 of 100 cases, not the uncertainty of the value. Chance is shuffled scores,
    and, where a choice stands out from those, luck that stages hand on to what grows from them.
    """
    kinds = distributions(samples)
    if len(samples) < FEWEST or not kinds:
        return []
    study = rebuilt(samples, kinds)
    rng = random.Random(0)
    values = [s.value for s in samples]
    found = evaluate(study, values, list(kinds))
    shuffled = [rng.sample(values, len(values)) for _ in range(SHUFFLES)]
    effects = against_chance(samples, found, [evaluate(study, drawn, list(kinds)) for drawn in shuffled])
    begun = [sample.path[0] for sample in samples if sample.path]
    for share in HANDED_ON if len(set(begun)) < len(begun) else ():  # else nothing is handed on to two
        if any(effect.told for effect in effects):
            lucky = [handed_on(samples, share, rng) for _ in range(SHUFFLES)]
            again = against_chance(samples, found, [evaluate(study, drawn, list(kinds)) for drawn in lucky])
            effects = [wider(a, b) for a, b in zip(effects, again, strict=True)]
    return sorted(effects, key=lambda e: -e.value)


def against_chance(
    samples: Sequence[Sample], found: Mapping[str, float], drawn: Sequence[Mapping[str, float]]
) -> list[Effect]:
    """Each choice's share against those that so many draws of chance gave."""
    chance = {name: [each[name] for each in drawn] for name in found}
    # With so few draws no p could pass Holm's correction for many choices: each is held against the one that stands
    # out most in every draw instead.
    usual = {name: (fmean(of), pstdev(of) or 1e-12) for name, of in chance.items()}
    most = [max((of[i] - usual[n][0]) / usual[n][1] for n, of in chance.items()) for i in range(len(drawn))]
    effects = []
    for name, value in found.items():
        of, (mean, spread) = sorted(chance[name]), usual[name]
        p, adjusted = beaten(value, of), beaten((value - mean) / spread, most)
        carried = sum(name in s.choices for s in samples)
        low, high = of[round(0.025 * (len(of) - 1))], of[round(0.975 * (len(of) - 1))]
        effects.append(Effect("setting", name, "chance", value, low, high, carried, 0, p, adjusted))
    return effects


def handed_on(samples: Sequence[Sample], share: float, rng: random.Random) -> list[float]:
    """Scores of nothing but luck, each stage's its own and a share of its parent's."""
    luck: dict[str, float] = {}
    scores = []
    for sample in samples:
        score = 0.0
        for stage in sample.path:
            score = luck[stage] = luck[stage] if stage in luck else share * score + rng.gauss(0, 1)
        scores.append(score)
    return scores


def wider(a: Effect, b: Effect) -> Effect:
    """An effect held against two kinds of chance: no surer than against either."""
    low, high = min(a.low or 0.0, b.low or 0.0), max(a.high or 0.0, b.high or 0.0)
    return replace(a, low=low, high=high, p=max(a.p or 0.0, b.p or 0.0), adjusted=max(a.adjusted or 0, b.adjusted or 0))


def beaten(value: float, drawn: Sequence[float]) -> float:
    """How often chance gives as much: never less than once in all, the value itself among them."""
    return (1 + sum(other >= value - 1e-9 for other in drawn)) / (1 + len(drawn))


def too_few(samples: Sequence[Sample]) -> str:
    """Why nothing is said of what was chosen, in one sentence; empty where something is, or nothing was chosen."""
    if len(samples) >= FEWEST or not (kinds := distributions(samples)):
        return ""
    said = f"it takes {FEWEST} proposals with a score, and there are {len(samples)}"
    return f"Which choices of the search mattered ({', '.join(kinds)}) cannot be told: {said}."


def distributions(samples: Sequence[Sample]) -> dict[str, BaseDistribution]:
    """From what each choice was drawn, as far as the values tell; one that never varied is left out."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kinds: dict[str, BaseDistribution] = {}
    for name in dict.fromkeys(name for s in samples for name in s.choices):
        values = [s.choices[name] for s in samples if name in s.choices]
        distinct = sorted(set(values), key=str)
        if len(distinct) < 2:
            continue
        log = any(name in s.log for s in samples)
        if all(type(v) is int for v in values):
            kinds[name] = IntDistribution(min(values), max(values), log=log)
        elif all(type(v) in (int, float) for v in values):
            kinds[name] = FloatDistribution(float(min(values)), float(max(values)), log=log)
        else:
            kinds[name] = CategoricalDistribution(distinct)
    return kinds


def rebuilt(samples: Sequence[Sample], kinds: Mapping[str, BaseDistribution]) -> optuna.Study:
    """An Optuna study of these proposals; it minimises, as PED-ANOVA expects of a target."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize")
    for sample in samples:
        params = {n: v for n, v in sample.choices.items() if n in kinds}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions={n: kinds[n] for n in params}, value=-sample.value)
        )
    return study


def evaluate(study: optuna.Study, values: Sequence[float], names: list[str]) -> dict[str, float]:
    """PED-ANOVA of the study as if its trials had these scores; the shares sum to one."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=TOP),
            params=names,
            target=lambda trial: -values[trial.number],
        )
