"""Trains one network by the run's protocol and predicts the validation images: a training pass an epoch, then one pass.

In: a candidate's `Net` class, training images with labels, validation images without. Out: a `Prediction`. Validation
labels never come here: grading (nas_ray/grading.py) happens in another process.

Everything lives on the training device as uint8 tensors; batches are made there (nas_ray/batches.py), and losses are
looked at every CHECK_STEPS steps only, so that a device is never waited for between. Seeded: initialisation by torch's
global stream, order and augmentation by one of our own. On a CPU with the same number of threads, the same seed gives
the same bits; on a GPU cuDNN may add in another order.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas_ray.batches import Batches
from nas_ray.config import ProtocolConfig
from nas_ray.datasets.dataset import Dataset
from nas_ray.datasets.splits import take_stratified
from nas_ray.grading import Diverged, InvalidOutput
from nas_ray.graph import is_uninitialised

CHECK_STEPS = 64  # a diverged network is stopped within so many steps
CURVE_POINTS = 64
DROPOUT = 0.2  # prm["dropout"]: the contract has it, the protocol has no opinion
# What a program that trains itself may ask for: 99.4 % of LEMUR's programs name nothing else (10,419 of the 10,483 in
# nn-dataset 2.1.2; weight_decay would add 8 of them).
OFFERED = ("lr", "momentum", "batch", "epoch", "dropout")
LATENCY_PASSES, LATENCY_SECONDS = 20, 0.15  # whichever comes first
PREDICTION_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 21}  # per batch when predicting; 64 channels of it: 64, 512 MiB


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a candidate may learn from: N images, and the constants that normalise any image of the data set."""

    images: Tensor  # uint8 (N, C, H, W), on any device
    labels: Tensor  # int64 (N,), likewise
    classes: int
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0 .. 1
    std: tuple[float, ...]

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> TrainingData:
        """The training split of a data set, copied to CPU tensors."""
        images, labels = torch.tensor(dataset.train_images), torch.tensor(dataset.train_labels)
        return cls(images, labels, dataset.classes, dataset.mean, dataset.std)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What came out of one training."""

    logits: NDArray[np.float32]  # (validation images, classes), all finite
    curve: tuple[float, ...]  # training loss, nats, at up to 64 evenly spaced steps, the first and the last among them
    train_seconds: float  # building the network and predicting not included
    steps: int  # training batches


Train = Callable[[nn.Module, Batches], list[float]]  # trains the network; returns the loss of every step, if it knows


def hyperparameters(protocol: ProtocolConfig) -> dict[str, Any]:
    """The `prm` that every network of a run is built with, under LEMUR's names."""
    values = (protocol.lr, protocol.momentum, protocol.batch_size, protocol.epochs, DROPOUT)
    prm = dict(zip(OFFERED, values, strict=True))
    return prm if protocol.kind == "candidate" else {**prm, "weight_decay": protocol.weight_decay}


def train_and_predict(
    net_class: Callable[..., nn.Module],
    data: TrainingData,
    validation_images: Tensor | Callable[[], Tensor],
    protocol: ProtocolConfig,
    device: str,
    prm: dict[str, Any],
    train: Train | None = None,
) -> Prediction:
    """Builds `net_class(in_shape, out_shape, prm, device)`, trains it and returns its logits on the validation images.

    `validation_images` is uint8 (M, C, H, W), or a function returning it, called once, after the last training step.
    `train` takes the place of the protocol's own training (see nas_ray/own_training.py).

    Raises:
        InvalidOutput: the network's output is not a float tensor (batch, classes), or see `check_finite`.
        Diverged: a training loss is not finite, or see `check_finite`.
        Exception: whatever the candidate's own code raises.
    """
    _seed_everything(protocol.seed)
    place = torch.device(device)
    images, labels = _choose_fraction(data, protocol)
    images, labels = images.to(place), labels.to(place)
    normalise = Normaliser(data, place)
    net = net_class((1, *images.shape[1:]), (data.classes,), dict(prm), place).to(place)
    batches = Batches(images, labels, normalise, protocol)
    started = time.perf_counter()
    if train is None:
        losses = _train(net, batches, data.classes, protocol)
    else:
        with _precision(place, protocol):
            losses = train(net, batches)
    train_seconds = time.perf_counter() - started
    opened = validation_images() if callable(validation_images) else validation_images
    logits = predict(net, opened.to(place), data.classes, normalise, protocol)
    steps = np.unique(np.linspace(0, len(losses) - 1, min(CURVE_POINTS, len(losses))).round().astype(int))
    curve = tuple(losses[step] for step in steps)
    return Prediction(logits, curve, train_seconds, batches.drawn)


class Normaliser:
    """Maps uint8 pixels (B, C, H, W) to float32 (pixel / 255 - mean) / std, on their device."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (data.mean, data.std))
        self._scale = (1 / (255 * std)).to(device, torch.float32)  # (C, 1, 1)
        self._shift = (-mean / std).to(device, torch.float32)

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32).mul_(self._scale).add_(self._shift)


def predict(
    net: nn.Module, images: Tensor, classes: int, normalise: Normaliser, protocol: ProtocolConfig
) -> NDArray[np.float32]:
    """One pass over uint8 images (M, C, H, W) in evaluation mode: float32 logits (M, classes).

    Batches are nearly equal and so never hold a single image: programs that squeeze their output would break.
    Raises `InvalidOutput` and `Diverged` as `train_and_predict` does.
    """
    net.eval()
    pixels = PREDICTION_PIXELS.get(images.device.type, PREDICTION_PIXELS["cpu"])
    largest = max(protocol.batch_size, pixels // (images.shape[2] * images.shape[3]))
    parts = []
    with torch.inference_mode(), _precision(images.device, protocol):
        for batch in images.tensor_split(-(-len(images) // largest)):
            parts.append(check_logits(net(normalise(batch)), len(batch), classes).float())
        logits: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    check_finite(logits, net)
    return logits


def measure_latency(net: nn.Module, data: TrainingData, protocol: ProtocolConfig, device: str) -> float | None:
    """Milliseconds of one forward pass of one image in evaluation mode, on a warm network: the median of up to 20.

    It takes 0.15 s at most, or two passes where they are longer. None where the network fails on a single image, as
    programs that squeeze their output do.
    """
    place = torch.device(device)
    image = Normaliser(data, place)(data.images[:1].to(place))
    net.eval()
    seconds: list[float] = []  # the first pass is the slowest, and is left out
    try:
        with torch.inference_mode(), _precision(place, protocol):
            while len(seconds) < 2 or (len(seconds) <= LATENCY_PASSES and sum(seconds) < LATENCY_SECONDS):
                started = time.perf_counter()
                net(image)
                if place.type == "cuda":
                    torch.cuda.synchronize(place)  # a GPU has only been asked until then
                seconds.append(time.perf_counter() - started)
    except Exception:  # the program's own; it has its accuracy already
        return None
    return 1000 * statistics.median(seconds[1:])


def check_finite(logits: NDArray[np.float32], net: nn.Module) -> None:
    """The one rule on validation logits that are not finite: where the network's state is, they were made so.

    Raises `Diverged` where a parameter or a buffer is not finite either: training has broken the network. Raises
    `InvalidOutput` where all of them are finite: the program computed the output so.
    """
    wrong = logits.size - int(np.isfinite(logits).sum())
    if not wrong:
        return
    found = f"{wrong} of {logits.size} validation logits are not finite"
    states = [*net.named_parameters(), *net.named_buffers()]
    broken = [name for name, state in states if not is_uninitialised(state) and not state.isfinite().all()]
    if broken:
        raise Diverged(f"{found}, nor is {broken[0]}")
    raise InvalidOutput(f"{found}, although all parameters and buffers are")


def check_logits(logits: Any, count: int, classes: int) -> Tensor:
    """Returns `logits` if it is a float tensor (count, classes), else raises `InvalidOutput` saying what it is."""
    if not isinstance(logits, Tensor):
        raise InvalidOutput(f"forward returned {type(logits).__name__}; a float tensor ({count}, {classes}) is needed")
    if tuple(logits.shape) != (count, classes) or not logits.is_floating_point():
        raise InvalidOutput(
            f"forward returned {str(logits.dtype).removeprefix('torch.')} {tuple(logits.shape)}; a float tensor "
            f"({count}, {classes}) is needed"
        )
    return logits


def _train(net: nn.Module, batches: Batches, classes: int, protocol: ProtocolConfig) -> list[float]:
    """Runs the protocol's epochs; returns the loss of every step, all finite."""
    optimiser = _make_optimiser(net, protocol)
    losses: list[float] = []
    waiting: list[Tensor] = []  # losses not looked at yet
    net.train()
    for _ in range(protocol.epochs):
        for images, labels in batches:
            with _precision(images.device, protocol):
                logits = check_logits(net(images), len(images), classes)
            loss = F.cross_entropy(logits.float(), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            waiting.append(loss.detach())
            if len(waiting) == CHECK_STEPS:
                _collect(waiting, losses)
    _collect(waiting, losses)
    return losses


def _collect(waiting: list[Tensor], losses: list[float]) -> None:
    """Moves losses from the device into `losses`. Raises `Diverged` at the first that is not finite."""
    if not waiting:
        return
    values = torch.stack(waiting).tolist()
    waiting.clear()
    for value in values:
        if not np.isfinite(value):
            raise Diverged(f"the training loss is {value} at step {len(losses) + 1}")
        losses.append(value)


def _make_optimiser(net: nn.Module, protocol: ProtocolConfig) -> torch.optim.Optimizer:
    if protocol.optimiser == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=protocol.lr, weight_decay=protocol.weight_decay)
    return torch.optim.SGD(
        net.parameters(), lr=protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
    )


def _choose_fraction(data: TrainingData, protocol: ProtocolConfig) -> tuple[Tensor, Tensor]:
    """The protocol's share of the training split, stratified, the same for every candidate; at least two images."""
    count = max(2, round(protocol.fraction * len(data.labels)))
    if len(data.labels) < 2:
        raise ValueError(f"{len(data.labels)} training image; at least 2 are needed")
    if count >= len(data.labels):
        return data.images, data.labels
    chosen = torch.from_numpy(take_stratified(data.labels.cpu().numpy(), count, protocol.seed)).to(data.labels.device)
    return data.images[chosen], data.labels[chosen]


def _precision(device: torch.device, protocol: ProtocolConfig) -> torch.autocast:
    """bfloat16 means mixed precision: weights and optimiser stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=protocol.precision == "bfloat16")


def _seed_everything(seed: int) -> None:
    """Every stream that a candidate may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
