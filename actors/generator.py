"""The language model on a cluster: an actor that holds an engine, and the driver's handle that outlives the actor.

In: generation requests and adapter folders. Out: completions, each exactly once, as they finish. The actor keeps
nothing that the handle cannot give it again: a killed one is replaced, gets the current adapter and the unfinished
requests, and writes the same programs from the same seeds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.engines import Engine, EngineError, EngineStatistics, open_engine
from nas_ray.adapters import fetch_adapter, is_remote
from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.config import RunConfig
from nas_ray.model_folder import ModelError, check_model
from nas_ray.prompts import PromptError

logger = logging.getLogger(__name__)

_CALLS_AHEAD = 2  # calls queued at the actor: it goes on writing while the driver is busy, but not for long without it
_CALL_SECONDS = 0.25  # longest call without a finished program: also the longest wait of a swap
_GATHER_SECONDS = 0.05  # programs finished within this time come back together
_RESTARTS_WITHOUT_PROGRESS = 3
# On a CPU, evaluators go first: their time is measured and limited. Ray's workers have niceness 15, the largest is 19.
_EXTRA_NICENESS = 4
_USER_MISTAKES = (EngineError, ModelError, PromptError)


class GeneratorError(RuntimeError):
    """The generator cannot be placed, cannot start, or dies again and again; the message holds the last reason."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one call of the actor brought."""

    completions: tuple[Completion, ...]
    statistics: EngineStatistics


@dataclass(frozen=True, slots=True)
class GeneratorStatistics:
    """What all actors behind one handle have delivered."""

    engine: str  # "" until the first completion or `ready`
    adapter: int
    completions: int
    tokens: int  # generated
    prompt_tokens: int
    busy_seconds: float  # engine at work, idle time left out
    start_seconds: float  # the last actor's imports and model loading
    swap_seconds: float  # the last adapter's loading inside the actor; 0 before the first
    restarts: int

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second of work; 0 before the first."""
        return self.tokens / self.busy_seconds if self.busy_seconds > 0 else 0.0


class Generator:
    """The actor's body. Calls run one after another in the order they were made, so it needs no thread and no lock.

    It works only inside `advance`: without requests there are no calls, and the process sleeps.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._engine: Engine | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None  # copies of adapters from an object store

    def place(self) -> int:
        """The process id: answers as soon as the actor has a place, before the model is loaded."""
        return os.getpid()

    def open(self) -> EngineStatistics:
        """Load the model. Apart from `__init__`, so that its errors reach the driver as they are."""
        return self._open_engine().statistics()

    def swap(self, folder: str | None, version: int) -> float:
        """Load an adapter for the requests that come after this call; returns the seconds it took."""
        started = time.monotonic()
        engine = self._open_engine()
        if folder is not None and is_remote(folder):
            self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="nas-ray-adapters-")
            folder = str(fetch_adapter(folder, Path(self._scratch.name)))
        engine.load_adapter(folder, version)
        return time.monotonic() - started

    def advance(self, requests: Sequence[GenerationRequest]) -> Progress:
        """Queue `requests`, then write until some programs are finished, or for a moment if none is."""
        engine = self._open_engine()
        for request in requests:
            engine.add(request)
        started = time.monotonic()
        finished: list[Completion] = []
        while engine.busy:
            finished += engine.step()
            if time.monotonic() - started > (_GATHER_SECONDS if finished else _CALL_SECONDS):
                break
        return Progress(tuple(finished), engine.statistics())

    def _open_engine(self) -> Engine:
        if self._engine is None:
            self._engine = open_engine(self._config)
            if self._config.model.gpus == 0:
                _lower_priority()
        return self._engine


class GeneratorHandle:
    """The driver's side. Not thread-safe: one thread adds, polls and swaps.

    The actor reserves `model.gpus` GPUs and, without one, no CPU at all: on a laptop both cores belong to the
    evaluators, and a generator that reserved one would halve them although it writes only while they run out of
    candidates. It runs at a lower priority instead. With a GPU it reserves one CPU, to feed it.
    """

    def __init__(self, config: RunConfig) -> None:
        """Start the actor and its model in the background; `ready` waits for them.

        Raises:
            ModelError: the model cannot be used, found out before anything starts.
        """
        check_model(config.model)
        self._config = config
        self._waiting: dict[tuple[int, int], GenerationRequest] = {}  # unfinished, in order of submission
        self._unsent: list[GenerationRequest] = []
        self._calls: deque[ray.ObjectRef[Progress]] = deque()
        self._swaps: deque[ray.ObjectRef[float]] = deque()
        self._adapter: tuple[str | None, int] = (None, 0)
        self._engine = ""
        self._completions = self._tokens = self._prompt_tokens = self._restarts = self._fruitless = 0
        self._start_seconds = self._swap_seconds = 0.0
        self._busy_before = self._busy_now = 0.0  # of earlier actors, of this one
        self._actor: Any = None
        self._start()

    def _start(self) -> None:
        gpus = self._config.model.gpus
        self._actor = (
            ray.remote(Generator)
            .options(num_cpus=1 if gpus else 0, num_gpus=gpus, max_restarts=0, max_task_retries=0)
            .remote(self._config)
        )
        self._placed: ray.ObjectRef[int] = self._actor.place.remote()
        self._opened: ray.ObjectRef[EngineStatistics] = self._actor.open.remote()
        self._calls.clear()
        self._swaps.clear()
        self._busy_before, self._busy_now = self._busy_before + self._busy_now, 0.0
        if self._adapter[0] is not None:
            self._swaps.append(self._actor.swap.remote(*self._adapter))
        self._unsent = list(self._waiting.values())

    def ready(self, seconds: float = 600.0, report: Callable[[str], None] | None = None) -> EngineStatistics:
        """Wait until the model is loaded. `report` gets a line for a person now and then.

        Raises:
            GeneratorError: no place within `resources.place_seconds`, or not ready within `seconds`, or it died.
            EngineError, ModelError: the engine cannot start.
        """
        deadline = time.monotonic() + seconds
        place_seconds = min(seconds, self._config.resources.place_seconds)
        self._wait(self._placed, time.monotonic() + place_seconds, report, "waiting for a place for the generator")
        if not ray.wait([self._placed], timeout=0)[0]:
            everything: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            raise GeneratorError(
                f"no node has room for the generator within {place_seconds:g} s: it needs {self._config.model.gpus:g} "
                f"GPU(s) (model.gpus); the cluster has {everything.get('GPU', 0):g} GPU(s) in all and "
                f"{free.get('GPU', 0):g} free"
            )
        self._wait(self._opened, deadline, report, f"loading the language model {self._config.model.path!r}")
        if not ray.wait([self._opened], timeout=0)[0]:
            raise GeneratorError(f"the language model {self._config.model.path!r} was not loaded within {seconds:g} s")
        try:
            statistics = ray.get(self._opened)
        except RayTaskError as error:
            raise _cause(error) from error
        except RayActorError as error:
            raise GeneratorError(f"the generator died while it loaded its model: {_last_line(error)}") from error
        self._engine, self._start_seconds = statistics.engine, statistics.start_seconds
        return statistics

    def _wait(self, call: Any, deadline: float, report: Callable[[str], None] | None, what: str) -> None:
        started = time.monotonic()
        while not ray.wait([call], timeout=min(5.0, max(0.0, deadline - time.monotonic())))[0]:
            if time.monotonic() >= deadline:
                return
            if report is not None:
                report(f"{what} ({time.monotonic() - started:.0f} s)")

    def add(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue requests; returns at once. They are written by the adapter of the last `swap` before this call.

        Raises:
            ValueError: a request with the same cycle and index is unfinished.
        """
        for request in requests:
            key = (request.cycle, request.index)
            if key in self._waiting:
                raise ValueError(f"the request of cycle {key[0]}, index {key[1]} is being written already")
            self._waiting[key] = request
            self._unsent.append(request)
        self._ask()

    @property
    def unfinished(self) -> int:
        """Requests added and not yet delivered."""
        return len(self._waiting)

    def poll(self, timeout: float = 0.0) -> list[Completion]:
        """The programs finished since the last call, in any order; waits up to `timeout` seconds for the first.

        Raises:
            PromptError: a prompt does not fit into the context.
            EngineError: an adapter cannot be loaded.
            GeneratorError: the actor died again and again without finishing anything.
        """
        deadline = time.monotonic() + timeout
        fresh: list[Completion] = []
        try:
            while self._swaps and ray.wait([self._swaps[0]], timeout=0)[0]:
                self._swap_seconds = ray.get(self._swaps[0])
                self._swaps.popleft()
            self._ask()
            while self._calls:
                patience = 0.0 if fresh else max(0.0, deadline - time.monotonic())
                if not ray.wait([self._calls[0]], timeout=patience)[0]:
                    break
                fresh += self._receive(ray.get(self._calls[0]))
                self._calls.popleft()
                self._ask()
        except RayActorError as error:
            self._replace(error)
        except RayTaskError as error:
            cause = _cause(error)
            if isinstance(cause, _USER_MISTAKES):
                raise cause from error
            self._replace(error)
        return fresh

    def stream(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion]:
        """Add requests and yield completions as they finish, until nothing is unfinished."""
        self.add(requests)
        while self._waiting:
            yield from self.poll(timeout=1.0)

    def swap(self, folder: str | None, version: int) -> None:
        """Write the requests added from now on with the adapter in `folder`; None and 0: with the base model.

        Returns at once; requests added before keep the adapter they had, unless the actor dies and they are written
        anew: a completion says which adapter wrote it. A folder that cannot be loaded shows in `poll` or `synchronise`.
        """
        self._ask()  # what was added before the swap is sent before it
        self._adapter = (folder, version)
        self._swaps.append(self._actor.swap.remote(folder, version))

    def synchronise(self, seconds: float = 120.0) -> None:
        """Wait until the last swap is done.

        Raises:
            EngineError: the adapter cannot be loaded.
            GeneratorError: not done within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while self._swaps:
            if not ray.wait([self._swaps[0]], timeout=max(0.0, deadline - time.monotonic()))[0]:
                raise GeneratorError(f"the adapter {self._adapter[0]!r} was not loaded within {seconds:g} s")
            try:
                self._swap_seconds = ray.get(self._swaps[0])
                self._swaps.popleft()
            except RayActorError as error:
                self._replace(error)
            except RayTaskError as error:
                self._swaps.popleft()
                raise _cause(error) from error

    def statistics(self) -> GeneratorStatistics:
        """Counts over all actors so far; no call to the actor."""
        return GeneratorStatistics(
            self._engine, self._adapter[1], self._completions, self._tokens, self._prompt_tokens,
            self._busy_before + self._busy_now, self._start_seconds, self._swap_seconds, self._restarts,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Process id of the actor in use, on its node."""
        return ray.get(self._placed)

    def close(self) -> None:
        """End the actor; unfinished requests are forgotten."""
        self._waiting.clear()
        self._unsent.clear()
        self._calls.clear()
        self._swaps.clear()
        if self._actor is not None:
            # The kernel frees the model's memory, on a GPU too; an orderly end could wait behind a long call.
            with contextlib.suppress(RayActorError):
                ray.kill(self._actor)
            self._actor = None

    def _ask(self) -> None:
        """Keep a few calls queued at the actor while there is something to write."""
        if self._unsent:
            self._calls.append(self._actor.advance.remote(tuple(self._unsent)))
            self._unsent = []
        while self._waiting and len(self._calls) < _CALLS_AHEAD:
            self._calls.append(self._actor.advance.remote(()))

    def _receive(self, progress: Progress) -> list[Completion]:
        self._busy_now = progress.statistics.busy_seconds
        self._engine, self._start_seconds = progress.statistics.engine, progress.statistics.start_seconds
        fresh = [done for done in progress.completions if self._waiting.pop((done.cycle, done.index), None) is not None]
        self._completions += len(fresh)
        self._tokens += sum(done.tokens for done in fresh)
        self._prompt_tokens += sum(done.prompt_tokens for done in fresh)
        if fresh:
            self._fruitless = 0
        return fresh

    def _replace(self, error: Exception) -> None:
        """Start a new actor after a death; what was not delivered is written again from the same seeds."""
        self._fruitless += 1
        self._restarts += 1
        if self._fruitless > _RESTARTS_WITHOUT_PROGRESS:
            raise GeneratorError(
                f"the generator died {self._fruitless} times without finishing a program; the last time: "
                f"{_last_line(error)}"
            ) from error
        logger.warning("the generator died (%s); starting it again", _last_line(error))
        with contextlib.suppress(RayActorError):
            ray.kill(self._actor)
        self._start()


def _lower_priority() -> None:
    """Make this process yield to the evaluators; on Linux every thread has a priority of its own."""
    niceness = min(os.getpriority(os.PRIO_PROCESS, 0) + _EXTRA_NICENESS, 19)
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.setpriority(os.PRIO_PROCESS, int(thread), niceness)


def _cause(error: RayTaskError) -> Exception:
    """The exception that was raised inside the actor, without Ray's wrapping."""
    return error.cause if isinstance(error.cause, Exception) else error


def _last_line(error: Exception) -> str:
    """An error in one short line: Ray's messages run over many and begin with the least telling."""
    detail = re.search(r"Worker exit detail: (.+?)\.(?:\s|$)", str(error))
    if detail:
        return detail.group(1)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
