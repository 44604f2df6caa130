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
import types
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas_ray.candidate import Build
from nas_ray.config import BudgetConfig
from nas_ray.failure import FILE, ContractViolation, class_name, name_failure
from nas_ray.graph import Trace, is_uninitialised
from nas_ray.outcome import Outcome, Rejection, Stage

BATCH = 2  # images in the trial pass: one is not enough for batch normalisation over a 1 x 1 map
GIB = 1 << 30
# Broken on any device: the other complaints of the meta device are checked on a real one.
FINAL = frozenset([Outcome.TOO_LARGE, Outcome.FORBIDDEN, Outcome.LIMIT_EXCEEDED])

OnStep = Callable[[Literal["import", "init", "forward"]], None]


def load_module(code: str) -> types.ModuleType:
    """Executes `code` as a module of its own. Raises whatever the code raises."""
    module = types.ModuleType("candidate")
    module.__file__ = FILE
    sys.modules["candidate"] = module  # dataclasses and pickling look a class's module up by name
    lines = code.splitlines(keepends=True)
    linecache.cache[FILE] = (len(code), None, lines, FILE)  # tracebacks and inspect.getsource then quote the program
    exec(compile(code, FILE, "exec"), module.__dict__)
    return module


def find_net(module: types.ModuleType) -> type[nn.Module]:
    """The program's class `Net`. Raises `ContractViolation` where there is none."""
    net = getattr(module, "Net", None)
    if not isinstance(net, type) or not issubclass(net, nn.Module):
        raise ContractViolation("the program must define a class Net(nn.Module)")
    return net


def load_net(code: str) -> type[nn.Module]:
    """`load_module` and `find_net` in one."""
    return find_net(load_module(code))


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
        return _reject(error, Outcome.BUILD_ERROR)
    found = _build_on("meta", net, in_shape, out_shape, prm, budget, seed, on_step)
    if isinstance(found, Rejection) and found.outcome not in FINAL:
        found = _build_on("cpu", net, in_shape, out_shape, prm, budget, seed, on_step)
    if isinstance(found, Rejection):
        return found
    parameters, trace, logits, device = found
    return Build(
        parameters=parameters,
        flops=trace.flops // BATCH,
        activation_bytes=trace.activation_elements * 4 // BATCH,
        graph=trace.signature(logits),
        device=device,
        seconds=time.perf_counter() - start,
        depth=trace.depth(logits),
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
) -> tuple[int, Trace, Tensor, str] | Rejection:
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
    return _count_parameters(network), trace, logits, device


def _reject(error: Exception, otherwise: Outcome) -> Rejection:
    outcome, detail = name_failure(error, otherwise)
    return Rejection(outcome, Stage.BUILD, detail, class_name(error))


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
        found = f"forward returned {type(logits).__name__}"
    elif tuple(logits.shape) != wanted:
        found = f"forward returned shape {tuple(logits.shape)}"
    elif not logits.is_floating_point():
        found = f"forward returned {logits.dtype}"
    elif not logits.requires_grad:
        detail = "the logits depend on no trainable parameter: there is nothing to train"
        return Rejection(Outcome.BUILD_ERROR, Stage.BUILD, detail)
    else:
        return None
    detail = f"{found}; for {BATCH} images it must return float logits of shape {wanted}"
    return Rejection(Outcome.INVALID_OUTPUT, Stage.BUILD, detail)


def excess_parameters(network: nn.Module, budget: BudgetConfig) -> str:
    """What is too much, for a person; empty where the network has no more parameters than it may."""
    parameters = _count_parameters(network)
    return f"{parameters:,} parameters > {budget.parameters:,} allowed" if parameters > budget.parameters else ""


def _check_size(network: nn.Module, budget: BudgetConfig, trace: Trace | None = None) -> Rejection | None:
    """The budget's word, as far as it can be said: on parameters at once, on FLOPs and activations after a pass."""
    reason = excess_parameters(network, budget)
    if not reason and trace is not None:
        flops, activation_bytes = trace.flops // BATCH, trace.activation_elements * 4 / BATCH
        if flops > budget.flops:
            reason = f"{flops:,} FLOPs an image > {int(budget.flops):,} allowed"
        elif activation_bytes > budget.memory_gib * GIB:
            gib = activation_bytes / GIB
            reason = f"{gib:.1f} GiB of activations for one image > {budget.memory_gib} GiB allowed"
    return Rejection(Outcome.TOO_LARGE, Stage.BUILD, reason) if reason else None
