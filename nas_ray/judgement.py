"""A program's whole way from its text to its accuracy, outside of a search: no novelty, no store, no Ray.

In: a program, a sandbox, the data set that the sandbox trains on. Out: a `Judgement`: how the program ended, and where.
The stages are those of a search, by the same functions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from nas_ray.candidate import Build, Program
from nas_ray.contract import check_contract
from nas_ray.datasets import Dataset, in_shape, out_shape
from nas_ray.outcome import Outcome, Rejection, Stage
from nas_ray.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Judgement:
    """How one program ended."""

    outcome: Outcome
    stage: Stage  # the last that it came to
    detail: str
    error_type: str
    seconds: float  # wall time of all stages
    accuracy: float | None = None  # share of the validation split, 0 .. 1; of valid ones
    build: Build | None = None  # None where it did not come to be built


def judge_program(program: Program | Rejection, sandbox: Sandbox, dataset: Dataset, screens: bool = False) -> Judgement:
    """Check, build, train and grade a program; the first stage that refuses it has the last word.

    Args:
        program: what `nas_ray.program` made of a completion or of a file; a rejection is the judgement.
        sandbox: made with `dataset`; its first start is not counted.
        screens: also refuse it for what it looks like, see `nas_ray.forbidden`.

    Raises:
        ZygoteLost: the sandbox cannot start.
    """
    sandbox.wait_until_ready()
    start = time.monotonic()
    if isinstance(program, Rejection):
        return _refuse(program, start)
    refused = check_contract(program, screens)
    if refused is not None:
        return _refuse(refused, start)
    build = sandbox.build(program.code, in_shape(dataset), out_shape(dataset))
    if isinstance(build, Rejection):
        return _refuse(build, start)
    measured = sandbox.evaluate(program.code)
    return Judgement(
        outcome=measured.outcome,
        stage=measured.stage,
        detail=measured.detail,
        error_type=measured.error_type,
        seconds=time.monotonic() - start,
        accuracy=measured.accuracy,
        build=build,
    )


def _refuse(why: Rejection, start: float) -> Judgement:
    return Judgement(why.outcome, why.stage, why.detail, why.error_type, time.monotonic() - start)
