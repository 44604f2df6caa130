"""Grades predictions against labels: the one place where a score is made.

In: logits (N, classes) and labels (N,). Out: accuracy and loss. Plain NumPy, so that it runs in the process that holds
the labels, which never runs a candidate's code and need not import torch. Also the two errors of logits that get no
score; which one it is where they are not finite, `nas_ray.training.check_finite` says, next to the network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class InvalidOutput(ValueError):
    """A program's output is not a float tensor (N, classes), or was made not finite: the outcome `invalid_output`."""


class Diverged(ArithmeticError):
    """Training ended in numbers that are not finite: the outcome `diverged`."""


def grade(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy (share, 0 .. 1) and mean cross-entropy (nats) of logits (N, classes) on labels (N,).

    The class of an image is its largest logit, the first of equals. The loss is mean(logsumexp(row) - row[label]),
    computed in float64. Raises `InvalidOutput` for a wrong shape or type, and where a logit is not finite: the process
    that predicted has looked, so an honest one never hands over such logits. Raises `ValueError` for labels that these
    logits cannot have.
    """
    if logits.ndim != 2 or logits.shape[0] != labels.shape[0] or logits.shape[0] == 0:
        raise InvalidOutput(f"logits have shape {logits.shape}; ({labels.shape[0]}, classes) is needed")
    if logits.dtype.kind != "f":
        raise InvalidOutput(f"logits are {logits.dtype}; floats are needed")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; the logits have {logits.shape[1]} classes")
    finite = np.isfinite(logits)
    if not finite.all():
        wrong = f"{finite.size - int(finite.sum())} of {finite.size} logits"
        raise InvalidOutput(f"broken protocol: {wrong} were handed over although they are not finite")
    accuracy = float(np.mean(logits.argmax(axis=1) == labels))
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)  # so that exp cannot overflow
    losses = np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(labels)), labels]
    return accuracy, float(losses.mean())
