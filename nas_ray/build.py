"""Building a program without training it: does it construct, fit data and budget, and what does it compute?

In: a program's code, the shapes of the contract, its hyperparameters and a budget. Out: a `Build` or a `Rejection`.
This runs candidate code: call it in a child process (`nas_ray.sandbox`), never where anything can be harmed.

The meta device comes first: shapes without numbers, so the cost does not grow with the network. A program that asks
for numbers (`.item()`, NumPy, operations that the meta device lacks) is built on the CPU instead, and a program that
fails is failed there: the CPU's word on an error is the one that training would have given.
"""

from __future__ import annotations

import linecache
import math
import random
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig
from nas_ray.graph import Trace, is_uninitialised
from nas_ray.outcome import Outcome, Rejection, Stage

FILE = "<candidate>"
BATCH = 2  # images in the trial pass: one is not enough for batch normalisation over a 1 x 1 map
DETAIL_CHARACTERS = 400
GIB = 1 << 30

OnStep = Callable[[Literal["import", "init", "forward"]], None]


class MissingNet(Exception):
    """The program defines no class `Net` that is a `torch.nn.Module`."""


def load_net(code: str) -> type[nn.Module]:
    """Executes `code` as a module of its own and returns its class `Net`.

    Raises whatever the code raises, and `MissingNet` where it defines no such class.
    """
    module = types.ModuleType("candidate")
    module.__file__ = FILE
    sys.modules["candidate"] = module  # dataclasses and pickling look a class's module up by name
    lines = code.splitlines(keepends=True)
    linecache.cache[FILE] = (len(code), None, lines, FILE)  # tracebacks and inspect.getsource then quote the program
    exec(compile(code, FILE, "exec"), module.__dict__)
    net = getattr(module, "Net", None)
    if not isinstance(net, type) or not issubclass(net, nn.Module):
        raise MissingNet("the program must define a class Net(nn.Module)")
    return net


def describe_error(error: BaseException) -> str:
    """One line for a person: the program's line that failed and the message's first line, at most 400 characters."""
    try:
        message = str(error).strip()
    except Exception as failure:  # a program's own exception class may fail to print
        message = f"(its text could not be read: {type(failure).__name__})"
    message = message.splitlines()[0] if message else ""
    numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    if isinstance(error, SyntaxError):
        numbers, message = [error.lineno], error.msg
    where = f"line {numbers[-1]}: " if numbers else ""
    return (where + (message or type(error).__name__))[:DETAIL_CHARACTERS]


def is_out_of_memory(error: BaseException) -> bool:
    """True for Python's, PyTorch's CPU and PyTorch's CUDA ways of saying that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def build_program(
    code: str,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    prm: dict[str, Any],
    budget: BudgetConfig,
    seed: int = 0,
    on_step: OnStep = lambda step: None,
) -> Build | Rejection:
    """Builds `code`'s network for images of `in_shape` (1, C, H, W) and `out_shape` (classes,), in training mode.

    `on_step` is told what is about to run. Never raises an `Exception` for what the program does; `SystemExit` and its
    like pass through.
    """
    start = time.perf_counter()
    on_step("import")
    try:
        net = load_net(code)
    except Exception as error:
        return _reject(error, Outcome.CONTRACT_ERROR if isinstance(error, MissingNet) else Outcome.BUILD_ERROR)
    found = _build_on("meta", net, in_shape, out_shape, prm, budget, seed, on_step)
    # A budget is broken on any device; every other complaint of the meta device is checked on a real one.
    if isinstance(found, Rejection) and found.outcome is not Outcome.TOO_LARGE:
        found = _build_on("cpu", net, in_shape, out_shape, prm, budget, seed, on_step)
    if isinstance(found, Rejection):
        return found
    parameters, trace, signature, device = found
    return Build(
        parameters=parameters,
        flops=trace.flops // BATCH,
        activation_bytes=trace.activation_elements * 4 // BATCH,
        graph=signature,
        device=device,
        seconds=time.perf_counter() - start,
    )


def _build_on(
    device: str,
    net: type[nn.Module],
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    prm: dict[str, Any],
    budget: BudgetConfig,
    seed: int,
    on_step: OnStep,
) -> tuple[int, Trace, str, str] | Rejection:
    """Constructs and runs the network on `device` ("meta" or "cpu")."""
    random.seed(seed)
    torch.manual_seed(seed)
    where = torch.device(device)
    trace = Trace()
    with where, trace:
        on_step("init")
        try:
            network = net(in_shape, out_shape, dict(prm), where)
        except Exception as error:
            return _reject(error, Outcome.BUILD_ERROR)
        rejection = _check_size(network, budget)
        if rejection is not None:
            return rejection
        network.train()
        images = torch.empty((BATCH, *in_shape[1:])).normal_()
        trace.note_input(images)
        trace.start_forward(network)
        on_step("forward")
        try:
            logits = network(images)
        except (RuntimeError, ValueError, IndexError) as error:
            # What PyTorch says of tensors that do not fit together; anything else is a mistake of another kind.
            other = isinstance(error, RecursionError | NotImplementedError)
            return _reject(error, Outcome.BUILD_ERROR if other else Outcome.SHAPE_ERROR)
        except Exception as error:
            return _reject(error, Outcome.BUILD_ERROR)
    rejection = _check_logits(logits, out_shape) or _check_size(network, budget, trace)
    if rejection is not None:
        return rejection
    return _count_parameters(network), trace, trace.signature(logits), device


def _reject(error: Exception, outcome: Outcome) -> Rejection:
    if is_out_of_memory(error):
        outcome = Outcome.OUT_OF_MEMORY
    return Rejection(outcome, Stage.BUILD, describe_error(error), type(error).__name__)


def _count_parameters(network: nn.Module) -> int:
    """Trainable parameters; lazy ones count once they have a shape."""
    return sum(
        parameter.numel()
        for parameter in network.parameters()
        if parameter.requires_grad and not is_uninitialised(parameter)
    )


def _check_logits(logits: object, out_shape: tuple[int, ...]) -> Rejection | None:
    """The contract's answer for 2 images: floating-point logits of shape (2, classes)."""
    wanted = (BATCH, math.prod(out_shape))
    if not isinstance(logits, Tensor):
        outcome, found = Outcome.INVALID_OUTPUT, f"forward returned {type(logits).__name__}"
    elif tuple(logits.shape) != wanted:
        outcome, found = Outcome.SHAPE_ERROR, f"forward returned shape {tuple(logits.shape)}"
    elif not logits.is_floating_point():
        outcome, found = Outcome.INVALID_OUTPUT, f"forward returned {logits.dtype}"
    elif not logits.requires_grad:
        detail = "the logits depend on no trainable parameter: there is nothing to train"
        return Rejection(Outcome.BUILD_ERROR, Stage.BUILD, detail)
    else:
        return None
    return Rejection(outcome, Stage.BUILD, f"{found}; for {BATCH} images it must return float logits of shape {wanted}")


def _check_size(network: nn.Module, budget: BudgetConfig, trace: Trace | None = None) -> Rejection | None:
    """The budget's word, as far as it can be said: on parameters at once, on FLOPs and activations after a pass."""
    parameters = _count_parameters(network)
    reason = ""
    if parameters > budget.parameters:
        reason = f"{parameters:,} parameters > {budget.parameters:,} allowed"
    elif trace is not None and trace.flops // BATCH > budget.flops:
        reason = f"{trace.flops // BATCH:,} FLOPs an image > {int(budget.flops):,} allowed"
    elif trace is not None and trace.activation_elements * 4 // BATCH > budget.memory_gib * GIB:
        gib = trace.activation_elements * 4 / BATCH / GIB
        reason = f"{gib:.1f} GiB of activations for one image > {budget.memory_gib} GiB allowed"
    return Rejection(Outcome.TOO_LARGE, Stage.BUILD, reason) if reason else None
