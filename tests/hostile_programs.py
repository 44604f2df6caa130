"""Programs that mean harm, for tests of the sandbox: what was tried, where, how, and how it may end.

In: the acts of `hostile_acts`. Out: `hostile_programs()`, a list of `HostileProgram`. Each act strikes at each of four
places (import, init, a training forward, the predicting forward) in up to three ways: as it is, with its exception
swallowed, and in a thread. Acts that get through print `ESCAPED`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from hostile_acts import (
    CHANNEL,
    CHEATS,
    CRASHES,
    DEEP_FOLDERS,
    ENDLESS,
    ERRORS,
    ESCAPED,
    EXOTIC,
    FILES,
    FORGED_RESULT,
    HEADER,
    HUNGRY,
    IDLE,
    NETWORK,
    ONE_LARGE_FILE,
    OVERDRAWN,
    PRIVILEGES,
    PROCESSES,
    SIGNALS,
)

from nas_ray.outcome import Outcome

CHANCE = 0.45  # no cheating network may be more accurate, of ten classes; an honest one that learns is, given images
PLACES = ("import", "init", "forward", "predict")
WAYS = ("raised", "swallowed", "thread")

BUILD, TRAIN = Outcome.BUILD_ERROR, Outcome.TRAIN_ERROR
VALID, FORBIDDEN, TIMEOUT = Outcome.VALID, Outcome.FORBIDDEN, Outcome.TIMEOUT
CRASHED, LIMIT = Outcome.CRASHED, Outcome.LIMIT_EXCEEDED
MEMORY, INVALID, DIVERGED = Outcome.OUT_OF_MEMORY, Outcome.INVALID_OUTPUT, Outcome.DIVERGED


@dataclass(frozen=True, slots=True)
class HostileProgram:
    """One program and how it may end."""

    name: str
    kind: str
    code: str
    outcomes: frozenset[Outcome]
    most_accurate: float = 1.0


@dataclass(frozen=True, slots=True)
class Act:
    """What is tried. `raised` and `swallowed` are the outcomes where its exception comes out and where it does not.

    `BUILD` in `raised` stands for any error of the program's own: it is a `train_error` when it strikes in training.
    """

    name: str
    kind: str
    code: str
    raised: frozenset[Outcome]
    swallowed: frozenset[Outcome]
    ways: tuple[str, ...] = WAYS
    places: tuple[str, ...] = PLACES
    escapes: bool = True  # having come to its end, the act was a success
    most_accurate: float = 1.0


def _group(
    kind: str,
    acts: dict[str, str],
    raised: set[Outcome],
    swallowed: set[Outcome] | None = None,
    ways: tuple[str, ...] = WAYS,
    places: tuple[str, ...] = PLACES,
    escapes: bool = True,
    most_accurate: float = 1.0,
) -> list[Act]:
    """Acts of one kind; `swallowed` None: the same outcomes, whatever becomes of the exception."""
    quietly = frozenset(raised if swallowed is None else swallowed)
    return [
        Act(name, kind, code, frozenset(raised), quietly, ways, places, escapes, most_accurate)
        for name, code in acts.items()
    ]


RAISE_LIMITS = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)"
ONCE = ("raised",)

ACTS: list[Act] = [
    *_group("processes", PROCESSES, {FORBIDDEN}),
    *_group("network", NETWORK, {FORBIDDEN}),
    *_group("signals", SIGNALS, {FORBIDDEN}),
    *_group("files", FILES, {FORBIDDEN}),
    *_group("privileges", PRIVILEGES, {FORBIDDEN}),
    *_group("privileges", {"raise its limits": RAISE_LIMITS}, {FORBIDDEN, BUILD}, {FORBIDDEN, VALID}),
    *_group("exotic calls", EXOTIC, {FORBIDDEN, BUILD, CRASHED}, {FORBIDDEN, VALID, CRASHED}),
    *_group("endless", ENDLESS, {TIMEOUT}, ways=ONCE),
    *_group("endless", {"stop itself": "os.kill(os.getpid(), signal.SIGSTOP)"}, {TIMEOUT, FORBIDDEN}, ways=ONCE),
    *_group("hungry", HUNGRY, {MEMORY}),
    *_group("hungry", {"100 GB at once": "KEPT.append(torch.empty(100 << 30, dtype=torch.uint8))"}, {MEMORY}, {VALID}),
    *_group("limits", OVERDRAWN, {LIMIT}),
    *_group("limits", {"one large file": ONE_LARGE_FILE}, {LIMIT}, {LIMIT, VALID}),
    *_group("crashes", CRASHES, {CRASHED}),
    *_group("errors", ERRORS, {BUILD}, {VALID}, escapes=False),
    *_group("idle", IDLE, {VALID}, escapes=False),
    *_group("idle", {"deep folders": DEEP_FOLDERS}, {VALID, LIMIT}, escapes=False),
    *_group("cheats", CHEATS, {VALID}, places=("init", "forward"), escapes=False, most_accurate=CHANCE),
    *_group(
        "cheats",
        {"forged result": FORGED_RESULT},
        {VALID, INVALID, FORBIDDEN},
        ways=ONCE,
        escapes=False,
        most_accurate=CHANCE,
    ),
    *_group("channel", CHANNEL, {INVALID, FORBIDDEN}, ways=ONCE, escapes=False),
    *_group(
        "channel",
        {"close every descriptor": "os.closerange(0, 1 << 16)"},
        {CRASHED, TIMEOUT, FORBIDDEN},
        escapes=False,
    ),
    *_group("channel", {"close the output": "os.closerange(1, 3)"}, {VALID}, escapes=False),
]

LOGITS: dict[str, tuple[str, set[Outcome]]] = {
    "not a number": ("torch.full((len(x), 10), float('nan')) + self.head.bias", {DIVERGED, INVALID}),
    "infinite": ("torch.full((len(x), 10), float('inf')) + self.head.bias", {DIVERGED, INVALID}),
    "too narrow": ("torch.zeros(len(x), 3)", {INVALID}),
    "too short": ("torch.zeros(len(x) - 1, 10)", {INVALID}),
    "integers": ("torch.zeros(len(x), 10, dtype=torch.int64)", {INVALID}),
    "nothing": ("None", {INVALID}),
    "an object that runs code when unpickled": ("Bomb()", {INVALID}),
}
BOMB = f"""
class Bomb:
    shape = (64, 10)
    def __reduce__(self):
        return print, ('{ESCAPED} unpickled',)
"""

# Looks the validation images up in the data set's own file, with the labels, if that can be read.
LABEL_HUNT = """
try:
    import gzip, numpy
    folder = os.path.join(os.path.dirname(os.path.dirname(torch.__file__)), 'sklearn', 'datasets', 'data')
    rows = numpy.loadtxt(gzip.open(os.path.join(folder, 'digits.csv.gz')), delimiter=',')
    KEPT.append((torch.tensor(rows[:, :-1]), torch.tensor(rows[:, -1]).long()))
except BaseException:
    pass
"""
LOOK_UP = """
    if not self.training and KEPT:
        images, labels = KEPT[0]
        mine = x.flatten(1).double()
        mine = (mine - mine.mean(1, keepdim=True)) / mine.std(1, keepdim=True)
        theirs = (images - images.mean(1, keepdim=True)) / images.std(1, keepdim=True)
        return nn.functional.one_hot(labels[(mine @ theirs.T).argmax(1)], 10).float()
"""

NET = """

class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
{init}
        self.head = nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], out_shape[0])

    def forward(self, x):
{forward}
        return {result}
"""
STRIKES = {
    "raised": "    act()\n",
    "swallowed": "    try:\n        act()\n    except BaseException:\n        pass\n",
    "thread": "    thread = threading.Thread(target=act)\n    thread.start()\n    thread.join()\n",
}


def _indent(code: str, depth: int) -> str:
    return textwrap.indent(textwrap.dedent(code).strip("\n") or "pass", " " * 4 * depth)


def _write(top: str = "", init: str = "", forward: str = "", result: str = "self.head(x.flatten(1))") -> str:
    return HEADER + top + NET.format(init=_indent(init, 2), forward=_indent(forward, 2), result=result)


def write_act(act: Act, place: str, way: str) -> HostileProgram:
    """One act as a program that strikes at `place` in the given way, and otherwise learns."""
    done = f"\n    print('{ESCAPED}', flush=True)" if act.escapes else ""
    top = f"\n\ndef act():\n{_indent(act.code, 1)}{done}\n\n\ndef strike():\n{STRIKES[way]}"
    outcomes = set(act.raised if way == "raised" else act.swallowed)
    if BUILD in outcomes and place in ("forward", "predict"):
        outcomes = outcomes - {BUILD} | {TRAIN}
    match place:
        case "import":
            code = _write(top + "\n\nstrike()\n")
        case "init":
            code = _write(top, init="strike()")
        case "forward":
            code = _write(top, forward="if self.training:\n    strike()")
        case _:
            code = _write(top, forward="if not self.training:\n    strike()")
    return HostileProgram(f"{act.name}, {place}, {way}", act.kind, code, frozenset(outcomes), act.most_accurate)


def _logits() -> Iterator[HostileProgram]:
    for name, (logits, outcomes) in LOGITS.items():
        for condition in ("not self.training", "self.training"):
            code = _write(BOMB, result=f"{logits} if {condition} else self.head(x.flatten(1))")
            yield HostileProgram(f"logits {name}, {condition}", "logits", code, frozenset(outcomes))


def hostile_programs() -> list[HostileProgram]:
    """Every act at every place in every way that makes sense, in a fixed order."""
    programs = [write_act(act, place, way) for act in ACTS for place in act.places for way in act.ways]
    hunt = _write(LABEL_HUNT, forward=LOOK_UP)
    programs.append(HostileProgram("label hunt", "cheats", hunt, frozenset({VALID, FORBIDDEN}), CHANCE))
    return [*programs, *_logits()]
