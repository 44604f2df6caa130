"""A cluster is as strong as its weakest node, and a person is told which one that is."""

from __future__ import annotations

import pytest

from nas_ray.nodes import check_nodes, describe_nodes, name_node
from nas_ray.sandbox.tiers import ContainmentError
from nas_ray.schema import NodeRow


def node(name: str, tier: str, *missing: str) -> NodeRow:
    return NodeRow(node=name, walls=f"tier {tier}: x", tier=tier, host=name, address="10.0.0.1", missing=missing)


@pytest.mark.parametrize("floor", "ABCD")
def test_nodes_at_the_floor_or_above_pass(floor: str) -> None:
    check_nodes([node("n", tier) for tier in "ABCD" if tier <= floor], floor)


def test_a_refusal_names_every_weak_node_with_its_reasons_and_no_strong_one() -> None:
    rows = [node("strong", "A"), node("weak", "C", "no Landlock: ENOSYS", "no bwrap"), node("bare", "D")]
    with pytest.raises(ContainmentError) as caught:
        check_nodes(rows, "B")
    text = str(caught.value)
    assert "2 nodes hold candidates less well than containment.floor = B asks" in text
    assert "node weak (10.0.0.1): tier C; no Landlock: ENOSYS; no bwrap" in text
    assert "node bare (10.0.0.1): tier D; no reason given" in text
    assert "--unsafe" in text
    assert "strong" not in text


def test_a_machine_that_joined_twice_counts_once_and_the_best_tier_comes_first() -> None:
    one, two, again = node("one", "C"), node("two", "A"), node("one", "C")
    assert describe_nodes([one, two, again]) == "Containment: 1 node at tier A: x. 1 node at tier C: x."
    assert describe_nodes([node("one", "A"), two]) == "Containment: 2 nodes at tier A: x."


def test_a_run_without_nodes_says_that_nothing_was_recorded() -> None:
    assert describe_nodes([]) == "Containment: not recorded."


def test_a_node_has_a_name_whatever_is_known_of_it() -> None:
    assert name_node(node("one", "A")) == "one (10.0.0.1)"
    assert name_node(NodeRow(node="0123", walls="")) == "0123"
