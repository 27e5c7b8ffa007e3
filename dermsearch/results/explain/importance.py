"""Which choices of the search matter for the best scores: Optuna's conditional PED-ANOVA, held against chance."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
FEWEST = 10  # proposals, so that there are two or three of the best
TOP = 0.25  # the share of proposals that counts as the best


@dataclass(frozen=True)
class Sample:
    """A proposal that has a score: its choices by name. What does not apply is not there."""

    choices: Mapping[str, Any]
    value: float
    log: frozenset[str] = frozenset()  # the names that were searched on a logarithmic scale


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
            found.append(Sample(choices, fmean(values), log))
    return found


def published_samples(scores: Mapping[tuple[str, ...], float]) -> list[Sample]:
    """The curricula of a paper's table, which has no settings."""
    return [Sample(places(tasks), value) for tasks, value in scores.items()]


def places(tasks: Sequence[str]) -> dict[str, Any]:
    """A curriculum as choices: how many tasks, and which is the first, the second and so on."""
    return {"length": len(tasks)} | {f"task {k}": task for k, task in enumerate(tasks, 1)}


def logarithmic(study: Mapping[str, Any]) -> Iterator[str]:
    """The settings that a study searches on a logarithmic scale."""
    tasks = (study.get("curriculum") or {}).get("tasks") or {}
    for task, settings in tasks.items() if isinstance(tasks, dict) else ():
        for name, value in settings.items() if isinstance(settings, dict) else ():
            if isinstance(value, dict) and "log" in value:
                yield f"{task}.{name}"


def importance(samples: Sequence[Sample]) -> list[Effect]:
    """The share of each choice in reaching the best quarter, and how often shuffled scores give as much.

    The interval is what shuffled scores give in 95 of 100 cases: chance, not the uncertainty of the value.
    """
    kinds = distributions(samples)
    if len(samples) < FEWEST or not kinds:
        return []
    study = rebuilt(samples, kinds)
    rng = random.Random(0)
    values = [s.value for s in samples]
    found = evaluate(study, values, list(kinds))
    chance: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(SHUFFLES):
        for name, value in evaluate(study, rng.sample(values, len(values)), list(kinds)).items():
            chance[name].append(value)
    # With so few shuffles no p could pass Holm's correction for many choices: each is held against the one that stands
    # out most in every shuffle instead.
    usual = {name: (fmean(drawn), pstdev(drawn) or 1e-12) for name, drawn in chance.items()}
    most = [max((drawn[i] - usual[n][0]) / usual[n][1] for n, drawn in chance.items()) for i in range(SHUFFLES)]
    effects = []
    for name, value in found.items():
        drawn, (mean, spread) = sorted(chance[name]), usual[name]
        p, adjusted = beaten(value, drawn), beaten((value - mean) / spread, most)
        carried = sum(name in s.choices for s in samples)
        low, high = drawn[round(0.025 * (SHUFFLES - 1))], drawn[round(0.975 * (SHUFFLES - 1))]
        effects.append(Effect("setting", name, "shuffled scores", value, low, high, carried, 0, p, adjusted))
    return sorted(effects, key=lambda e: -e.value)


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
