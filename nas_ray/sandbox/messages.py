"""What a child process may say to its supervisor: four fixed structs, each in one packet.

In: bytes from a child that may be wrong or dishonest. Out: a checked message, or `MalformedMessage`. Nothing here is
pickled, evaluated or of unbounded size; numbers must be finite and enumerations known.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from enum import IntEnum

from nas_ray.candidate import Build
from nas_ray.outcome import Outcome

CURVE_POINTS = 64
PACKET_BYTES = 1024  # longer than any message; a longer packet is malformed

_ENTERED, _BUILT, _TRAINED, _FAILED = 1, 2, 3, 4
_STEP = struct.Struct("<BB")
_BUILD = struct.Struct("<BQQQ16sBdI")
_TRAINING = struct.Struct(f"<BdQdH{CURVE_POINTS}d")
_FAILURE = struct.Struct("<BB64s448s")

# The outcomes that a child may claim for itself; the others are the supervisor's to find.
CLAIMABLE = (
    Outcome.CONTRACT_ERROR,
    Outcome.BUILD_ERROR,
    Outcome.SHAPE_ERROR,
    Outcome.TOO_LARGE,
    Outcome.TRAIN_ERROR,
    Outcome.INVALID_OUTPUT,
    Outcome.DIVERGED,
    Outcome.OUT_OF_MEMORY,
    Outcome.FORBIDDEN,
    Outcome.LIMIT_EXCEEDED,
)
_DEVICES = ("meta", "cpu")


class MalformedMessage(ValueError):
    """A packet that no honest child sends."""


class Step(IntEnum):
    """Where a child is, in order; a time limit names it."""

    START = 0
    IMPORT = 1
    HYPERPARAMETERS = 2  # this one, SETUP and LEARN: of a program that trains itself
    INIT = 3
    FORWARD = 4
    SETUP = 5
    LEARN = 6
    TRAIN = 7
    PREDICT = 8  # the supervisor answers this one with the validation images


# What may come before each step. A build goes from INIT or FORWARD back to INIT when it tries again on the CPU.
_BEFORE = {
    Step.START: (),
    Step.IMPORT: (Step.START,),
    Step.HYPERPARAMETERS: (Step.IMPORT,),
    Step.INIT: (Step.IMPORT, Step.HYPERPARAMETERS, Step.INIT, Step.FORWARD),
    Step.FORWARD: (Step.INIT,),
    Step.SETUP: (Step.INIT,),
    Step.LEARN: (Step.SETUP,),
    Step.TRAIN: (Step.INIT,),
    Step.PREDICT: (Step.TRAIN, Step.LEARN),
}


def may_follow(step: Step, before: Step) -> bool:
    """True where an honest child enters `step` right after `before`."""
    return before in _BEFORE[step]


@dataclass(frozen=True, slots=True)
class Entered:
    """The child is about to begin `step`."""

    step: Step


@dataclass(frozen=True, slots=True)
class Trained:
    """Training and prediction are over; the logits are in the shared buffer."""

    train_seconds: float
    device_peak_bytes: int  # 0 where the device has no memory of its own
    curve: tuple[float, ...]
    latency_ms: float = 0.0  # see `nas_ray.training.measure_latency`; 0 where it could not be measured


@dataclass(frozen=True, slots=True)
class Failed:
    """The program failed, and how, in the child's words."""

    outcome: Outcome
    error_type: str
    detail: str


Message = Entered | Build | Trained | Failed


def may_conclude(message: Message, step: Step) -> bool:
    """True where `message` can be the last word of an honest child at `step`."""
    return isinstance(message, Failed) or step is (Step.FORWARD if isinstance(message, Build) else Step.PREDICT)


def clean_text(text: str) -> str:
    """`text` without terminal escapes and control characters; newlines and tabs stay."""
    text = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)", "", text.replace("\r\n", "\n"))
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def _one_line(data: bytes) -> str:
    return " ".join(clean_text(data.rstrip(b"\0").decode(errors="replace")).split())


def _cut(text: str, size: int) -> bytes:
    """At most `size` bytes of UTF-8, whole characters."""
    return text.encode(errors="replace")[:size].decode(errors="ignore").encode()


def encode(message: Message) -> bytes:
    """The packet of `message`; long texts and curves are cut."""
    match message:
        case Entered(step):
            return _STEP.pack(_ENTERED, step)
        case Build():
            graph, device = message.graph.encode(), _DEVICES.index(message.device)
            counts = (message.parameters, message.flops, message.activation_bytes)
            return _BUILD.pack(_BUILT, *counts, graph, device, message.seconds, message.depth)
        case Trained(seconds, peak, curve, latency_ms):
            points = list(curve[:CURVE_POINTS])
            padding = [0.0] * (CURVE_POINTS - len(points))
            return _TRAINING.pack(_TRAINED, seconds, peak, latency_ms, len(points), *points, *padding)
        case Failed(outcome, error_type, detail):
            return _FAILURE.pack(_FAILED, CLAIMABLE.index(outcome), _cut(error_type, 64), _cut(detail, 448))


def decode(packet: bytes) -> Message:
    """The message in `packet`. Raises `MalformedMessage` with the reason."""
    structs = {_ENTERED: _STEP, _BUILT: _BUILD, _TRAINED: _TRAINING, _FAILED: _FAILURE}
    form = structs.get(packet[0]) if packet else None
    if form is None or len(packet) != form.size:
        raise MalformedMessage(f"a packet of {len(packet)} bytes of no known kind")
    kind, *fields = form.unpack(packet)
    if kind == _ENTERED:
        if fields[0] not in Step._value2member_map_:
            raise MalformedMessage(f"unknown step {fields[0]}")
        return Entered(Step(fields[0]))
    if kind == _BUILT:
        parameters, flops, activation_bytes, graph, device, seconds, depth = fields
        if not re.fullmatch(rb"[0-9a-f]{16}", graph) or device >= len(_DEVICES) or not math.isfinite(seconds):
            raise MalformedMessage("a build result with impossible fields")
        if max(parameters, flops, activation_bytes) >= 1 << 63:
            raise MalformedMessage("a build result with impossible sizes")
        return Build(parameters, flops, activation_bytes, graph.decode(), _DEVICES[device], seconds, depth)
    if kind == _TRAINED:
        seconds, peak, latency_ms, count, *points = fields
        if count > CURVE_POINTS or peak >= 1 << 63:
            raise MalformedMessage("a training result with impossible sizes")
        if not all(map(math.isfinite, (seconds, latency_ms, *points))) or min(seconds, latency_ms) < 0:
            raise MalformedMessage("a training result that is not finite")
        return Trained(seconds, peak, tuple(points[:count]), latency_ms)
    claimed, error_type, detail = fields
    if claimed >= len(CLAIMABLE):
        raise MalformedMessage(f"unknown outcome {claimed}")
    return Failed(CLAIMABLE[claimed], _one_line(error_type), _one_line(detail))
