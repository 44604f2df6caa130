"""Tiers: which walls a node can put around a candidate, and what that is worth.

In: what a probe found by doing (`nas_ray.sandbox.probe`). Out: `Walls`, its tier, one line for a person, and the
refusal of a node that is below a run's floor. Plain values that travel between nodes; importing this needs no torch.

    A   seccomp, Landlock, and no privileges
    B   seccomp, bubblewrap in place of Landlock, and no privileges
    C   seccomp alone: files are protected by their permissions and, if the program does not race it, by the witness
    D   time, memory and output are limited from outside, and that is all
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Tier = Literal["A", "B", "C", "D"]
Privileges = Literal["uid", "capabilities", "unprivileged", "kept"]

PRIVILEGES = {
    "uid": "a user id of its own",
    "capabilities": "no capabilities",
    "unprivileged": "an ordinary user's rights",
    "kept": "the privileges of this process",
}


class ContainmentError(RuntimeError):
    """This node cannot put the walls around candidates that the run asks for."""


@dataclass(frozen=True, slots=True)
class Walls:
    """What surrounds a candidate on one node."""

    privileges: Privileges  # what a candidate runs with
    landlock: int  # the kernel's ABI version; 0: none
    seccomp: bool  # system calls are filtered
    witness: bool  # refused system calls are seen from outside, also where a program swallows the error
    bubblewrap: bool = False  # files are hidden by a mount namespace
    missing: tuple[str, ...] = ()  # why a wall is not there, one line each

    @property
    def tier(self) -> Tier:
        if not self.seccomp:
            return "D"
        if self.privileges == "kept":
            return "C"
        if self.landlock:
            return "A"
        return "B" if self.bubblewrap else "C"

    def describe(self) -> str:
        """One line: the tier and what it is made of."""
        files = f"Landlock {self.landlock}" if self.landlock else "bubblewrap" if self.bubblewrap else "files open"
        calls = "no filter of system calls"
        if self.seccomp:
            calls = "seccomp, attempts seen" if self.witness else "seccomp, swallowed attempts not seen"
        return f"tier {self.tier}: {files}; {calls}; {PRIVILEGES[self.privileges]}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Walls:
        return cls(**{**values, "missing": tuple(values.get("missing", ()))})


NO_WALLS = Walls(privileges="kept", landlock=0, seccomp=False, witness=False)


def check_floor(walls: Walls, floor: Tier) -> None:
    """Raises `ContainmentError`, with the reasons and what to do, where `walls` are weaker than `floor`."""
    if walls.tier <= floor:
        return
    reasons = "".join(f"\n  - {reason}" for reason in walls.missing)
    raise ContainmentError(
        f"this machine can only contain candidates at {walls.describe()}; the run asks for tier {floor} or better."
        f"{reasons}\nLower containment.floor to {walls.tier}, or pass --unsafe, if the machine holds nothing that a "
        "program may not read, change or send away."
    )
