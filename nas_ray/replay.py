"""What the generator is trained on: prompt-code pairs of this and earlier cycles, less those that are held out.

In: the pairs of every elite and top-up so far. Out: a frozen `TrainingSet`. Both choices depend on nothing but ids,
cycles and seeds, so a run that is resumed, or a fine-tune that is done again, sees the same pairs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from nas_ray.config import FinetuneConfig

CORPUS_CYCLE = -1  # of pairs from the seed corpus: one before the first


class Written(Protocol):
    """What a pair is made of; `nas_ray.schema.CandidateRow` has it."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def cycle(self) -> int: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def patch(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Pair:
    """A program and the prompt that it answered."""

    id: str
    prompt: str  # the very prompt it was generated from, before any chat template
    code: str  # the kept program
    cycle: int
    accuracy: float
    patch: str = ""  # of an edit: the answer that made `code` of its parent

    @property
    def answer(self) -> str:
        """What the model is to write: the program, or the edit that made it; training adds the end-of-text token."""
        return self.patch or self.code

    @classmethod
    def of(cls, row: Written) -> Pair:
        """The pair of a valid candidate's final row."""
        if row.accuracy is None:
            raise ValueError(f"candidate {row.id} has no accuracy; only valid candidates become pairs")
        return cls(row.id, row.prompt, row.code, row.cycle, row.accuracy, row.patch)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One fine-tune's pairs, in order of cycle and then as they came in; no program is in both parts or twice."""

    training: tuple[Pair, ...]
    held_out: tuple[Pair, ...]


def is_held_out(program_id: str, share: float) -> bool:
    """True for about `share` of all ids, and for ever: an id held out at one share is held out at every larger one."""
    place = int.from_bytes(hashlib.sha256(f"held out {program_id}".encode()).digest()[:8], "big")
    return place < share * 2**64


def choose_pairs(pairs: Iterable[Pair], config: FinetuneConfig, cycle: int, seed: int) -> TrainingSet:
    """The pairs that the fine-tune at the end of `cycle` trains on, and those that it is measured on.

    All of the cycle's own pairs take part. Of earlier ones: every one (`replay: all`), those of the last
    `replay_last` cycles, this one included (`last`), or a seeded sample of round(replay_fraction * earlier ones)
    (`fraction`; its held-out part is not sampled: measuring costs little, and the same programs are followed
    through the run). Pairs of later cycles are passed over, so that a finished cycle's fine-tune can be done again.
    """
    known: dict[str, Pair] = {}
    for pair in sorted((pair for pair in pairs if pair.cycle <= cycle), key=lambda pair: pair.cycle):
        known.setdefault(pair.id, pair)
    first = cycle - config.replay_last + 1 if config.replay == "last" else CORPUS_CYCLE
    window = [pair for pair in known.values() if pair.cycle >= first]
    held_out = [pair for pair in window if is_held_out(pair.id, config.held_out)]
    training = [pair for pair in window if not is_held_out(pair.id, config.held_out)]
    if config.replay == "fraction":
        earlier = sorted(pair.id for pair in training if pair.cycle < cycle)
        # A string seeds Random through SHA-512: the same on every machine, unlike hash().
        order = random.Random(f"replay {seed} {cycle}")
        kept = set(order.sample(earlier, round(config.replay_fraction * len(earlier))))
        training = [pair for pair in training if pair.cycle == cycle or pair.id in kept]
    return TrainingSet(tuple(training), tuple(held_out))
