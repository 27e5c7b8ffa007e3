"""How long the rest takes: the work over the workers, but no less than the longest chain."""

from __future__ import annotations

from dermsearch.search.tree.durations import Durations
from dermsearch.search.tree.node import Node
from dermsearch.search.tree.tree import Tree
from dermsearch.work.job import Judge

FINETUNE = Judge(protocol="finetune", version=1, config={}, data="data", labelled="5", draw=0)
SETTINGS = {"train": {"epochs": 10}}


def measured(seconds: float) -> Durations:
    """Every unit of cost took so many seconds."""
    durations = Durations()
    durations.learn(Node("other", 0, Node("root", 0), "other", cost=1.0, record={"seconds": seconds}))
    return durations


def grown(durations: Durations, *chains: tuple[float, ...]) -> tuple[Tree, list[list[Node]]]:
    """A chain of stages of such costs for each of the arguments, all granted."""
    tree = Tree(expect=durations.expected)
    root, grown = tree.root("root", 0), []
    for i, costs in enumerate(chains):
        nodes = [root]
        for depth, cost in enumerate(costs):
            nodes.append(tree.child(nodes[-1], f"{i}-{depth}", f"task{i}", SETTINGS, cost))
            tree.grant(nodes[-1])
        grown.append(nodes[1:])
    tree.done(root, False)
    return tree, grown


def test_nothing_is_known_before_a_stage_was_measured() -> None:
    tree, _ = grown(Durations(), (1.0,))
    assert Durations().left(tree, {}) is None


def test_before_a_stage_is_finished_those_under_way_tell() -> None:
    durations = Durations()
    tree, ((first, _), (other,)) = grown(durations, (10.0, 10.0), (5.0,))
    tree.begin(first)
    assert durations.left(tree, {first.key: 0}, {first.key: 0.0}) is None
    assert durations.left(tree, {first.key: 5}, {first.key: 20.0}) == 4 * 20, "5 of 25 are done in 20 s; one at a time"
    tree.begin(other)
    assert durations.left(tree, {first.key: 5, other.key: 4}, {first.key: 20.0, other.key: 8.0}) == 4 * 15
    durations = measured(2.0)
    assert durations.left(tree, {first.key: 5}, {first.key: 20.0}) == durations.left(tree, {first.key: 5})


def test_a_chain_cannot_be_worked_on_side_by_side() -> None:
    durations = measured(2.0)
    tree, ((first, second), (alone,)) = grown(durations, (10.0, 10.0), (5.0,))
    for node in (first, alone):
        tree.begin(node)
    assert durations.left(tree, {}) == 2 * 20, "more than 50 / 2"
    assert durations.left(tree, {first.key: 5}) == 2 * 15, "half of the first one is behind it"
    assert durations.left(tree, {alone.key: 9}) == 2 * 20, "and the chain does not get shorter by others' work"
    tree.done(first, False)
    assert durations.left(tree, {}) == 2 * 10
    tree.leave(second)
    assert durations.left(tree, {}) == 2 * 5, "what the budget has no room for is not waited for"


def test_work_is_shared_by_as_many_as_were_under_way() -> None:
    durations = measured(2.0)
    tree, chains = grown(durations, *[(10.0,)] * 8)
    for (node,) in chains[:2]:
        tree.begin(node)
    assert durations.left(tree, {}) == 2 * 80 / 2
    assert durations.left(tree, {node.key: 5 for (node,) in chains[:2]}) == 2 * 70 / 2


def test_of_a_stage_behind_a_segment_only_its_own_epochs_are_left() -> None:
    durations = measured(1.0)
    tree = Tree(expect=durations.expected)
    root = tree.root("root", 0)
    segment = tree.child(root, "s", "task", SETTINGS, 4.0, until=4, stage="whole")
    whole = tree.child(segment, "whole", "task", SETTINGS, 6.0)
    for node in (segment, whole):
        tree.grant(node)
    assert durations.left(tree, {}) == 10
    tree.done(segment, False)
    tree.begin(whole)
    assert durations.left(tree, {whole.key: 4}) == 6 and durations.left(tree, {whole.key: 7}) == 3
    assert durations.left(tree, {whole.key: 2}) == 6, "epochs of an attempt that was lost"


def test_what_lies_ahead_changes_with_what_was_learnt_and_what_was_lost() -> None:
    durations = measured(1.0)
    tree, ((first, second, third), (other,)) = grown(durations, (1.0, 1.0, 1.0), (2.5,))
    assert [n.ahead for n in (first, second, third, other)] == [3, 2, 1, 2.5]
    durations.learn(Node("x", 0, Node("root", 0), "task0", cost=1.0, record={"seconds": 5.0}))
    tree.expect_anew()
    assert (first.ahead, second.ahead) == (15, 10)
    assert other.ahead == 2.5 * 3, "of its own task nothing is known, of all: 6 seconds for 2 units of cost"
    beside = tree.child(first, "beside", "task0", SETTINGS, 1.5)
    tree.grant(beside)
    tree.expect_anew()
    assert first.ahead == 15, "of two ways on the longer"
    tree.leave(beside)
    tree.leave(third)
    tree.expect_anew()
    assert first.ahead == 10
    tree.fail(second, "on purpose")
    tree.expect_anew()
    assert first.ahead == 5


def test_what_a_process_judges_first_is_not_taken_for_the_rule() -> None:
    """Of judging the shortest time counts, and it does not grow with what a stage costs."""
    durations = Durations()
    tree, ((first, second), (third,)) = grown(durations, (1.0, 10.0), (1.0,))
    durations.learn(Node("root", 0, None, record={"judge_seconds": 9.0}))
    assert durations.left(tree, {}) is None, "of judging alone nothing follows"
    tree.begin(first)
    first.record = {"seconds": 2.0, "judge_seconds": 8.0}
    assert durations.learn(first)
    tree.done(first, False)
    tree.expect_anew()
    assert durations.left(tree, {}) == (2 * 10 + 8) + (2 * 1 + 8)
    third.record = {"seconds": 2.0, "judge_seconds": 1.0}
    assert durations.learn(third) and durations.expected(second) == 2 * 10 + 1
    fit = Node("fit", 0, first, "finetune", judge=FINETUNE, cost=1.0, record={"seconds": 3.0, "judge_seconds": 0.1})
    durations.learn(fit)
    assert durations.expected(second) == 21 and durations.expected(fit) == 3.1, "fits are judged in a time of their own"
    tree.begin(second)
    assert durations.left(tree, {second.key: 10}) == 8 + (2 * 1 + 8), "trained, it is yet to be judged"


def test_who_shows_what_is_left_may_ask_while_another_task_is_measured() -> None:
    durations = measured(1.0)

    class Meanwhile(float):
        """Seconds that are summed up as a stage of another task comes out."""

        def __radd__(self, other: float) -> float:
            durations.own.setdefault("new", (1.0, 1.0))
            return other + float(self)

    durations.own = {"a": (1.0, Meanwhile(2.0)), "b": (1.0, 4.0)}
    assert durations.rate("unknown") == 3.0 and "new" in durations.own
