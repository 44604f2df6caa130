"""What a forked child does with one program: builds it, or trains it and hands back logits.

In: a task, warm modules, mapped training data. Out: messages over its channel and, for an evaluation, logits in the
shared buffer. It holds no validation labels, and the validation images only after the last training step. It never
returns: having said its last word it waits to be killed.
"""

from __future__ import annotations

import functools
import os
import socket
import traceback
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from nas_ray.build import build_program, excess_parameters, find_net, load_module
from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig, ProtocolConfig
from nas_ray.failure import TooLarge, class_name, name_failure
from nas_ray.outcome import Outcome
from nas_ray.own_training import check_hyperparameters, train_itself
from nas_ray.sandbox.confinement import CHANNEL, Confinement, confine_and_report
from nas_ray.sandbox.memory import Layout, map_arrays, write_logits
from nas_ray.sandbox.messages import Entered, Failed, Message, Step, Trained, encode
from nas_ray.sandbox.weights import write_weights
from nas_ray.training import Train, TrainingData, hyperparameters, measure_latency, train_and_predict

LOGITS = CHANNEL + 1  # the descriptor of the shared buffer


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same for all children of one zygote."""

    device: str  # "cpu", "cuda"
    protocol: ProtocolConfig
    budget: BudgetConfig
    threads: int
    confinement: Confinement
    data: TrainingData | None
    validation: Layout | None  # of the validation images, in memory that is handed over after training


@dataclass(frozen=True, slots=True)
class Task:
    """One program, and what is to be done with it."""

    kind: str  # "build" | "evaluate" | "train": an evaluation that hands back the weights too
    code: str
    in_shape: tuple[int, ...] = ()  # for "build"
    out_shape: tuple[int, ...] = ()
    seed: int | None = None  # these two in place of the protocol's
    epochs: int | None = None


class Channel:
    """The child's end of a packet socket."""

    def __init__(self, line: socket.socket) -> None:
        self._socket = line
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
        for source, target in ((null, 0), (output, 1), (output, 2), (channel, CHANNEL), (logits, LOGITS)):
            os.dup2(source, target)
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, CHANNEL)
        file_bytes = max(setting.confinement.file_bytes, os.fstat(LOGITS).st_size)
        confinement = replace(setting.confinement, file_bytes=file_bytes)
        confine_and_report(confinement, parent, {0, 1, 2, CHANNEL, LOGITS}, line)
        line.recv(1)  # the supervisor has measured this process as it is without the program
        _run_task(setting, task, Channel(line), LOGITS)
    except BaseException:
        traceback.print_exc()  # into what the program printed, where a person can find it
    finally:
        os._exit(1)  # whatever happened: never back into the zygote's loop


def _run_task(setting: Setting, task: Task, channel: Channel, logits: int) -> NoReturn:
    torch.set_num_threads(setting.threads)
    last: Message
    try:
        if setting.device.startswith("cuda") and task.kind != "build":
            _start_gpu(setting)
        last = _build(setting, task, channel) if task.kind == "build" else _evaluate(setting, task, channel, logits)
    except BaseException as error:  # SystemExit and KeyboardInterrupt included: the program may raise anything
        last = _explain(error, channel.step)
    channel.send(last)
    channel.wait_for_the_end()


def _start_gpu(setting: Setting) -> None:
    """Has the driver do what it does once, before the program is there to be blamed for it; limits its memory.

    The limit is PyTorch's own, which a program can lift: what it does to others on the GPU is not walled off.
    """
    torch.zeros(1, device=setting.device)
    if setting.budget.gpu_memory_gib is not None:
        total = torch.cuda.get_device_properties(setting.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, setting.budget.gpu_memory_gib * (1 << 30) / total))


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
    module = load_module(task.code)
    net = find_net(module)
    protocol = setting.protocol.vary(seed=task.seed, epochs=task.epochs)
    prm = hyperparameters(protocol)
    train: Train | None = None
    if protocol.kind == "candidate":
        channel.enter(Step.HYPERPARAMETERS)
        check_hyperparameters(module)
        epochs, on_step = protocol.epochs, lambda step: channel.enter(Step[step.upper()])
        train = functools.partial(train_itself, prm=prm, epochs=epochs, on_step=on_step)
    networks: list[nn.Module] = []

    def check_size() -> None:
        """The build's answer may have been forged by the program, and lazy layers have no size before training."""
        excess = excess_parameters(networks[0], setting.budget)
        if excess:
            raise TooLarge(excess)

    def construct(*arguments: Any) -> nn.Module:
        channel.enter(Step.INIT)
        networks.append(net(*arguments))
        check_size()
        if train is None:
            channel.enter(Step.TRAIN)
        return networks[0]

    def open_validation() -> Tensor:
        check_size()
        channel.enter(Step.PREDICT)
        return torch.from_numpy(map_arrays(channel.receive_handle(), [layout])[layout.name])

    prediction = train_and_predict(construct, setting.data, open_validation, protocol, setting.device, prm, train)
    write_logits(logits, prediction.logits)
    if task.kind == "train":
        write_weights(logits, prediction.logits.nbytes, networks[0])
    peak = torch.cuda.max_memory_reserved() if setting.device.startswith("cuda") else 0
    latency_ms = measure_latency(networks[0], setting.data, protocol, setting.device)  # last: it runs the program again
    return Trained(prediction.train_seconds, peak, prediction.curve, latency_ms or 0.0)


def _explain(error: BaseException, step: Step) -> Failed:
    """The outcome of a program that raised `error` at `step`."""
    trains = step in (Step.SETUP, Step.LEARN, Step.TRAIN, Step.PREDICT)
    outcome, detail = name_failure(error, Outcome.TRAIN_ERROR if trains else Outcome.BUILD_ERROR)
    return Failed(outcome, class_name(error), detail)
