"""A program that trains itself differs from the fixed recipe by its own recipe, and by nothing else."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from candidate_programs import GOOD
from torch import Tensor, nn

from nas_ray.batches import Batches
from nas_ray.config import BudgetConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import Dataset, load_dataset
from nas_ray.failure import ContractViolation
from nas_ray.outcome import Outcome, Stage
from nas_ray.own_training import check_hyperparameters, train_itself
from nas_ray.sandbox import Sandbox
from nas_ray.training import Prediction, TrainingData, hyperparameters, train_and_predict

LEARNING = (
    GOOD
    + """
    def train_setup(self, prm):
        self.optimiser = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        for images, labels in train_data:
            self.optimiser.zero_grad()
            F.cross_entropy(self(images), labels).backward()
            self.optimiser.step()


def supported_hyperparameters():
    return {"lr", "momentum"}
"""
)


class Fixed(nn.Module):
    """The protocol's SGD, written as a program's own."""

    def __init__(self, in_shape: Any, out_shape: Any, prm: dict[str, Any], device: Any) -> None:
        super().__init__()
        self.given = dict(prm)
        self.conv = nn.Conv2d(in_shape[1], 8, 3, padding=1)
        self.drop = nn.Dropout(prm["dropout"])
        self.head = nn.Linear(8 * in_shape[2] * in_shape[3], out_shape[0])

    def forward(self, x: Tensor) -> Any:
        return self.head(self.drop(F.relu(self.conv(x))).flatten(1))

    def train_setup(self, prm: dict[str, Any]) -> None:
        assert prm == self.given
        self.optimiser = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data: Batches) -> None:
        assert self.training
        for images, labels in train_data:
            self.optimiser.zero_grad()
            F.cross_entropy(self(images), labels).backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetConfig())


@pytest.fixture(scope="module")
def data(digits: Dataset) -> TrainingData:
    return TrainingData.from_dataset(digits)


@pytest.fixture(scope="module")
def sandbox(digits: Dataset) -> Iterator[Sandbox]:
    protocol = ProtocolConfig(kind="candidate", epochs=2)
    with Sandbox("cpu", digits, protocol, BudgetConfig(train_seconds=20.0, memory_gib=1.0)) as sandbox:
        yield sandbox


def train(net: type[nn.Module], data: TrainingData, images: Tensor, own: bool, **settings: Any) -> Prediction:
    protocol = ProtocolConfig(kind="candidate" if own else "fixed", **settings)
    prm = hyperparameters(protocol)
    itself = functools.partial(train_itself, prm=prm, epochs=protocol.epochs) if own else None
    return train_and_predict(net, data, images, protocol, "cpu", prm, itself)


@pytest.mark.parametrize(
    "settings",
    [{}, {"augmentation": ("flip", "crop"), "fraction": 0.5}, {"batch_size": 67}, {"seed": 3}],
    ids=repr,
)
def test_the_fixed_recipe_as_a_programs_own_gives_the_same_bits(
    digits: Dataset, data: TrainingData, settings: dict[str, Any]
) -> None:
    images = torch.tensor(digits.validation_images)
    fixed, own = (train(Fixed, data, images, own, epochs=2, **settings) for own in (False, True))
    np.testing.assert_array_equal(fixed.logits, own.logits)
    assert fixed.steps == own.steps
    assert own.curve == ()


def test_only_the_offered_hyperparameters_are_given() -> None:
    assert hyperparameters(ProtocolConfig(kind="candidate", weight_decay=0.1)) == {
        "lr": 0.01, "momentum": 0.9, "batch": 32, "epoch": 1, "dropout": 0.2,
    }  # fmt: skip


def batches_of(data: TrainingData, count: int, **settings: Any) -> Batches:
    protocol = ProtocolConfig(**settings)
    return Batches(data.images[:count], data.labels[:count], lambda pixels: pixels.float(), protocol)


def test_each_pass_is_all_images_in_another_order(data: TrainingData) -> None:
    batches = batches_of(data, 100)
    passes = [[(images, labels) for images, labels in batches] for _ in range(2)]
    assert [len(images) for images, _ in passes[0]] == [32, 32, 32, 4]
    assert len(batches) == 4
    assert batches.drawn == 8
    assert batches.batch_size == 32
    first, second = (torch.cat([images for images, _ in one]) for one in passes)
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten(1).sum(1).sort()[0], second.flatten(1).sum(1).sort()[0])
    assert passes[0][0][0].dtype is torch.float32
    assert passes[0][0][1].dtype is torch.int64


@pytest.mark.parametrize(("count", "size", "batches"), [(65, 32, 2), (66, 32, 3), (64, 32, 2), (5, 1, 5), (3, 32, 1)])
def test_the_length_is_the_number_of_batches(data: TrainingData, count: int, size: int, batches: int) -> None:
    made = batches_of(data, count, batch_size=size)
    assert len(made) == len(list(made)) == batches


def module(**names: Any) -> types.ModuleType:
    made = types.ModuleType("candidate")
    made.__dict__.update(names)
    return made


@pytest.mark.parametrize("names", [{"lr"}, ["lr", "batch"], ("epoch",), {"dropout": 0.5}, frozenset(["momentum"])])
def test_names_that_are_offered_are_accepted(names: Any) -> None:
    check_hyperparameters(module(supported_hyperparameters=lambda: names))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"supported_hyperparameters": lambda: {"lr", "depth"}}, "names 'depth'; offered are lr, momentum, batch"),
        ({"supported_hyperparameters": lambda: [3]}, "names 3; offered are"),
        ({"supported_hyperparameters": lambda: range(20)}, "returned range; a set, list, tuple or dict"),
        ({"supported_hyperparameters": lambda: set(range(20))}, "and 12 more; offered are"),
        ({"supported_hyperparameters": lambda: "lr"}, "returned str"),
        ({"supported_hyperparameters": lambda: None}, "returned NoneType"),
        ({"supported_hyperparameters": {"lr"}}, "must define a function"),
        ({}, "must define a function"),
    ],
)
def test_what_is_not_offered_is_a_violation_of_the_contract(names: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractViolation, match=message):
        check_hyperparameters(module(**names))


def test_a_program_that_trains_itself_is_valid_and_learns(sandbox: Sandbox) -> None:
    first, second = sandbox.evaluate(LEARNING), sandbox.evaluate(LEARNING)
    assert first.outcome is Outcome.VALID, first
    assert first.accuracy is not None
    assert first.accuracy > 0.5
    assert first.curve == ()
    assert (first.accuracy, first.loss) == (second.accuracy, second.loss)


@pytest.mark.parametrize(
    ("old", "new", "outcome", "text"),
    [
        ("def train_setup", "def train_set_up", Outcome.CONTRACT_ERROR, "Net has no method train_setup"),
        ("def learn", "def learns", Outcome.CONTRACT_ERROR, "Net has no method learn"),
        ("def supported_hyper", "def hyper", Outcome.CONTRACT_ERROR, "function supported_hyperparameters()"),
        ('{"lr", "momentum"}', '{"lr", "weight_decay"}', Outcome.CONTRACT_ERROR, "names 'weight_decay'"),
        ('return {"lr", "momentum"}', "1 / 0", Outcome.BUILD_ERROR, "division by zero"),
        ('prm["lr"]', 'prm["weight_decay"]', Outcome.TRAIN_ERROR, "weight_decay"),
        ("for images, labels in train_data", "for images in train_data", Outcome.TRAIN_ERROR, "conv2d"),
        (
            "self.optimiser.step()",
            "self.optimiser.step(); self.head.weight.data.mul_(float('nan'))",
            Outcome.DIVERGED,
            "nor is ",
        ),
        ("x.flatten(1))", "x.flatten(1)) / (1.0 if self.training else 0.0)", Outcome.INVALID_OUTPUT, "although"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_train_itself_has_its_outcome(
    sandbox: Sandbox, old: str, new: str, outcome: Outcome, text: str
) -> None:
    assert old in LEARNING
    measurement = sandbox.evaluate(LEARNING.replace(old, new))
    assert measurement.outcome is outcome, measurement
    assert text in measurement.detail
    assert measurement.stage is Stage.TRAIN


@pytest.mark.parametrize(
    ("place", "step"),
    [('return {"lr", "momentum"}', "hyperparameters"), ("self.optimiser = torch", "setup"), ("for images", "learn")],
)
def test_a_programs_own_step_is_named_where_it_hangs(digits: Dataset, place: str, step: str) -> None:
    budget = BudgetConfig(train_seconds=2.0, memory_gib=1.0)
    code = LEARNING.replace(place, f"import time; time.sleep(60)\n        {place}".replace("        r", "    r"))
    with Sandbox("cpu", digits, ProtocolConfig(kind="candidate"), budget) as sandbox:
        measurement = sandbox.evaluate(code)
    assert measurement.outcome is Outcome.TIMEOUT, measurement
    assert step in measurement.detail


@pytest.mark.parametrize("layer", ["nn.Linear(", "nn.LazyLinear("])
def test_a_network_over_the_budget_is_not_trained_although_nobody_built_it(sandbox: Sandbox, layer: str) -> None:
    inputs = "8 * in_shape[2] * in_shape[3], " if layer == "nn.Linear(" else ""
    head = "nn.Linear(8 * in_shape[2] * in_shape[3], out_shape[0])"
    assert head in LEARNING
    code = LEARNING.replace(head, f"nn.Sequential({layer}{inputs}4096), nn.Linear(4096, out_shape[0]))")
    measurement = sandbox.evaluate(code)
    assert measurement.outcome is Outcome.TOO_LARGE, measurement
    assert measurement.detail.endswith("parameters > 500,000 allowed")
