"""Measure a set of programs on scikit-learn's digits: how many are valid, and how good they are after one epoch.

In: the texts of programs. Out: a `Verdict` for each. This is the yardstick for the grammar and the seed model only:
it executes the programs inside this process, with no sandbox, so give it nothing but programs of the grammar or of a
model trained on it.
"""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

IN_SHAPE = (1, 8, 8)  # channels, height, width
CLASSES = 10
BUDGET = 500_000  # parameters
TRAINING_IMAGES = 1078  # 60 % of 1,797
VALIDATION_IMAGES = 360  # the next 20 %
BATCH = 32
LEARNING_RATE = 0.01
MOMENTUM = 0.9
SPLIT_SEED = 0

# What to look for in a program's text, to see which ideas a set of programs holds.
IDEAS = {
    "BatchNorm": r"BatchNorm2d",
    "GroupNorm": r"GroupNorm",
    "relu": r"F\.relu|nn\.ReLU",
    "leaky_relu": r"leaky_relu|LeakyReLU",
    "gelu": r"gelu|GELU",
    "silu": r"silu|SiLU",
    "elu": r"F\.elu|nn\.ELU",
    "tanh": r"torch\.tanh|nn\.Tanh",
    "sigmoid activation": r"torch\.sigmoid\((?!self\.gate)|nn\.Sigmoid",
    "residual": r"x = .*(?:\by \+ x|\by \+ self|\(x\) \+ x\b|\(x\) \+ self\.skip)|return .*y \+ ",
    "concatenated branches": r"torch\.cat\(\[self",
    "concatenated poolings": r"torch\.cat\(\[(?:x, )?F\.",
    "depthwise": r"groups=",
    "dropout": r"[Dd]ropout",
    "max pooling": r"F\.max_pool2d\(x, 2\)|MaxPool2d",
    "average pooling": r"F\.avg_pool2d\(x, 2\)|AvgPool2d",
    "strided convolution": r"stride=2",
    "squeeze-excite": r"self\.gate",
    "flatten head": r"flatten\(x, 1\)|= x\.flatten\(1\)|x\.view",
    "global average head": r"x\.mean\(\(2, 3\)\)|adaptive_avg_pool2d",
    "global maximum head": r"amax|adaptive_max_pool2d",
    "hidden linear layer": r"self\.fc1 = nn\.Linear",
    "helper class": r"class Block",
    "nn.Sequential": r"nn\.Sequential",
    "loop": r"for width in",
}


@dataclass(frozen=True)
class Verdict:
    """outcome: valid, syntax_error, build_error, shape_error, too_large, train_error or diverged; accuracy in [0, 1],
    valid ones only.
    """

    outcome: str
    accuracy: float | None = None
    parameters: int | None = None
    error: str = ""


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (N, 1, 8, 8), training labels (N,), validation images, validation labels; normalised by the
    training pixels.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped,unused-ignore]

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    x = torch.tensor(images, dtype=torch.float32).view(-1, *IN_SHAPE)[order]
    y = torch.tensor(labels)[order]
    x = (x - x[:TRAINING_IMAGES].mean()) / x[:TRAINING_IMAGES].std()
    end = TRAINING_IMAGES + VALIDATION_IMAGES
    return x[:TRAINING_IMAGES], y[:TRAINING_IMAGES], x[TRAINING_IMAGES:end], y[TRAINING_IMAGES:end]


def judge(program: str, seed: int = 0) -> Verdict:
    """Execute a program, train its network for one epoch of SGD and measure its validation accuracy."""
    names: dict[str, object] = {}
    try:
        exec(compile(program, "<program>", "exec"), names)  # trusted by this module's contract
    except SyntaxError as error:
        return Verdict("syntax_error", error=str(error))
    except Exception as error:
        return Verdict("build_error", error=str(error))
    torch.manual_seed(seed)
    try:
        net = names["Net"](
            (1, *IN_SHAPE),
            (CLASSES,),
            {"lr": LEARNING_RATE, "momentum": MOMENTUM, "dropout": 0.2, "batch": BATCH},
            "cpu",
        )  # type: ignore[operator]
        assert isinstance(net, nn.Module)
        parameters = sum(one.numel() for one in net.parameters())
    except Exception as error:
        return Verdict("build_error", error=str(error))
    try:
        if net(torch.zeros(2, *IN_SHAPE)).shape != (2, CLASSES):
            return Verdict("shape_error", error="the logits are not (2, 10)")
    except Exception as error:
        return Verdict("shape_error", error=str(error))
    if parameters > BUDGET:
        return Verdict("too_large", parameters=parameters)
    try:
        accuracy = _train_one_epoch(net, seed)
    except Exception as error:
        return Verdict("train_error", error=str(error))
    if accuracy is None:
        return Verdict("diverged", parameters=parameters)
    return Verdict("valid", accuracy, parameters)


def _train_one_epoch(net: nn.Module, seed: int) -> float | None:
    """Validation accuracy after one epoch, or None when the loss is not finite."""
    x, y, x_validation, y_validation = digits()
    optimiser = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    net.train()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    for batch in torch.split(order, BATCH):
        loss = functional.cross_entropy(net(x[batch]), y[batch])
        if not torch.isfinite(loss):
            return None
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.eval()
    with torch.no_grad():
        return float((net(x_validation).argmax(1) == y_validation).float().mean())


def summary(programs: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Counts and quantiles of a measured set, ready to be printed or saved as JSON."""
    accuracies = torch.tensor(sorted(one.accuracy for one in verdicts if one.accuracy is not None))
    quantiles = {}
    if len(accuracies):
        quantiles = {
            f"q{int(q * 100):02d}": round(float(accuracies.quantile(q)), 3)
            for q in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
        }
    return {
        "n": len(programs),
        "distinct_share": round(len(set(programs)) / len(programs), 4),
        "valid_share": round(len(accuracies) / len(programs), 4),
        "outcomes": dict(Counter(one.outcome for one in verdicts).most_common()),
        "mean_accuracy": round(float(accuracies.mean()), 4) if len(accuracies) else None,
        "accuracy_quantiles": quantiles,
        "accuracy_at_least_0.9": round(float((accuracies >= 0.9).float().mean()), 4) if len(accuracies) else None,
        "ideas": {
            name: round(sum(bool(re.search(pattern, one)) for one in programs) / len(programs), 3)
            for name, pattern in IDEAS.items()
        },
    }


def judge_all(programs: Sequence[str]) -> list[Verdict]:
    """Judge every program with the same seed; progress is one line for each hundred."""
    verdicts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, program in enumerate(programs, 1):
            verdicts.append(judge(program))
            if number % 100 == 0:
                print(f"judged {number} of {len(programs)} programs", flush=True)
    return verdicts
