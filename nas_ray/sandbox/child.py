"""What a forked child does with one program: builds it, or trains it and hands back logits.

In: a task, warm modules, mapped training data. Out: messages over its channel and, for an evaluation, logits in the
shared buffer. It holds no validation labels, and the validation images only after the last training step. It never
returns: having said its last word it waits to be killed.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from nas_ray.build import MissingNet, build_program, describe_error, is_out_of_memory, load_net
from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig, ProtocolConfig
from nas_ray.grading import Diverged, InvalidOutput
from nas_ray.outcome import Outcome
from nas_ray.sandbox.confinement import confine
from nas_ray.sandbox.memory import Layout, map_arrays, write_logits
from nas_ray.sandbox.messages import Entered, Failed, Message, Step, Trained, encode
from nas_ray.sandbox.weights import write_weights
from nas_ray.training import TrainingData, hyperparameters, train_and_predict


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same for all children of one zygote."""

    device: str  # "cpu", "cuda"
    protocol: ProtocolConfig
    budget: BudgetConfig
    threads: int
    data: TrainingData | None
    validation: Layout | None  # of the validation images, in memory that is handed over after training


@dataclass(frozen=True, slots=True)
class Task:
    """One program, and what is to be done with it."""

    kind: str  # "build" | "evaluate" | "train": an evaluation that hands back the weights too
    code: str
    in_shape: tuple[int, ...] = ()  # for "build"
    out_shape: tuple[int, ...] = ()


class Channel:
    """The child's end of a packet socket."""

    def __init__(self, handle: int) -> None:
        self._socket = socket.socket(fileno=handle)
        self.step = Step.START

    def send(self, message: Message) -> None:
        self._socket.send(encode(message))

    def enter(self, step: Step) -> None:
        self.step = step
        self.send(Entered(step))

    def receive_handle(self) -> int:
        """Waits for a file descriptor from the supervisor."""
        _, handles, _, _ = socket.recv_fds(self._socket, 1, 1)
        return handles[0]

    def wait_for_the_end(self) -> NoReturn:
        """The supervisor never writes again: it kills. Without a supervisor there is nothing left to do."""
        self._socket.recv(1)
        os._exit(1)


def run_child(setting: Setting, task: Task, parent: int, channel: int, output: int, logits: int) -> NoReturn:
    """Runs `task` in this process, a fresh fork of the zygote `parent`. The last three are file descriptors."""
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        memory = int(setting.budget.memory_gib * (1 << 30))
        confine(parent, memory, {0, 1, 2, channel, logits}, setting.device)
        _run_task(setting, task, Channel(channel), logits)
    finally:
        os._exit(1)  # whatever happened: never back into the zygote's loop


def _run_task(setting: Setting, task: Task, channel: Channel, logits: int) -> NoReturn:
    torch.set_num_threads(setting.threads)
    last: Message
    try:
        last = _build(setting, task, channel) if task.kind == "build" else _evaluate(setting, task, channel, logits)
    except BaseException as error:  # SystemExit and KeyboardInterrupt included: the program may raise anything
        last = _explain(error, channel.step)
    channel.send(last)
    channel.wait_for_the_end()


def _build(setting: Setting, task: Task, channel: Channel) -> Message:
    built = build_program(
        task.code,
        task.in_shape,
        task.out_shape,
        hyperparameters(setting.protocol),
        setting.budget,
        setting.protocol.seed,
        on_step=lambda step: channel.enter(Step[step.upper()]),
    )
    return built if isinstance(built, Build) else Failed(built.outcome, built.error_type, built.detail)


def _evaluate(setting: Setting, task: Task, channel: Channel, logits: int) -> Message:
    assert setting.data is not None  # the supervisor refuses to evaluate without a data set
    assert setting.validation is not None
    layout = setting.validation
    channel.enter(Step.IMPORT)
    net = load_net(task.code)
    networks: list[nn.Module] = []

    def construct(*arguments: Any) -> nn.Module:
        channel.enter(Step.INIT)
        networks.append(net(*arguments))
        channel.enter(Step.TRAIN)
        return networks[0]

    def open_validation() -> Tensor:
        channel.enter(Step.PREDICT)
        return torch.from_numpy(map_arrays(channel.receive_handle(), [layout])[layout.name])

    prm = hyperparameters(setting.protocol)
    prediction = train_and_predict(construct, setting.data, open_validation, setting.protocol, setting.device, prm)
    write_logits(logits, prediction.logits)
    if task.kind == "train":
        write_weights(logits, prediction.logits.nbytes, networks[0])
    peak = torch.cuda.max_memory_reserved() if setting.device.startswith("cuda") else 0
    return Trained(prediction.train_seconds, peak, prediction.curve)


def _explain(error: BaseException, step: Step) -> Failed:
    """The outcome of a program that raised `error` at `step`."""
    if is_out_of_memory(error):
        outcome = Outcome.OUT_OF_MEMORY
    elif isinstance(error, MissingNet):
        outcome = Outcome.CONTRACT_ERROR
    elif isinstance(error, Diverged):
        outcome = Outcome.DIVERGED
    elif isinstance(error, InvalidOutput):
        outcome = Outcome.INVALID_OUTPUT
    elif step in (Step.TRAIN, Step.PREDICT):
        outcome = Outcome.TRAIN_ERROR
    else:
        outcome = Outcome.BUILD_ERROR
    return Failed(outcome, type(error).__name__, describe_error(error))
