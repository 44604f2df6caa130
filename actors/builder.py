"""Building on a cluster: an actor that builds programs in a sandbox, and the driver's pool of such actors.

In: programs' code under keys. Out: a `Build` or a `Rejection` for each, in the order of submission, whatever
becomes of an actor: a dead one is replaced and its unanswered programs are built again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from nas_ray.candidate import Build, Key
from nas_ray.config import RunConfig
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.sandbox import Sandbox


class Builder:
    """Builds programs for one input shape, one at a time. Ray makes an actor of it; it also works as a plain object."""

    def __init__(self, config: RunConfig, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        self._sandbox = Sandbox("cpu", None, config.protocol, config.budget, containment=config.containment)
        self._in_shape = in_shape
        self._out_shape = out_shape

    def build(self, code: str) -> Build | Rejection:
        """Builds one program in a child process of its own."""
        return self._sandbox.build(code, self._in_shape, self._out_shape)


@dataclass(slots=True)
class _Order:
    """A program that is being built."""

    key: Key
    code: str
    builder: int  # which actor has it
    answer: Any  # ObjectRef of a Build or a Rejection
    attempts: int = 1


class BuilderPool:
    """The driver's `config.resources.builders` builders.

    They reserve no CPU, so that building goes on while evaluations fill the cluster: it is a small part of the work.
    """

    def __init__(self, config: RunConfig, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        self._config = config
        self._arguments = (config, in_shape, out_shape)
        self._actors = [self._create() for _ in range(config.resources.builders)]
        self._loads = [0] * len(self._actors)
        self._orders: deque[_Order] = deque()

    def _create(self) -> Any:
        return ray.remote(Builder).options(num_cpus=0).remote(*self._arguments)

    @property
    def in_flight(self) -> int:
        """Programs submitted whose results have not been taken."""
        return len(self._orders)

    def submit(self, key: Key, code: str) -> None:
        """Has `code` built; returns at once."""
        builder = self._loads.index(min(self._loads))
        self._loads[builder] += 1
        self._orders.append(_Order(key, code, builder, self._actors[builder].build.remote(code)))

    def results(self, timeout: float = 0.0) -> list[tuple[Key, Build | Rejection]]:
        """What is finished, in the order of submission; waits up to `timeout` seconds for the next in order."""
        finished: list[tuple[Key, Build | Rejection]] = []
        while self._orders:
            order = self._orders[0]
            ready, _ = ray.wait([order.answer], timeout=0.0 if finished else timeout)
            if not ready:
                break
            result = self._collect(order)
            if result is None:
                continue  # lost with its actor, and ordered again
            self._orders.popleft()
            self._loads[order.builder] -= 1
            finished.append((order.key, result))
        return finished

    def _collect(self, order: _Order) -> Build | Rejection | None:
        """The answer to an order, or None after having it built again."""
        try:
            result: Build | Rejection = ray.get(order.answer)
        except RayError as error:
            reason = str(error).splitlines()[0]
            result = Rejection(Outcome.NODE_LOST, Stage.BUILD, f"the builder was lost: {reason}", type(error).__name__)
            if isinstance(error, RayActorError):
                self._replace(order.builder, order.answer)
        is_fault = isinstance(result, Rejection) and result.outcome.is_engine_fault
        if not is_fault or order.attempts > self._config.resources.retries:
            return result
        order.attempts += 1
        order.answer = self._actors[order.builder].build.remote(order.code)
        return None

    def _replace(self, builder: int, seen: Any) -> None:
        """Replaces a dead actor, once: its other orders fail as well, and find the new one in its place."""
        lost = [order for order in self._orders if order.builder == builder and order.answer is not seen]
        self._actors[builder] = self._create()
        for order in lost:
            if not _is_answered(order.answer):
                order.answer = self._actors[builder].build.remote(order.code)

    def close(self) -> None:
        """Ends the builders and their children."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._loads = [], []
        self._orders.clear()


def _is_answered(answer: Any) -> bool:
    """True where a build was finished before its actor died."""
    ready, _ = ray.wait([answer], timeout=0.0)
    if not ready:
        return False
    try:
        ray.get(answer)
    except RayError:
        return False
    return True
