from __future__ import annotations

import random

from dermsearch.search.tree.node import DONE, DROPPED, HELD, LOST, Node, critical_path, startable
from dermsearch.search.tree.tree import Tree


def grown(seed: int, stages: int = 60) -> Tree:
    """A random tree of stages with random costs, all granted."""
    dice = random.Random(seed)
    tree = Tree()
    nodes = [tree.root("root", 0)]
    for i in range(stages):
        parent = dice.choice(nodes)
        nodes.append(tree.child(parent, f"n{i}", f"n{i}", {}, dice.choice([1.0, 2.0, 5.0])))
        tree.grant(nodes[-1])
    return tree


def longest(node: Node) -> float:
    """The slow way."""
    return node.expected + max((longest(child) for child in node.children), default=0.0)


def test_what_lies_ahead_is_the_longest_chain_below() -> None:
    for seed in range(20):
        tree = grown(seed)
        assert all(node.ahead == longest(node) for node in tree.nodes.values())


def test_the_heap_gives_what_a_look_at_every_node_would() -> None:
    """Random work on random trees: stages begin, finish, fail, go to other runs and come back."""
    for seed in range(30):
        dice, tree = random.Random(f"{seed}"), grown(seed)
        under_way: list[Node] = []
        while True:
            node = tree.ready()
            could = [n for n in tree.nodes.values() if startable(n)]
            assert node is min(could, key=critical_path, default=None)
            if node is None and not under_way:
                break
            if node is not None and (not under_way or dice.random() < 0.6):
                tree.begin(node, HELD if dice.random() < 0.2 else "running")
                under_way.append(node)
                continue
            ended = under_way.pop(dice.randrange(len(under_way)))
            if ended.status == HELD and dice.random() < 0.5:
                tree.release(ended)
            elif dice.random() < 0.1:
                tree.fail(ended, "on purpose")
            else:
                ended.value = dice.random()
                tree.done(ended, False)
            if dice.random() < 0.1:
                tree.expect_anew()
        assert all(n.status in (DONE, *LOST) for n in tree.nodes.values())
        assert tree.settled == tree.wanted == 60


def test_of_equal_chains_what_follows_the_better_stage_goes_first() -> None:
    tree = Tree()
    root = tree.root("root", 0)
    tree.done(root, False)
    worse, better = (tree.child(root, k, k, {}) for k in ("worse", "better"))
    after = [tree.child(parent, parent.key + "2", "next", {}) for parent in (worse, better)]
    for node in (worse, better, *after):
        tree.grant(node)
    for node, value in ((worse, 0.4), (better, 0.6)):
        node.value = value
        tree.done(node, False)
    assert tree.ready() is after[1]


def test_nothing_starts_that_the_budget_has_no_room_for() -> None:
    tree = Tree()
    root = tree.root("root", 0)
    first, second = (tree.child(root, k, k, {}) for k in "ab")
    tree.done(root, False)
    assert tree.ready() is None
    tree.grant(second)
    assert tree.ready() is second
    tree.leave(second)
    assert tree.ready() is None
    tree.grant(first)
    assert tree.ready() is first


def test_a_stage_proposed_under_one_that_failed_is_born_pruned() -> None:
    tree = Tree()
    failed = tree.child(tree.root("root", 0), "a", "a", {})
    tree.grant(failed)
    tree.fail(failed, "nan")
    late = tree.child(failed, "b", "b", {})
    assert late.status == DROPPED and late.error == "dropped: a failed"
    assert tree.child(late, "c", "c", {}).error == "dropped: a failed"
