"""How a candidate ended, in one word, and where.

In: nothing. Out: the vocabulary (`Outcome`, `Stage`) that every room, table and report uses, and `Rejection`, what a
check returns instead of its result when a candidate goes no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """The steps of a cycle in the order in which a candidate passes them; the cheap ones come first."""

    GENERATE = "generate"
    PARSE = "parse"
    CONTRACT = "contract"
    NOVELTY = "novelty"
    BUILD = "build"
    GRAPH = "graph"
    TRAIN = "train"


class Outcome(StrEnum):
    """The final word on a candidate. Exactly one is recorded for each candidate that was generated."""

    NO_CODE = "no_code"
    PATCH_FAILED = "patch_failed"  # an edit that does not fit its parent; this and the next: of edits only
    NO_CHANGE = "no_change"
    SYNTAX_ERROR = "syntax_error"
    CONTRACT_ERROR = "contract_error"
    FORBIDDEN = "forbidden"
    DUPLICATE = "duplicate"
    BUILD_ERROR = "build_error"
    SHAPE_ERROR = "shape_error"
    TOO_LARGE = "too_large"
    TRAIN_ERROR = "train_error"
    INVALID_OUTPUT = "invalid_output"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    LIMIT_EXCEEDED = "limit_exceeded"
    CRASHED = "crashed"
    VALID = "valid"
    SANDBOX_ERROR = "sandbox_error"
    NODE_LOST = "node_lost"

    @property
    def is_engine_fault(self) -> bool:
        """True where the engine, not the candidate, is to blame: retried, and never counted against the model."""
        return self in (Outcome.SANDBOX_ERROR, Outcome.NODE_LOST)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate went no further than `stage`.

    `error_type` is the exception's class name where there was one, else "". `detail` is one line for a person: the
    exception's last line, the limit and the value, or the neighbour and the similarity.
    """

    outcome: Outcome
    stage: Stage
    detail: str
    error_type: str = ""
