"""Measure a set of programs on scikit-learn's digits: how many are valid, and how good they are after one epoch.

In: the texts of programs. Out: a `Verdict` for each. This is the yardstick for the grammar and the seed model: every
program goes the way of a candidate (`nas_ray.judgement`), in the sandbox, by the defaults of the configuration.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas_ray.config import BudgetConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import load_dataset
from nas_ray.judgement import judge_program
from nas_ray.program import parse_completion
from nas_ray.sandbox import Sandbox

IN_SHAPE = (1, 8, 8)  # channels, height, width
CLASSES = 10
BUDGET = 500_000  # parameters
DATASET = DatasetConfig(validation_fraction=0.25)  # 1,078 images to train on, 359 to grade on
PROTOCOL = ProtocolConfig(epochs=1, batch_size=32, optimiser="sgd", lr=0.01, momentum=0.9)

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
    """outcome: a word of `nas_ray.outcome`; accuracy in [0, 1], of valid ones; parameters, of those that were built."""

    outcome: str
    accuracy: float | None = None
    parameters: int | None = None
    error: str = ""


def judge_all(programs: Sequence[str]) -> list[Verdict]:
    """Judge every program with the same seed; progress is one line for each hundred."""
    verdicts = []
    dataset = load_dataset(DATASET)
    with Sandbox("cpu", dataset, PROTOCOL, BudgetConfig(parameters=BUDGET)) as sandbox:
        sandbox.wait_until_ready()
        for number, program in enumerate(programs, 1):
            found = judge_program(parse_completion(program), sandbox, dataset)
            parameters = found.build.parameters if found.build else None
            verdicts.append(Verdict(found.outcome.value, found.accuracy, parameters, found.detail))
            if number % 100 == 0:
                print(f"judged {number} of {len(programs)} programs", flush=True)
    return verdicts


def summary(programs: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Counts and quantiles of a measured set, ready to be printed or saved as JSON."""
    accuracies = np.array([one.accuracy for one in verdicts if one.accuracy is not None])
    quantiles = {}
    if len(accuracies):
        quantiles = {
            f"q{int(q * 100):02d}": round(float(np.quantile(accuracies, q)), 3)
            for q in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
        }
    return {
        "n": len(programs),
        "distinct_share": round(len(set(programs)) / len(programs), 4),
        "valid_share": round(len(accuracies) / len(programs), 4),
        "outcomes": dict(Counter(one.outcome for one in verdicts).most_common()),
        "mean_accuracy": round(float(accuracies.mean()), 4) if len(accuracies) else None,
        "accuracy_quantiles": quantiles,
        "accuracy_at_least_0.9": round(float((accuracies >= 0.9).mean()), 4) if len(accuracies) else None,
        "ideas": {
            name: round(sum(bool(re.search(pattern, one)) for one in programs) / len(programs), 3)
            for name, pattern in IDEAS.items()
        },
    }
