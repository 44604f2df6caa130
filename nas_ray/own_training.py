"""A program that trains itself, by LEMUR's contract: `protocol.kind: candidate`.

In: the program's module and its network, the protocol's batches and hyperparameters. Out: the trained network. Only
the recipe is the program's own; seed, images, batches, their order and prediction are those of every other program.

    def supported_hyperparameters(): ...          # a set of names, all among `OFFERED`
    class Net(nn.Module):
        def train_setup(self, prm): ...           # once
        def learn(self, train_data): ...          # one epoch; train_data gives (images, labels), see nas_ray/batches.py
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

from torch import nn

from nas_ray.batches import Batches
from nas_ray.failure import ContractViolation
from nas_ray.training import OFFERED

METHODS = {"train_setup": "train_setup(self, prm)", "learn": "learn(self, train_data)"}
MAX_NAMES = 8  # that a message lists

OnStep = Callable[[Literal["setup", "learn"]], None]


def check_hyperparameters(module: ModuleType) -> None:
    """Raises `ContractViolation` where the program asks for hyperparameters that are not offered, or does not say."""
    function = getattr(module, "supported_hyperparameters", None)
    if not callable(function):
        raise ContractViolation("the program must define a function supported_hyperparameters()")
    names = function()
    if not isinstance(names, set | frozenset | list | tuple | dict):
        raise ContractViolation(
            f"supported_hyperparameters returned {type(names).__name__}; a set, list, tuple or dict of names is needed"
        )
    unknown = sorted({repr(name) for name in names} - {repr(name) for name in OFFERED})
    if unknown:
        listed = ", ".join(unknown[:MAX_NAMES])
        more = f" and {len(unknown) - MAX_NAMES} more" if len(unknown) > MAX_NAMES else ""
        raise ContractViolation(f"supported_hyperparameters names {listed}{more}; offered are {', '.join(OFFERED)}")


def train_itself(
    net: nn.Module, batches: Batches, prm: dict[str, Any], epochs: int, on_step: OnStep = lambda step: None
) -> list[float]:
    """Has `net` train itself for `epochs` passes over `batches`; `on_step` is told what is about to run.

    Returns no losses, since a program tells none. Raises `ContractViolation` where it lacks a method, and whatever its
    own code raises.
    """
    for name, wanted in METHODS.items():
        if not callable(getattr(net, name, None)):
            raise ContractViolation(f"Net has no method {name}, but must have {wanted} to train itself")
    on_step("setup")
    net.train()
    net.train_setup(dict(prm))  # type: ignore[operator]
    on_step("learn")
    for _ in range(epochs):
        net.train()
        net.learn(batches)  # type: ignore[operator]
    return []
