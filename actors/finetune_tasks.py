"""Fine-tunes as tasks: the board on which the driver posts them, and what Ray Train's workers do with them.

In: a `FinetuneTask`. Out: an `Answer`: the report, and the name of the checkpoint that holds the adapter. The board
outlives the workers, so that those which Ray Train starts anew find the unfinished task there. Its process imports
neither Ray Train nor torch: what the workers need is imported where they run.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas_ray.adapters import fetch_adapter
from nas_ray.config import FinetuneConfig
from nas_ray.finetune_report import FinetuneError, FinetuneReport
from nas_ray.model_folder import resolve_model
from nas_ray.replay import Pair

MOST_THREADS = 8  # more do not help a model that is small enough to be trained on a CPU
TASK_FILE = "task.json"


@dataclass(frozen=True, slots=True)
class FinetuneTask:
    """One fine-tune, all in plain values."""

    version: int
    model: str  # as in the configuration; each worker looks for it on its own node
    pairs: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    config: FinetuneConfig
    style: str
    previous: str  # folder or address of the adapter that wrote the newest pairs; "" for the base model
    seed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task: the report, and the checkpoint in the job's storage that holds the adapter ("": none)."""

    report: FinetuneReport
    checkpoint: str = ""


class TaskBoard:
    """Ray actor: the current task, how often workers took it up, and its answer. All calls come from one event loop."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._number = 0
        self._task: FinetuneTask | None = None
        self._taken = 0
        self._fault = ""
        self._answer: Answer | None = None
        self._closed = False
        self._changed = asyncio.Condition()

    async def put(self, task: FinetuneTask) -> None:
        """Post the next task; the current one again (its job had to be started anew) changes nothing."""
        async with self._changed:
            if task == self._task and self._answer is None:
                return
            self._number += 1
            self._task, self._taken, self._fault, self._answer = task, 0, "", None
            self._changed.notify_all()

    async def take(self, rank: int, after: int) -> tuple[int, int, FinetuneTask] | None:
        """Wait for a task later than number `after`: (number, attempt, task). None: there will be none."""
        async with self._changed:
            while True:
                await self._changed.wait_for(
                    lambda: self._closed or (self._task is not None and self._number > after and self._answer is None)
                )
                if self._closed or self._task is None:
                    return None
                self._taken += rank == 0
                if self._taken <= self._attempts:
                    return self._number, self._taken, self._task
                cause = self._fault or "a worker process was killed or its node lost"
                self._give(Answer(FinetuneReport(reason=f"{self._attempts} attempts failed, the last because {cause}")))

    async def fault(self, what: str) -> None:
        """Note what broke the current attempt, before the worker dies of it."""
        self._fault = what

    async def give(self, number: int, answer: Answer) -> None:
        """Answer task `number`."""
        async with self._changed:
            if number == self._number:
                self._give(answer)

    def _give(self, answer: Answer) -> None:
        self._answer = answer
        self._changed.notify_all()

    async def answer(self, seconds: float) -> Answer | None:
        """Wait up to `seconds` for the current task's answer."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._answer is not None), seconds)
            except TimeoutError:
                return None
            return self._answer

    async def close(self) -> None:
        """Send the workers home."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


def work(settings: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs: the tasks on the board, one after the other."""
    import ray.train

    context = ray.train.get_context()
    board, rank, done = settings["board"], context.get_world_rank(), 0
    while taken := ray.get(board.take.remote(rank, done)):
        number, attempt, task = taken
        try:
            answer = _do(task, number, attempt)
        except Exception as error:
            ray.get(board.fault.remote(f"{type(error).__name__}: {last_line(error)}"))
            raise
        if rank == 0:
            ray.get(board.give.remote(number, answer))
        done = number


def _do(task: FinetuneTask, number: int, attempt: int) -> Answer:
    import ray.train.torch
    import torch
    from transformers.utils import logging

    from nas_ray.likelihood import World
    from nas_ray.lora import train_adapter

    logging.disable_progress_bar()
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())
    device = str(ray.train.torch.get_device())
    if device == "cpu":
        cores = int(task.config.cpus) or len(os.sched_getaffinity(0)) // context.get_local_world_size()
        torch.set_num_threads(max(1, min(cores, MOST_THREADS)))

    def hand_over(folder: Path, name: str) -> None:
        """Every worker calls it; the first one's folder becomes Ray Train's latest checkpoint."""
        checkpoint = ray.train.Checkpoint.from_directory(folder) if world.rank == 0 else None
        ray.train.report({}, checkpoint=checkpoint, checkpoint_dir_name=name)

    def keep(epochs_done: int, loss: float, save: Callable[[Path], None]) -> None:
        if epochs_done == task.config.epochs:
            return  # the finished adapter follows at once
        with tempfile.TemporaryDirectory(prefix="nas-ray-epoch-") as folder:
            if world.rank == 0:
                save(Path(folder))
                (Path(folder) / TASK_FILE).write_text(json.dumps({"number": number}))
            hand_over(Path(folder), f"task-{number}-attempt-{attempt}-epoch-{epochs_done}")

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nas-ray-finetune-")))
        latest = ray.train.get_checkpoint()
        resume = Path(stack.enter_context(latest.as_directory())) if latest else None
        if resume and not _belongs_to(resume, number):
            resume = None
        try:
            report = train_adapter(
                resolve_model(task.model),
                task.pairs,
                task.held_out,
                task.config,
                task.style,
                str(fetch_adapter(task.previous, scratch)) if task.previous else None,
                scratch / "adapter",
                task.seed,
                device,
                on_epoch=keep,
                resume=resume,
                world=world,
            )
        except FinetuneError as error:  # it would be the same in the next attempt
            return Answer(FinetuneReport(reason=str(error)))
        name = f"task-{number}-attempt-{attempt}-adapter"
        hand_over(scratch / "adapter", name)
        return Answer(replace(report, previous=task.previous, version=task.version), name)


def _belongs_to(checkpoint: Path, number: int) -> bool:
    """True for an epoch of the same task; a finished adapter, or another task's epoch, is nothing to go on from."""
    file = checkpoint / TASK_FILE
    return file.exists() and bool(json.loads(file.read_text())["number"] == number)


def last_line(error: BaseException | None) -> str:
    """The line of an error that names the cause: the end of a remote traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
