"""One diagnostic: a question to a run, and the answer.

In: nothing. Out: `Diagnostic`, `untestable` for a question that the run has too few rows for, and what several of
them say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from nas_ray.config import FinetuneConfig
from nas_ray.interval import Interval

# ok: as it should be. note: true, and worth knowing, but no reason to stop. problem: the run suffers from it.
Verdict = Literal["ok", "note", "problem", "untestable"]
Cause = Literal["", "memorising", "starving", "noisy", "falling", "not learning", "edits fail"]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """The answer to one question."""

    id: str  # D1 .. D17
    question: str
    verdict: Verdict
    finding: str  # what it means, in a sentence with its numbers
    measured: Interval | None = None
    unit: str = ""  # of `measured`
    advice: str = ""  # what to change: a configuration key and a value, or a command
    cause: Cause = ""  # of a problem: what the run suffers from


def untestable(number: str, question: str, have: str, needs: str) -> Diagnostic:
    """No verdict on too little data: what there is, and what would be enough."""
    return Diagnostic(number, question, "untestable", f"not testable with {have}; needs {needs}")


def lighter(settings: FinetuneConfig) -> str:
    """The next lighter fine-tune, as keys and values."""
    if settings.epochs > 1:
        return f"finetune.epochs={settings.epochs // 2} (now {settings.epochs})"
    return f"finetune.lr={settings.lr / 2:g} (now {settings.lr:g})"


def chance(p: float) -> str:
    """A p-value for people."""
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


class Sample(NamedTuple):
    """What a mean is compared by."""

    mean: float
    sd: float  # with n - 1
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Of two values or more."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))
