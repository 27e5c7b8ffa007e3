"""What is put into a study comes out of its explanation; what cannot be told is not told."""

import itertools
import json
import random
from collections import defaultdict
from statistics import fmean

import pytest

from dermsearch.curriculum import ARROW, Curriculum
from dermsearch.errors import UserError
from dermsearch.papers.published import published
from dermsearch.results.board.leaderboard import ordering
from dermsearch.results.explain.effects import Effect, contrast, holm, share
from dermsearch.results.explain.evidence import Evidence, Observed, from_study, gather, level_seeds
from dermsearch.results.explain.explain import (
    APART,
    REVERSED,
    explain,
    pair_effects,
    place_effects,
    task_effects,
    variance_shares,
)
from dermsearch.results.explain.text import comparison, findings
from dermsearch.results.tables.schema import Results, build

TASKS = ("relative_location", "moco_v2", "odc")
CURRICULA = [c for length in (1, 2, 3) for c in itertools.permutations(TASKS, length)]


def evidence(scores, curricula=CURRICULA):
    """Made-up evidence: `scores` gives a curriculum's score, or its scores by seed."""
    found = {c: scores(c) for c in curricula}
    found = {c: v if isinstance(v, dict) else {0: v} for c, v in found.items()}
    single = {c[0]: fmean(v.values()) for c, v in found.items() if len(c) == 1}
    rows = [Observed(c, v, ordering(Curriculum(c), single)) for c, v in found.items()]
    return Evidence("made up", "score (%)", rows, [], [])


def by_name(effects):
    return {(e.part, e.name, e.against): e for e in effects}


def value(effects, **wanted):
    return next(e.value for e in effects if all(getattr(e, k) == v for k, v in wanted.items()))


def test_what_tasks_add_comes_out():
    worth = dict(zip(TASKS, (0.03, -0.02, 0.0), strict=True))
    found = list(task_effects(evidence(lambda c: 0.5 + sum(worth[t] for t in c))))
    assert {e.name: e.value for e in found} == pytest.approx(worth, abs=1e-9)
    # One length only: nothing is left out of a curriculum without something else being in it.
    pairs = [c for c in CURRICULA if len(c) == 2]
    found = list(task_effects(evidence(lambda c: 0.5 + sum(worth[t] for t in c), pairs)))
    assert found[0].against == "another task instead"
    assert value(found, name="moco_v2") == pytest.approx(-0.02 - 0.015)


def test_the_last_task_comes_out_and_nothing_else_does():
    worth = dict(zip(TASKS, (0.03, -0.02, 0.01), strict=True))
    made = evidence(lambda c: 0.5 + worth[c[-1]])
    found = by_name(holm(place_effects(made)))
    for task in TASKS:
        effect = found["last", task, "another of the same tasks"]
        assert effect.value == pytest.approx(worth[task] - fmean(worth[t] for t in TASKS if t != task))
        assert effect.told
    assert [e.value for key, e in found.items() if key[0] == "first"] == pytest.approx([0, 0, 0], abs=1e-9)
    assert not [e for key, e in found.items() if key[0] == "first" and e.told]
    shares = by_name(holm(variance_shares(made)))
    assert shares["share", "the last task", ""].value == pytest.approx(1)
    assert shares["share", "the last task", "which tasks"].told
    assert shares["share", "rising or falling", "the last task"].value == pytest.approx(0, abs=1e-9)
    assert "The last task explains more" in comparison(shares.values())


def test_neighbours_come_out():
    found = list(pair_effects(evidence(lambda c: 0.5 + 0.04 * (("odc", "moco_v2") in itertools.pairwise(c)))))
    assert value(found, name="moco_v2 > odc", against=REVERSED) == pytest.approx(-0.04)
    assert value(found, name="odc > moco_v2", against=APART) == pytest.approx(0.04)
    assert value(found, name="moco_v2 > odc", against=APART) == pytest.approx(0, abs=1e-9)


def test_order_comes_out():
    single = dict(zip(TASKS, (0.5, 0.6, 0.7), strict=True))

    def score(c):
        return (
            single[c[0]] if len(c) == 1 else 0.7 + {"C": 0.05, "AC": -0.03, "MC": 0.0}[ordering(Curriculum(c), single)]
        )

    made = evidence(score)
    assert value(place_effects(made), part="order") == pytest.approx(0.08)
    shares = holm(variance_shares(made))
    assert value(shares, name="rising or falling", against="") == pytest.approx(1)
    assert "Rising or falling explains more of the differences than the last task" in comparison(shares)


def test_a_share_is_what_its_groups_means_say():
    """Table 1 of AISEEME, recomputed by hand: the last task explains more than the order does."""
    chains = {tuple(c.split(ARROW)): 100 * v for c, v in published("aiseeme_table1").items() if ARROW in c}
    last = defaultdict(list)
    for c, v in chains.items():
        last[c[-1]].append(v)
    grand = fmean(chains.values())
    between = sum(len(v) * (fmean(v) - grand) ** 2 for v in last.values())
    expected = between / sum((v - grand) ** 2 for v in chains.values())
    found = by_name(explain(gather("aiseeme_table1")).shares)
    assert found["share", "the last task", ""].plain == pytest.approx(expected)
    assert found["share", "the last task", ""].value == pytest.approx(1 - (1 - expected) * 11 / 9)  # adjusted
    assert found["share", "the last task", ""].p < 0.001 < 0.5 < found["share", "rising or falling", ""].p
    assert not any(effect.told for effect in found.values()), "of one run it may be luck of the first stages"
    assert found["share", "rising or falling", ""].plain < 0.2 < 0.8 < expected


def test_published_tables_are_explained_and_told_with_care():
    first = " ".join(findings(explain(gather("aiseeme_table1"))))
    assert first.endswith("explains more cannot be told: one seed tells nothing.")
    second = " ".join(findings(explain(gather("aiseeme_table2"))))
    assert "22 curricula" in second and "cannot be told" in second


def test_order_whichever_way_needs_seeds():
    """Four times as much variance from order as from the noise of a mean: the share is put in, and comes out."""
    rng = random.Random(0)
    order = {c: rng.gauss(0, 0.02) for c in CURRICULA}

    def scores(c):
        return {seed: 0.5 + order[c] + rng.gauss(0, 0.005) for seed in range(4)}

    found = by_name(variance_shares(evidence(scores)))["share", "order, whichever way", "which tasks"]
    assert found.p < 0.001 and 0.5 < found.value < found.plain < 1
    assert not [e for e in variance_shares(evidence(lambda c: order[c])) if e.name.startswith("order")]


def test_a_lucky_seed_makes_no_curriculum_better():
    scores = [{0: 0.6, 1: 0.5}, {0: 0.7, 1: 0.6}, {0: 0.6}]
    assert [fmean(v.values()) for v in level_seeds(scores)] == pytest.approx([0.55, 0.65, 0.55])
    assert level_seeds([{0: 0.6}, {1: 0.5}]) == [{0: 0.6}, {1: 0.5}]


def test_seeds_that_only_the_best_settings_have_make_no_curriculum_better(make_study):
    """As `replicates: leaders` leaves it: the better of two rates has a second seed, the other has not."""
    results = make_study(longest=1, settings={"odc": [{"lr": 0.1}, {"lr": 0.2}]}, seeds=(0, 1))
    lr = {s["key"]: json.loads(s["settings"])["lr"] for s in results.stages.to_pylist() if s["task"] == "odc"}
    scores = [
        s | {"value": {0.1: 0.5, 0.2: 0.7}[lr[s["stage"]]]} if s["stage"] in lr else s
        for s in results.scores.to_pylist()
        if not (lr.get(s["stage"]) == 0.1 and s["seed"] == 1)
    ]
    fewer = Results(results.folder, results.study, results.tables | {"scores": build("scores", scores)})
    odc = next(o for o in from_study(fewer).curricula if o.tasks == ("odc",))
    assert odc.score == pytest.approx(0.6, abs=0.01) and sorted(odc.values) == [("", 0), ("", 1)]


def test_a_place_is_told_of_the_tasks_that_were_tried_there():
    """A search need not have put every task last: the others are told all the same."""
    worth = dict(zip(TASKS, (0.03, -0.02, 0.0), strict=True))
    some = [*CURRICULA, ("simclr",), ("simclr", "odc"), ("byol", "swav"), ("swav", "byol")]
    found = by_name(place_effects(evidence(lambda c: 0.5 + worth.get(c[-1], 0.1 * (c[-1] == "byol")), some)))
    against = "another of the same tasks"
    assert found["last", "relative_location", against].value == pytest.approx(0.03 + 0.01)
    assert found["last", "byol", against].value == pytest.approx(0.1)
    assert ("last", "simclr", against) not in found


def test_holm():
    effects = [Effect("task", n, "", 1.0, 0.5, 1.5, 9, 5, p) for n, p in (("a", 0.04), ("b", 0.01), ("c", 0.03))]
    assert [e.adjusted for e in holm(effects)] == pytest.approx([0.06, 0.03, 0.06])
    assert [e.told for e in holm(effects)] == [False, True, False]


def test_what_rows_cannot_tell_is_none():
    assert contrast([[1, 1], [1, 1]], [0.5, 0.6], [0, 1]) is None
    alone = contrast([[1, 0], [1, 1]], [0.5, 0.6], [0, 1])
    assert alone.value == pytest.approx(0.1) and alone.interval == (None, None) and alone.p is None
    assert share([[]] * 3, [[1.0], [1.0], [1.0]], [1, 2, 3]) is None
    assert share([[]] * 3, [[1.0, 0], [0, 1], [0, 0]], [1, 2, 3]) is None  # nothing is left over


@pytest.mark.parametrize("curricula", [CURRICULA[:1], CURRICULA[:2], CURRICULA[:4], CURRICULA[3:5], CURRICULA[-2:]])
def test_a_few_curricula_tell_nothing_and_break_nothing(curricula):
    rng = random.Random(3)
    found = explain(evidence(lambda c: rng.random(), curricula))
    assert not [e for e in found.effects if e.told]
    assert findings(found)


def test_a_task_may_come_twice():
    twice = [*itertools.product("ab", repeat=2), ("a",), ("b",)]
    found = explain(evidence(lambda c: 0.5 + 0.02 * c.count("a"), twice))
    assert value(found.tasks, name="a") - value(found.tasks, name="b") == pytest.approx(0.02)


def test_tables_of_a_study(make_study):
    worth = dict(zip(TASKS, (0.03, -0.02, 0.01), strict=True))
    values = {ARROW.join(c): 0.6 + worth[c[-1]] for c in CURRICULA}
    results = make_study(values=values, seeds=(0, 1, 2), failed={"odc > moco_v2": "failed"}, study={"name": "skin"})
    found = gather(results.folder)
    assert found.title == "skin" and len(found.curricula) == 13 and found.seeds == [("", s) for s in range(3)]
    assert found.quantity == "balanced accuracy of diagnosis, validation (%), knn"
    assert {(d.name, d.status) for d in found.dropped} == {
        ("odc > moco_v2", "failed"),
        ("odc > moco_v2 > relative_location", "dropped"),
    }
    effect = by_name(explain(found).places)["last", "moco_v2", "another of the same tasks"]
    assert effect.value == pytest.approx(-0.04) and effect.told
    assert gather(results.folder, protocol="linear").quantity.endswith("linear")


def test_settings_average_into_their_curriculum(make_study):
    results = make_study(longest=1, settings={"odc": [{"lr": 0.1}, {"lr": 0.2}]}, seeds=(0, 1))
    odc = next(o for o in gather(results.folder).curricula if o.tasks == ("odc",))
    keys = {s["key"] for s in results.stages.to_pylist() if s["curriculum"] == "odc"}
    knn = [
        s for s in results.scores.to_pylist() if s["stage"] in keys and s["protocol"] == "knn" and s["split"] == "val"
    ]
    assert odc.score == pytest.approx(fmean(s["value"] for s in knn if s["metric"] == "balanced_accuracy"))
    assert json.loads(results.trials.to_pylist()[-1]["settings"]) == {"odc.lr": 0.2}


def test_wrong_sources(make_study, tmp_path):
    with pytest.raises(UserError, match="did you mean 'aiseeme_table1'"):
        gather("aiseme_table1")
    with pytest.raises(UserError, match=r"has no tables/trials\.arrow"):
        gather(tmp_path)
    with pytest.raises(UserError, match="--metric: goes with a study's folder"):
        gather("aiseeme_table1", metric="auc")
    nothing = make_study(longest=1, failed=dict.fromkeys(TASKS, "failed"))
    with pytest.raises(UserError, match="no curriculum has been scored yet"):
        gather(nothing.folder)


def test_more_is_said_only_where_intervals_do_not_meet():
    last, order = "the last task", "rising or falling"

    def shares(first, second, p):
        alone = [Effect("share", name, "", 0.5, 0.2, 0.7, 12, 9, 0.01, 0.01) for name in (last, order)]
        both = [(last, order, first, p), (order, last, second, 0.5)]
        return alone + [Effect("share", n, a, 0.4, *ends, 12, 7, q, q) for n, a, ends, q in both]

    assert comparison(shares((0.3, 0.6), (0.0, 0.2), 0.01)).startswith("The last task explains more")
    meets = comparison(shares((0.1, 0.6), (0.0, 0.2), 0.01))
    assert meets.endswith("cannot be told: the last task adds to rising or falling.")
    assert comparison(shares((0.0, 0.6), (0.0, 0.2), 0.2)).endswith("neither is told from chance beside the other.")
    assert not comparison([])
