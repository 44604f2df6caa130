"""Training: it learns, it is repeatable to the bit, it does the passes it says, and it names what went wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_ray.config import DatasetConfig, ProtocolConfig
from nas_ray.datasets import Dataset, load_dataset
from nas_ray.grading import Diverged, InvalidOutput, grade
from nas_ray.training import (
    CHECK_STEPS,
    PREDICTION_PIXELS,
    Prediction,
    TrainingData,
    hyperparameters,
    train_and_predict,
)


class Cnn(nn.Module):
    """A decent small network, as a good candidate would write it."""

    def __init__(self, in_shape: Any, out_shape: Any, prm: dict[str, Any], device: Any) -> None:
        super().__init__()
        self.device = device
        self.body = nn.Sequential(
            nn.Conv2d(in_shape[1], 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(prm["dropout"]),
            nn.Flatten(),
        )
        self.head = nn.LazyLinear(out_shape[0])
        self.head(self.body(torch.zeros(2, *in_shape[1:])))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x.to(self.device)))


class Linear(nn.Module):
    def __init__(self, in_shape: Any, out_shape: Any, prm: dict[str, Any], device: Any) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(in_shape[1:]), out_shape[0])

    def forward(self, x: Tensor) -> Any:
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DatasetConfig())


@pytest.fixture(scope="module")
def data(digits: Dataset) -> TrainingData:
    return TrainingData.from_dataset(digits)


@pytest.fixture(scope="module")
def validation(digits: Dataset) -> Tensor:
    return torch.tensor(digits.validation_images)


def train(net: type[nn.Module], data: TrainingData, images: Any, **protocol: Any) -> Prediction:
    settings = ProtocolConfig(**protocol)
    return train_and_predict(net, data, images, settings, "cpu", hyperparameters(settings))


def small(data: TrainingData, count: int) -> TrainingData:
    return TrainingData(data.images[:count], data.labels[:count], data.classes, data.mean, data.std)


def test_a_decent_network_learns_the_real_digits(digits: Dataset, data: TrainingData, validation: Tensor) -> None:
    result = train(Cnn, data, validation, epochs=4)
    accuracy, loss = grade(result.logits, digits.validation_labels)
    assert accuracy > 0.85
    assert loss < 0.6
    assert result.logits.shape == (288, 10)
    assert result.logits.dtype == np.float32
    assert result.curve[0] > 1.5 > 0.9 > result.curve[-1]
    assert len(result.curve) == 64
    assert result.steps == 4 * 36
    assert result.train_seconds > 0


@pytest.mark.parametrize("protocol", [{"optimiser": "adamw", "lr": 1e-3}, {"augmentation": ("crop",), "epochs": 2}])
def test_other_protocols_learn_too(
    digits: Dataset, data: TrainingData, validation: Tensor, protocol: dict[str, Any]
) -> None:
    accuracy, _ = grade(train(Cnn, data, validation, **protocol).logits, digits.validation_labels)
    assert accuracy > 0.7


def test_bfloat16_is_mixed_precision(digits: Dataset, data: TrainingData, validation: Tensor) -> None:
    kinds = set()

    class Watched(Linear):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            kinds.add((self.head.weight.dtype, logits.dtype))
            return logits

    result = train(Watched, data, validation, precision="bfloat16", epochs=2)
    assert kinds == {(torch.float32, torch.bfloat16)}
    assert result.logits.dtype == np.float32
    assert grade(result.logits, digits.validation_labels)[0] > 0.7


@pytest.mark.parametrize("augmentation", [(), ("flip", "crop")])
def test_the_same_seed_gives_the_same_bits(data: TrainingData, validation: Tensor, augmentation: Any) -> None:
    first, second = (train(Cnn, data, validation, augmentation=augmentation) for _ in range(2))
    np.testing.assert_array_equal(first.logits, second.logits)
    assert first.curve == second.curve
    assert not np.array_equal(train(Cnn, data, validation, augmentation=augmentation, seed=1).logits, first.logits)


def test_the_order_of_images_is_the_same_for_every_candidate(data: TrainingData, validation: Tensor) -> None:
    seen: list[list[Tensor]] = []

    class Recording(Linear):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            seen.append([])

        def forward(self, x: Tensor) -> Any:
            seen[-1].append(x.clone())
            return super().forward(x)

    class Greedy(Recording):
        def forward(self, x: Tensor) -> Any:
            torch.manual_seed(5)
            torch.rand(100)
            return super().forward(x)

    for net in (Recording, Greedy):
        train(net, data, validation, augmentation=("flip", "crop"), epochs=2)
    assert len(seen[0]) == len(seen[1])
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_training_is_the_plain_loop(data: TrainingData, validation: Tensor) -> None:
    """An independent loop: images one by one through the textbook formulas of normalisation and SGD with momentum."""
    data = small(data, 100)
    result = train(Linear, data, validation, epochs=2, lr=0.05, weight_decay=0.01)

    def normalise(image: Tensor) -> Tensor:
        return (image.double() / 255 - data.mean[0]) / data.std[0]

    torch.manual_seed(0)
    net = Linear((1, 1, 8, 8), (10,), {}, "cpu").double()
    velocity = [torch.zeros_like(parameter) for parameter in net.parameters()]
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(2):
        order = torch.randperm(100, generator=generator)
        for start in range(0, 100, 32):
            chosen = order[start : start + 32].tolist()
            images = torch.stack([normalise(data.images[i]) for i in chosen])
            loss = F.cross_entropy(net(images), data.labels[chosen])
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for parameter, gradient, speed in zip(net.parameters(), gradients, velocity, strict=True):
                    speed.mul_(0.9).add_(gradient + 0.01 * parameter)
                    parameter.sub_(0.05 * speed)
            losses.append(loss.item())
    expected = net(torch.stack([normalise(image) for image in validation])).detach().numpy()
    np.testing.assert_allclose(result.logits, expected, atol=2e-4)
    np.testing.assert_allclose(result.curve, losses, rtol=1e-4)


def test_there_is_one_training_pass_an_epoch_and_one_validation_pass_after_it(
    data: TrainingData, validation: Tensor
) -> None:
    calls: list[tuple[bool, bool, int]] = []  # training mode, gradients on, images

    class Counting(Cnn):
        def forward(self, x: Tensor) -> Any:
            calls.append((self.training, torch.is_grad_enabled(), len(x)))
            return super().forward(x)

    opened: list[int] = []

    def open_validation() -> Tensor:
        opened.append(len(calls))
        return validation

    train(Counting, data, open_validation, epochs=3)
    steps = 3 * 36  # 1,150 images in batches of 32
    assert opened == [steps]
    assert all(call[:2] == (True, True) for call in calls[:steps])
    assert sum(call[2] for call in calls[:steps]) == 3 * 1150
    assert all(call[:2] == (False, False) for call in calls[steps:])
    assert sum(call[2] for call in calls[steps:]) == 288


def test_a_last_batch_of_one_image_is_left_out(data: TrainingData, validation: Tensor) -> None:
    assert train(Cnn, small(data, 65), validation, batch_size=32).steps == 2
    assert train(Cnn, small(data, 66), validation, batch_size=32).steps == 3
    assert train(Linear, small(data, 5), validation, batch_size=1).steps == 5


def test_no_validation_batch_holds_one_image(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Squeezing(Linear):
        def forward(self, x: Tensor) -> Any:
            if not self.training:
                sizes.append(len(x))
            return super().forward(x).squeeze()

    monkeypatch.setitem(PREDICTION_PIXELS, "cpu", 64 * 64)  # 64 images
    images = torch.randint(0, 256, (129, 1, 8, 8), dtype=torch.uint8)
    assert train(Squeezing, data, images).logits.shape == (129, 10)
    assert sizes == [43, 43, 43]


def test_a_fraction_is_a_fair_share_of_the_training_images(data: TrainingData, validation: Tensor) -> None:
    assert train(Linear, data, validation, fraction=0.25).steps == 9  # 288 images
    first, second = (train(Linear, data, validation, fraction=0.25).logits for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert train(Linear, small(data, 100), validation, fraction=1e-6).steps == 1  # never fewer than two


def test_the_candidate_gets_the_contract(data: TrainingData, validation: Tensor) -> None:
    given: list[Any] = []

    class Curious(Linear):
        def __init__(self, *arguments: Any) -> None:
            given.extend(arguments)
            super().__init__(*arguments)
            arguments[2].clear()

    protocol = ProtocolConfig(weight_decay=0.1)
    prm = hyperparameters(protocol)
    train_and_predict(Curious, data, validation, protocol, "cpu", prm)
    assert given[0] == (1, 1, 8, 8)
    assert given[1] == (10,)
    assert given[3] == torch.device("cpu")
    assert prm == {"lr": 0.01, "momentum": 0.9, "batch": 32, "epoch": 1, "dropout": 0.2, "weight_decay": 0.1}


@pytest.mark.parametrize("when", ["training", "predicting"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: (y, y), "tuple"),
        (lambda y: None, "NoneType"),
        (lambda y: y[:, :9], r"float32 \(\d+, 9\)"),
        (lambda y: y[:, :, None], r"\(\d+, 10, 1\)"),
        (lambda y: y.sum(), r"float32 \(\)"),
        (lambda y: y.argmax(1), r"int64"),
        (lambda y: y.long(), r"int64 \(\d+, 10\)"),
        (lambda y: y.cfloat(), "complex64"),
    ],
)
def test_a_wrong_output_is_invalid_output(
    data: TrainingData, validation: Tensor, when: str, spoil: Any, message: str
) -> None:
    class Spoilt(Linear):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return spoil(logits) if self.training == (when == "training") else logits

    with pytest.raises(InvalidOutput, match=message):
        train(Spoilt, data, validation)


def test_a_loss_that_is_not_finite_ends_training_soon(data: TrainingData, validation: Tensor) -> None:
    calls = 0

    class Exploding(Linear):
        def forward(self, x: Tensor) -> Any:
            nonlocal calls
            calls += 1
            return super().forward(x) * (math.inf if calls > 5 else 1.0)

    with pytest.raises(Diverged, match="the training loss is nan at step 6"):
        train(Exploding, data, validation, epochs=1000)
    assert calls == CHECK_STEPS


def test_a_learning_rate_that_is_far_too_high_diverges(data: TrainingData, validation: Tensor) -> None:
    class Deep(Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) ** 3

    with pytest.raises(Diverged):
        train(Deep, data, validation, lr=1e6, epochs=2)


def test_logits_that_a_sound_network_makes_not_finite_are_invalid_output(
    data: TrainingData, validation: Tensor
) -> None:
    class Late(Linear):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return logits if self.training else torch.where(torch.arange(10) == 3, torch.nan, logits)

    with pytest.raises(InvalidOutput, match=r"288 of 2880 validation logits .* although all parameters"):
        train(Late, data, validation)


@pytest.mark.parametrize("state", ["head.weight", "mean"])
def test_logits_of_a_network_that_training_broke_are_divergence(
    data: TrainingData, validation: Tensor, state: str
) -> None:
    class Broken(Linear):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.register_buffer("mean", torch.zeros(10))
            self.calls = 0

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            if self.calls == 37:  # the first call after training
                self.get_buffer("mean").add_(0 if state == "head.weight" else math.inf)
                self.head.weight.data.add_(math.nan if state == "head.weight" else 0)
            return super().forward(x) + self.get_buffer("mean")

    with pytest.raises(Diverged, match=f"2880 of 2880 validation logits are not finite, nor is {state}"):
        train(Broken, data, validation)


def test_the_candidates_own_errors_come_through(data: TrainingData, validation: Tensor) -> None:
    class Broken(Linear):
        def forward(self, x: Tensor) -> Any:
            raise KeyError("width")

    class Empty(nn.Module):
        def __init__(self, *arguments: Any) -> None:
            super().__init__()

    with pytest.raises(KeyError, match="width"):
        train(Broken, data, validation)
    with pytest.raises(ValueError, match="empty parameter list"):
        train(Empty, data, validation)


def test_training_leaves_the_images_alone(data: TrainingData, validation: Tensor) -> None:
    class Scribbling(Linear):
        def forward(self, x: Tensor) -> Any:
            x.zero_()
            return super().forward(x)

    images, labels, inputs = data.images.clone(), data.labels.clone(), validation.clone()
    train(Scribbling, data, validation, augmentation=("flip",))
    assert torch.equal(data.images, images)
    assert torch.equal(data.labels, labels)
    assert torch.equal(validation, inputs)
