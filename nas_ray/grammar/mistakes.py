"""Mistakes: how a correct program is spoiled, the way a language model spoils one.

In: the text of a program and a seeded `random.Random`. Out: the text with one mistake, or None when the program has
no place for it.
"""

import random
import re
from collections.abc import Callable

CHANNELS = re.compile(r"(?<=\()\d+(?=, \d+)")
LINEAR = re.compile(r"(?<=nn\.Linear\()\d+")
ATTRIBUTE = re.compile(r"^        self\.(?:conv|c|bn|norm|block|fc|skip|gate)\d* = nn\.\w+\(.*\)\n", re.MULTILINE)
SHORTCUT = re.compile(r"self\.skip\d\(x\)")
SLIP = re.compile(r"\)(?=\n)|:(?=\n)|(?<=\w)\(")
WRONG_CHANNELS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def wrong_channels(program: str, rng: random.Random) -> str | None:
    """A layer expects another number of channels than the one before it gives."""
    return _replace_one(CHANNELS, program, rng, _another_number(rng))


def wrong_features(program: str, rng: random.Random) -> str | None:
    """The first linear layer expects a vector of another length."""
    return _replace_one(LINEAR, program, rng, _another_number(rng))


def missing_attribute(program: str, rng: random.Random) -> str | None:
    """The forward pass uses a layer that was never made."""
    return _replace_one(ATTRIBUTE, program, rng, lambda _: "")


def missing_projection(program: str, rng: random.Random) -> str | None:
    """A shortcut is added to maps with another number of channels."""
    return _replace_one(SHORTCUT, program, rng, lambda _: "x")


def syntax_slip(program: str, rng: random.Random) -> str | None:
    """A bracket or a colon is left out."""
    return _replace_one(SLIP, program, rng, lambda _: "")


# In the order of `WEIGHTS`; pooling below one pixel is drawn with the plan, because every later size depends on it.
EDITS: tuple[Callable[[str, random.Random], str | None], ...] = (
    wrong_channels,
    wrong_features,
    missing_attribute,
    missing_projection,
    syntax_slip,
)
WEIGHTS = (34, 34, 14, 12, 6)


def spoil(program: str, rng: random.Random) -> str:
    """Make one mistake in a program."""
    while True:
        (edit,) = rng.choices(EDITS, WEIGHTS)
        spoiled = edit(program, rng)
        if spoiled is not None and spoiled != program:
            return spoiled


def _another_number(rng: random.Random) -> Callable[[str], str]:
    def change(number: str) -> str:
        return str(rng.choice([other for other in WRONG_CHANNELS if other != int(number)]))

    return change


def _replace_one(
    pattern: re.Pattern[str], program: str, rng: random.Random, change: Callable[[str], str]
) -> str | None:
    found = list(pattern.finditer(program))
    if not found:
        return None
    one = rng.choice(found)
    return program[: one.start()] + change(one.group()) + program[one.end() :]
