"""Probes of the cluster's nodes: how well would each one hold a candidate?

In: whether candidates train on GPUs. Out: a `NodeRow` for each node, found by trying it there; nodes may join at any
time. A probe takes no CPU, so that it is answered on a busy node too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas_ray.sandbox import probe_walls
from nas_ray.sandbox.tiers import NO_WALLS, Walls
from nas_ray.schema import NodeRow

ATTEMPTS = 5  # of a probe that is lost with its worker, while its node lives
LOOK_SECONDS = 0.2


@dataclass(slots=True)
class _Probe:
    """A question that a node has not answered yet."""

    node: dict[str, Any]  # as `ray.nodes()` has it
    answer: Any  # ObjectRef of Walls
    attempts: int = 1


class NodeProbes:
    """Asks every node of the cluster once. Methods are for one thread, the driver's.

    Args:
        gpus: candidates train on GPUs, so a node that has some is tried with them.
        probe: what runs on each node, with "cpu" or "cuda".
    """

    def __init__(self, gpus: bool = False, probe: Callable[[str], Walls] = probe_walls) -> None:
        self._gpus = gpus
        self._task = ray.remote(probe)
        self._asked: dict[str, _Probe] = {}
        self._known: set[str] = set()

    @property
    def unanswered(self) -> list[str]:
        """Living nodes that have not answered yet, by name."""
        nodes = [probe.node for probe in self._asked.values()]
        return [f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in nodes]

    def wait(self, seconds: float) -> list[NodeRow]:
        """The answers of all nodes that are there, or of those that gave one within `seconds`."""
        deadline = time.monotonic() + seconds
        rows = self.poll()
        while self._asked and (left := deadline - time.monotonic()) > 0:
            answers = [probe.answer for probe in self._asked.values()]
            ray.wait(answers, num_returns=len(answers), timeout=min(left, LOOK_SECONDS))
            rows += self.poll()
        return rows

    def poll(self) -> list[NodeRow]:
        """What has been answered since the last call; asks the nodes that have joined. Returns at once."""
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        self._asked = {name: probe for name, probe in self._asked.items() if name in alive}
        for name, node in alive.items():
            if name not in self._known and name not in self._asked:
                self._asked[name] = _Probe(node, self._ask(node))
        rows = [row for probe in self._asked.values() if (row := self._collect(probe)) is not None]
        for row in rows:
            del self._asked[row.node]
            self._known.add(row.node)
        return rows

    def _ask(self, node: dict[str, Any]) -> Any:
        device = "cuda" if self._gpus and node["Resources"].get("GPU", 0) > 0 else "cpu"
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        return self._task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(device)

    def _collect(self, probe: _Probe) -> NodeRow | None:
        """A node's row, or None where the answer is still to come or was lost on the way."""
        ready, _ = ray.wait([probe.answer], timeout=0.0)
        if not ready:
            return None
        try:
            walls: Walls = ray.get(probe.answer)
            missing = walls.missing
        except RayTaskError as error:  # it could not even be tried, so nothing is known to hold
            walls, missing = NO_WALLS, (_first_line(error.cause),)
        except RayError as error:  # the worker is gone, or the node: `poll` then forgets it
            if probe.attempts < ATTEMPTS:
                probe.attempts += 1
                probe.answer = self._ask(probe.node)
                return None
            walls, missing = NO_WALLS, (f"the probe was lost {ATTEMPTS} times: {_first_line(error)}",)
        return NodeRow(
            node=probe.node["NodeID"],
            walls=walls.describe(),
            tier=walls.tier,
            host=probe.node["NodeManagerHostname"],
            address=probe.node["NodeManagerAddress"],
            missing=tuple(missing),
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
