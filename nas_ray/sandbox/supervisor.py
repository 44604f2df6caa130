"""The sandbox: runs programs in killable children and says how each one ended.

In: a program's code. Out: a `Build`, a `Rejection` or a `Measurement`, never an exception for anything that a
program did.

Three processes: this one (the supervisor) keeps the validation labels and grades; the zygote is warm and forks; a
child runs one program behind the walls that the node can raise (see the package's docstring for what they cover and
what not). The child gets training data and, when it reports that it has trained, validation images in an order that
only this process knows; logits come back through a buffer of fixed size that is read only after the child is dead.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas_ray.candidate import Build, Measurement
from nas_ray.config import BudgetConfig, ContainmentConfig, ProtocolConfig
from nas_ray.datasets import Dataset
from nas_ray.grading import Diverged, InvalidOutput, grade
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.sandbox.confinement import await_confinement
from nas_ray.sandbox.gauges import ScratchGauge
from nas_ray.sandbox.launcher import Zygote, ZygoteLost
from nas_ray.sandbox.memory import create_buffer, lay_out, read_logits, share_arrays
from nas_ray.sandbox.messages import Failed, Step, Trained
from nas_ray.sandbox.output import OutputTail
from nas_ray.sandbox.tiers import ContainmentError, Walls, check_floor
from nas_ray.sandbox.watchdog import Ending, Limits, Watchdog
from nas_ray.sandbox.weights import InvalidWeights, read_weights
from nas_ray.sandbox.witness import Witness

GIB = 1 << 30
CONFINEMENT_SECONDS = 30.0  # takes milliseconds; a busy machine may be slow
DEFAULT_CONTAINMENT = ContainmentConfig()


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
        containment: the weakest walls that will do, and what a child may take behind them.
        raise_walls: False leaves the walls out, for measuring what they cost; the floor must then be D.
    """

    def __init__(
        self,
        device: str,
        dataset: Dataset | None,
        protocol: ProtocolConfig,
        budget: BudgetConfig,
        threads: int = 1,
        containment: ContainmentConfig = DEFAULT_CONTAINMENT,
        raise_walls: bool = True,
    ) -> None:
        self._device = device
        self._protocol = protocol
        self._budget = budget
        self._containment = containment
        self._threads = threads
        self._dataset = dataset
        self._opening: dict[str, Any] = {
            "device": device,
            "protocol": protocol.model_dump(),
            "budget": budget.model_dump(),
            "threads": threads,
            "containment": containment.model_dump(),
            "raise_walls": raise_walls,
        }
        self._training_handles: list[int] = []
        self._data_bytes = 0
        if dataset is not None:
            self._share(dataset)
        self._zygote: Zygote | None = None
        self.start()

    def _share(self, dataset: Dataset) -> None:
        training: dict[str, NDArray[Any]] = {"images": dataset.train_images, "labels": dataset.train_labels}
        handle, layouts = share_arrays(training)
        self._training_handles = [handle]
        (validation,) = lay_out({"images": dataset.validation_images})
        self._data_bytes = os.fstat(handle).st_size + dataset.validation_images.nbytes
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
        """Returns once a program would start without delay.

        Raises `ZygoteLost` if the zygote cannot start, `ContainmentError` if this node's walls are too weak.
        """
        self.start()
        assert self._zygote is not None
        self._zygote.wait_until_ready()
        check_floor(self.walls, self._containment.floor)

    @property
    def walls(self) -> Walls:
        """What surrounds candidates on this node; known once the sandbox is ready."""
        assert self._zygote is not None
        assert self._zygote.report is not None
        return self._zygote.report.walls

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
        except Exception as error:  # ours, whatever the program did to bring it about
            return Rejection(Outcome.SANDBOX_ERROR, Stage.BUILD, self._give_up(error), type(error).__name__)
        if isinstance(ending.message, Build):
            return replace(ending.message, seconds=min(max(ending.message.seconds, 0.0), ending.seconds))
        outcome, detail, error_type = _name_ending(ending)
        return Rejection(outcome, Stage.BUILD, detail, error_type)

    def evaluate(self, code: str, *, seed: int | None = None, epochs: int | None = None) -> Measurement:
        """Trains a program by the protocol, grades it on the validation split and holds it to the budget's latency.

        `seed` and `epochs` take the place of the protocol's; with more epochs than its own the time limit grows.
        """
        measured = self._train(code, "evaluate", 0, self._protocol.vary(seed=seed, epochs=epochs)).measurement
        slow = self._excess_latency(measured)
        if not slow:
            return measured
        refused = replace(measured, outcome=Outcome.TOO_LARGE, detail=slow, accuracy=None, loss=None)
        return replace(refused, test_accuracy=None, test_loss=None)

    def train(self, code: str, weights_room: int, *, seed: int | None = None, epochs: int | None = None) -> Training:
        """Like `evaluate`, and hands back the logits and the trained weights, which may take `weights_room` bytes.

        Here no latency is too long: what a search has let pass need not be as fast on another machine.
        """
        return self._train(code, "train", weights_room, self._protocol.vary(seed=seed, epochs=epochs))

    def _train(self, code: str, kind: str, weights_room: int, protocol: ProtocolConfig) -> Training:
        if self._dataset is None:
            raise ValueError("this sandbox was made without a data set: it can build, not evaluate")
        limits = self._limits(self._budget.train_seconds * max(1.0, protocol.epochs / self._protocol.epochs))
        shape = (len(self._dataset.validation_labels), self._dataset.classes)
        logits_bytes = shape[0] * shape[1] * 4
        order = self._draw_order(code)
        logits = create_buffer(logits_bytes + weights_room)
        recipe = {"seed": protocol.seed, "epochs": protocol.epochs}
        task = {"kind": kind, "code": code, "in_shape": (), "out_shape": (), **recipe}
        start = time.monotonic()
        try:
            self.wait_until_ready()
            start = time.monotonic()  # a first start is the engine's time, not the candidate's
            ending, output = self._run(task, limits, logits, order)
            if isinstance(ending.message, Trained):
                predicted = np.empty(shape, np.float32)
                predicted[order] = read_logits(logits, shape)
                accuracy, loss, test_accuracy, test_loss = self._grade(predicted)
                weights = read_weights(logits, logits_bytes) if kind == "train" else b""
                measurement = Measurement(
                    outcome=Outcome.VALID,
                    stage=Stage.TRAIN,
                    detail="",
                    error_type="",
                    seconds=time.monotonic() - start,
                    accuracy=accuracy,
                    loss=loss,
                    test_accuracy=test_accuracy,
                    test_loss=test_loss,
                    curve=ending.message.curve,
                    train_seconds=min(ending.message.train_seconds, ending.seconds),
                    peak_memory_bytes=self._peak(ending, ending.message),
                    device=self._device,
                    output=output,
                    epochs=protocol.epochs,
                    latency_ms=min(ending.message.latency_ms, 1000 * ending.seconds) or None,
                )
                return Training(measurement, predicted, weights)
            outcome, detail, error_type = _name_ending(ending)
            peak = ending.peak_memory_bytes
        except (InvalidOutput, InvalidWeights, Diverged) as error:  # what the child wrote without its own check
            outcome = Outcome.DIVERGED if isinstance(error, Diverged) else Outcome.INVALID_OUTPUT
            detail, error_type, peak = str(error), type(error).__name__, ending.peak_memory_bytes
        except Exception as error:  # ours, whatever the program did to bring it about
            outcome, detail, error_type = Outcome.SANDBOX_ERROR, self._give_up(error), type(error).__name__
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
            epochs=protocol.epochs,
        )
        return Training(failure, None, b"")

    def _grade(self, logits: NDArray[np.float32]) -> tuple[float, float, float | None, float | None]:
        """Accuracy and loss on the validation split and, where the test images stand behind it, on the test split."""
        assert self._dataset is not None
        labels = self._dataset.validation_labels
        count = len(labels) - self._dataset.appended_test
        validation = grade(logits[:count], labels[:count])
        return (*validation, *(grade(logits[count:], labels[count:]) if count < len(labels) else (None, None)))

    def _excess_latency(self, measured: Measurement) -> str:
        """What is too slow, for a person; empty where nothing is."""
        allowed, found = self._budget.latency_ms, measured.latency_ms
        if allowed is None or measured.outcome is not Outcome.VALID or (found is not None and found <= allowed):
            return ""
        if found is None:
            return f"latency unknown, because forward fails on a single image; {allowed:g} ms allowed"
        return f"latency {found:.3g} ms > {allowed:g} allowed"

    def close(self) -> None:
        """Ends the zygote and whatever it runs, and frees the data set's memory. May be called twice."""
        self._discard()
        for handle in self._training_handles:
            os.close(handle)
        self._training_handles = []

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _limits(self, seconds: float) -> Limits:
        takes = self._containment
        return Limits(
            seconds,
            int(self._budget.memory_gib * GIB),
            self._data_bytes,
            takes.output_mib << 20,
            takes.scratch_mib << 20,
            takes.scratch_files,
            takes.threads + self._threads,
        )

    def _draw_order(self, code: str) -> NDArray[np.int64]:
        """The order in which a program gets to see the validation images: another for each program, always the same.

        It hangs on the labels, which no child has, so that no program can know it, nor a generator learn it by heart.
        """
        assert self._dataset is not None
        labels = self._dataset.validation_labels
        secret = hashlib.sha256(labels.tobytes() + code.encode(errors="surrogatepass")).digest()
        return np.random.default_rng(list(secret)).permutation(len(labels))

    def _peak(self, ending: Ending, trained: Trained) -> int:
        """Peak memory: the device's by the child's own word, the process's as it was seen from outside."""
        return trained.device_peak_bytes if self._device != "cpu" else ending.peak_memory_bytes

    def _discard(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _give_up(self, error: Exception) -> str:
        """Lets the zygote go after a fault of ours, but for a refusal, which another would repeat; says what it was."""
        if not isinstance(error, ContainmentError):
            self._discard()
        return str(error) or type(error).__name__

    def _run(
        self, task: dict[str, Any], limits: Limits, logits: int, order: NDArray[np.int64] | None = None
    ) -> tuple[Ending, str]:
        """Runs one task to its end in a child of its own. Returns how it ended and what it printed."""
        self.wait_until_ready()
        zygote = self._zygote
        assert zygote is not None
        report = zygote.report
        assert report is not None
        with ExitStack() as stack:
            channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.callback(channel.close)
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            output = stack.enter_context(closing(OutputTail(read_end)))
            spare = create_buffer(1) if logits < 0 else logits  # a build writes no logits; one signature for both
            try:
                pid = zygote.fork(task, [theirs.fileno(), write_end, spare])
            finally:
                theirs.close()
                os.close(write_end)
                if logits < 0:
                    os.close(spare)
            images = -1
            if order is not None:  # while the child confines itself
                images = self._share_validation(order)
                stack.callback(os.close, images)
            listener = await_confinement(channel, CONFINEMENT_SECONDS)
            memory = limits.memory_bytes
            witness = Witness(listener, pid, report.watched, report.reach, report.uid, limits.threads, memory)
            stack.enter_context(closing(witness))
            scratch = ScratchGauge(report.reach.scratch, pid, report.uid, limits.scratch_files)

            def hand_over(step: Step) -> None:
                """Gives the child the validation images, for which it must have said that it has trained."""
                if step is Step.PREDICT and images >= 0:
                    with suppress(OSError):  # it may be dead already
                        socket.send_fds(channel, [b"v"], [images])

            ending = Watchdog(pid, channel, output, limits, witness, scratch, hand_over).watch()
            try:
                status = zygote.reap(pid)
            except ZygoteLost:
                self._discard()  # the program left something that could not be cleared; what became of it is known
                status = signal.SIGKILL
            return _name_crash(ending, status, self._containment.file_bytes), output.text()

    def _share_validation(self, order: NDArray[np.int64]) -> int:
        """The validation images, in `order`, in sealed memory; returns its file descriptor."""
        assert self._dataset is not None
        handle, _ = share_arrays({"images": self._dataset.validation_images[order]})
        return handle


def _name_crash(ending: Ending, status: int, file_bytes: int) -> Ending:
    """Fills in the signal or exit code of a child that died on its own; no file may be longer than `file_bytes`."""
    if ending.outcome is not Outcome.CRASHED:
        return ending
    code = os.waitstatus_to_exitcode(status)
    outcome, place = Outcome.CRASHED, ending.step.name.lower()
    if code == -signal.SIGXFSZ:
        outcome, detail = Outcome.LIMIT_EXCEEDED, f"scratch: a file of more than {file_bytes >> 20} MiB"
    elif code == -signal.SIGSYS:
        outcome, detail = Outcome.FORBIDDEN, "process (system call of another architecture)"
    elif code >= 0:
        detail = f"exit {code}"
    else:
        try:
            detail = signal.Signals(-code).name
        except ValueError:
            detail = f"signal {-code}"
    return replace(ending, outcome=outcome, detail=f"{detail} in {place}")


def _name_ending(ending: Ending) -> tuple[Outcome, str, str]:
    """Outcome, detail and error type of a task that gave no result of its own kind."""
    if ending.outcome is not None:
        return ending.outcome, ending.detail, ""
    if isinstance(ending.message, Failed):
        return ending.message.outcome, ending.message.detail, ending.message.error_type
    return Outcome.INVALID_OUTPUT, "broken protocol: a result that was not asked for", ""
