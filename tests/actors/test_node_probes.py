"""Every node of a cluster is asked once, and one that cannot answer holds nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import ray

from actors.nodes import NodeProbes
from nas_ray.sandbox import probe_walls
from nas_ray.sandbox.tiers import NO_WALLS, Walls

GOOD = Walls(privileges="capabilities", landlock=7, seccomp=True, witness=True)
SECONDS = 120.0


def test_each_node_answers_once_with_what_it_has(ray_session: None) -> None:
    probes = NodeProbes()
    (row,) = probes.wait(SECONDS)
    (node,) = ray.nodes()
    walls = probe_walls()
    assert (row.node, row.host, row.address) == (
        node["NodeID"],
        node["NodeManagerHostname"],
        node["NodeManagerAddress"],
    )
    assert (row.tier, row.walls, len(row.missing)) == (walls.tier, walls.describe(), len(walls.missing))
    assert (probes.poll(), probes.wait(1.0), probes.unanswered) == ([], [], [])


def test_a_node_that_is_full_answers_too(ray_session: None) -> None:
    @ray.remote(num_cpus=2)
    def fill() -> None:
        time.sleep(60)

    filling = fill.remote()
    try:
        assert [row.tier for row in NodeProbes(probe=lambda device: GOOD).wait(50.0)] == ["A"]
    finally:
        ray.cancel(filling, force=True)


def test_a_probe_that_fails_counts_as_no_walls_and_says_why(ray_session: None) -> None:
    def fail(device: str) -> Walls:
        raise OSError(f"no {device} here\nsecond line")

    (row,) = NodeProbes(probe=fail).wait(SECONDS)
    assert (row.tier, row.walls) == ("D", NO_WALLS.describe())
    assert row.missing == ("OSError: no cpu here",)


def test_a_probe_that_is_lost_with_its_worker_is_sent_again(ray_session: None, tmp_path: Path) -> None:
    def die_once(device: str) -> Walls:
        seen = tmp_path / "seen"
        if not seen.exists():
            seen.touch()
            os._exit(1)
        return GOOD

    assert [row.tier for row in NodeProbes(probe=die_once).wait(SECONDS)] == ["A"]


def test_a_node_on_which_every_probe_is_lost_holds_nothing(ray_session: None) -> None:
    (row,) = NodeProbes(probe=lambda device: os._exit(1)).wait(SECONDS)
    assert row.tier == "D"
    assert "the probe was lost" in row.missing[0]


def test_a_slow_node_is_named_until_it_answers(ray_session: None) -> None:
    def dawdle(device: str) -> Walls:
        time.sleep(4)
        return GOOD

    probes = NodeProbes(probe=dawdle)
    assert probes.wait(1.0) == []
    (node,) = ray.nodes()
    assert probes.unanswered == [f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"]
    assert [row.tier for row in probes.wait(SECONDS)] == ["A"]
    assert probes.unanswered == []
