"""The sandbox: runs programs in killable children and says how each one ended.

In: a program's code. Out: a `Build`, a `Rejection` or a `Measurement`, never an exception for anything that a
program did.

Three processes: this one (the supervisor) keeps the validation labels and grades; the zygote is warm and forks; a
child runs one program. The child gets training data and, when it has trained, validation images; logits come back
through a buffer of fixed size that is read only after the child is dead. Covers: endless loops, deadlocks, memory,
crashes, floods of output, stray processes, forged messages. Does NOT cover: files, the network and other processes
of the same user (see `confinement`), so run code from a model you do not trust on a machine that holds nothing you
would miss.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_ray.candidate import Build, Measurement
from nas_ray.config import BudgetConfig, ProtocolConfig
from nas_ray.datasets import Dataset
from nas_ray.grading import Diverged, InvalidOutput, grade
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.sandbox.launcher import Zygote, ZygoteLost
from nas_ray.sandbox.memory import create_buffer, read_logits, share_arrays
from nas_ray.sandbox.messages import Failed, Step, Trained
from nas_ray.sandbox.output import OutputTail
from nas_ray.sandbox.watchdog import Ending, Limits, Unkillable, Watchdog
from nas_ray.sandbox.weights import InvalidWeights, read_weights

GIB = 1 << 30


class Training(NamedTuple):
    """A training and what it left behind; where it failed, the measurement alone."""

    measurement: Measurement
    logits: NDArray[np.float32] | None  # (validation images, classes)
    weights: bytes  # a safetensors file; empty after `evaluate`


class Sandbox:
    """One evaluation slot: a warm zygote and, while a program runs, one child. Not for use by two threads at once.

    Args:
        device: what candidates train on, "cpu" or "cuda"; building happens on the meta device anyway.
        dataset: for `evaluate`; None for a sandbox that only builds.
        threads: that a child may compute with.
    """

    def __init__(
        self, device: str, dataset: Dataset | None, protocol: ProtocolConfig, budget: BudgetConfig, threads: int = 1
    ) -> None:
        self._device = device
        self._budget = budget
        self._dataset = dataset
        self._opening: dict[str, Any] = {
            "device": device,
            "protocol": protocol.model_dump(),
            "budget": budget.model_dump(),
            "threads": threads,
        }
        self._training_handles: list[int] = []
        self._validation_handle = -1
        self._data_bytes = 0
        if dataset is not None:
            self._share(dataset)
        self._zygote: Zygote | None = None
        self.start()

    def _share(self, dataset: Dataset) -> None:
        training: dict[str, NDArray[Any]] = {"images": dataset.train_images, "labels": dataset.train_labels}
        handle, layouts = share_arrays(training)
        self._training_handles = [handle]
        self._validation_handle, (validation,) = share_arrays({"images": dataset.validation_images})
        self._data_bytes = sum(os.fstat(each).st_size for each in (handle, self._validation_handle))
        self._opening |= {
            "training": [asdict(layout) for layout in layouts],
            "validation": asdict(validation),
            "classes": dataset.classes,
            "mean": dataset.mean,
            "std": dataset.std,
        }

    def start(self) -> None:
        """Starts a zygote if none is alive. Returns at once; it warms up while the caller goes on."""
        if self._zygote is None or not self._zygote.alive:
            self._discard()
            self._zygote = Zygote(self._opening, self._training_handles)

    def wait_until_ready(self) -> None:
        """Returns once a program would start without delay. Raises `ZygoteLost` if the zygote cannot start."""
        self.start()
        assert self._zygote is not None
        self._zygote.wait_until_ready()

    @property
    def zygote_pid(self) -> int:
        """For tests and for a person looking at a process list."""
        assert self._zygote is not None
        return self._zygote.pid

    def build(self, code: str, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Build | Rejection:
        """Builds a program for `in_shape` (1, C, H, W) and `out_shape` (classes,) within the budget."""
        limits = self._limits(self._budget.build_seconds)
        task = {"kind": "build", "code": code, "in_shape": in_shape, "out_shape": out_shape}
        try:
            ending, _ = self._run(task, limits, logits=-1)
        except (ZygoteLost, Unkillable, OSError) as error:
            self._discard()
            return Rejection(Outcome.SANDBOX_ERROR, Stage.BUILD, str(error), type(error).__name__)
        if isinstance(ending.message, Build):
            return ending.message
        outcome, detail, error_type = _name_ending(ending)
        return Rejection(outcome, Stage.BUILD, detail, error_type)

    def evaluate(self, code: str) -> Measurement:
        """Trains a program by the protocol and grades it on the validation split."""
        return self._train(code, "evaluate", weights_room=0).measurement

    def train(self, code: str, weights_room: int) -> Training:
        """Like `evaluate`, and hands back the logits and the trained weights, which may take `weights_room` bytes."""
        return self._train(code, "train", weights_room)

    def _train(self, code: str, kind: str, weights_room: int) -> Training:
        if self._dataset is None:
            raise ValueError("this sandbox was made without a data set: it can build, not evaluate")
        shape = (len(self._dataset.validation_labels), self._dataset.classes)
        logits_bytes = shape[0] * shape[1] * 4
        logits = create_buffer(logits_bytes + weights_room)
        task = {"kind": kind, "code": code, "in_shape": (), "out_shape": ()}
        start = time.monotonic()
        try:
            self.wait_until_ready()
            start = time.monotonic()  # a first start is the engine's time, not the candidate's
            ending, output = self._run(task, self._limits(self._budget.train_seconds), logits)
            if isinstance(ending.message, Trained):
                predicted = read_logits(logits, shape)
                accuracy, loss = grade(predicted, self._dataset.validation_labels)
                weights = read_weights(logits, logits_bytes) if kind == "train" else b""
                measurement = Measurement(
                    outcome=Outcome.VALID,
                    stage=Stage.TRAIN,
                    detail="",
                    error_type="",
                    seconds=time.monotonic() - start,
                    accuracy=accuracy,
                    loss=loss,
                    curve=ending.message.curve,
                    train_seconds=min(ending.message.train_seconds, ending.seconds),
                    peak_memory_bytes=ending.message.device_peak_bytes or ending.peak_memory_bytes,
                    device=self._device,
                    output=output,
                )
                return Training(measurement, predicted, weights)
            outcome, detail, error_type = _name_ending(ending)
            peak = ending.peak_memory_bytes
        except (InvalidOutput, InvalidWeights, Diverged) as error:  # what the child wrote without its own check
            outcome = Outcome.DIVERGED if isinstance(error, Diverged) else Outcome.INVALID_OUTPUT
            detail, error_type, peak = str(error), type(error).__name__, ending.peak_memory_bytes
        except (ZygoteLost, Unkillable, OSError) as error:
            self._discard()
            outcome, detail, error_type = Outcome.SANDBOX_ERROR, str(error), type(error).__name__
            output, peak = "", 0
        finally:
            os.close(logits)
        seconds = time.monotonic() - start
        failure = Measurement(
            outcome,
            Stage.TRAIN,
            detail,
            error_type,
            seconds,
            peak_memory_bytes=peak or None,
            device=self._device,
            output=output,
        )
        return Training(failure, None, b"")

    def close(self) -> None:
        """Ends the zygote and whatever it runs, and frees the data set's memory. May be called twice."""
        self._discard()
        for handle in (*self._training_handles, self._validation_handle):
            if handle >= 0:
                os.close(handle)
        self._training_handles, self._validation_handle = [], -1

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _limits(self, seconds: float) -> Limits:
        return Limits(seconds, int(self._budget.memory_gib * GIB), self._data_bytes)

    def _discard(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _run(self, task: dict[str, Any], limits: Limits, logits: int) -> tuple[Ending, str]:
        """Runs one task to its end in a child of its own. Returns how it ended and what it printed."""
        self.wait_until_ready()
        zygote = self._zygote
        assert zygote is not None
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        output = OutputTail(read_end)
        spare = create_buffer(1) if logits < 0 else logits  # a build writes no logits; one signature for both tasks
        try:
            try:
                pid = zygote.fork(task, [theirs.fileno(), write_end, spare])
            finally:
                theirs.close()
                os.close(write_end)
                if logits < 0:
                    os.close(spare)
            ending = Watchdog(pid, channel, output, limits, lambda step: self._hand_over(step, channel)).watch()
            status = zygote.reap(pid)
            if ending.outcome is Outcome.CRASHED:
                ending = _name_crash(ending, status)
            return ending, output.text()
        finally:
            channel.close()
            output.close()

    def _hand_over(self, step: Step, channel: socket.socket) -> None:
        """Gives the child the validation images, which it may see only when it has trained."""
        if step is Step.PREDICT and self._validation_handle >= 0:
            with suppress(OSError):  # it may be dead already
                socket.send_fds(channel, [b"v"], [self._validation_handle])


def _name_crash(ending: Ending, status: int) -> Ending:
    """Fills in the signal or exit code of a child that died on its own."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        reason = f"exit code {code}"
    else:
        try:
            reason = f"killed by {signal.Signals(-code).name}"
        except ValueError:
            reason = f"killed by signal {-code}"
    detail = f"{ending.step.name.lower()}: {reason}"
    return Ending(None, Outcome.CRASHED, detail, ending.step, ending.seconds, ending.peak_memory_bytes)


def _name_ending(ending: Ending) -> tuple[Outcome, str, str]:
    """Outcome, detail and error type of a task that gave no result of its own kind."""
    if ending.outcome is not None:
        return ending.outcome, ending.detail, ""
    if isinstance(ending.message, Failed):
        return ending.message.outcome, ending.message.detail, ending.message.error_type
    return Outcome.INVALID_OUTPUT, "broken protocol: a result that was not asked for", ""
