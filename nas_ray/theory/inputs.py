"""What a formula may be given: checks that refuse an impossible number with a sentence for people.

In: the name of a parameter and its value. Out: nothing, or ValueError.
"""

from __future__ import annotations

import math


def require_share(name: str, value: float) -> None:
    """A probability or a share: 0 .. 1, both included."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a share and must be from 0 to 1, not {value}")


def require_open_share(name: str, value: float) -> None:
    """A share for which both ends are degenerate: over 0 and under 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be over 0 and under 1, not {value}")


def require_positive(name: str, value: float) -> None:
    """A finite number over 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number over 0, not {value}")


def require_not_negative(name: str, value: float) -> None:
    """A finite number of at least 0: a standard deviation, a number of programs or of cycles."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
