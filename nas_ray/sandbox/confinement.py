"""What is taken from a child before it meets candidate code: the walls, in the order in which they can be built.

In: a `Confinement`, made once in the zygote from what the node allows, and the descriptors to keep. Out: a process
that can reach its channel, its logits, its scratch folder and the libraries, and that has no way back. A wall that was
found to stand and that fails in the child is an error: the candidate then does not run.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from landlockpy import Ruleset

from nas_ray.sandbox.kernel import PR_SET_NO_NEW_PRIVS, die_with_parent, prctl
from nas_ray.sandbox.landlock import allow_thread_names, create_ruleset
from nas_ray.sandbox.privileges import drop_privileges
from nas_ray.sandbox.reach import Reach
from nas_ray.sandbox.resource_limits import limit_resources
from nas_ray.sandbox.seccomp import Filter
from nas_ray.sandbox.tiers import Walls

CHANNEL = 90  # a child's descriptors have fixed numbers, above all that a zygote has open: the filter must know them
REPORT_BYTES = 1000
_CONFINED, _FAILED = b"+", b"-"


class ConfinementFailed(RuntimeError):
    """A wall that this node was found to have did not stand, so that nothing was run."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Everything that a child needs to confine itself quickly."""

    walls: Walls
    uid: int  # counts where walls.privileges is "uid"
    reach: Reach
    filter: Filter | None
    ruleset: Ruleset | None  # for all children; None: each makes its own, as on a GPU, where its own pid is in it
    memory_bytes: int | None
    file_bytes: int
    threads: int
    device: str = "cpu"


def confine(confinement: Confinement, parent: int, keep: Collection[int]) -> int:
    """Confines the calling process, which must be a fresh, single-threaded fork of `parent`.

    Returns the listener of its filter for the witness, or -1 without one. Raises `OSError` where a wall fails.
    """
    os.setsid()
    ruleset = confinement.ruleset
    if ruleset is None and confinement.walls.landlock:
        ruleset = create_ruleset(confinement.reach)
        if confinement.device != "cpu":
            allow_thread_names(ruleset)
    kept = {*keep, ruleset.fileno()} if ruleset is not None else set(keep)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):  # the descriptor of the listing itself is gone by now
                os.close(int(name))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if the machine runs out of memory, the child goes first
    drop_privileges(confinement.walls.privileges, confinement.uid)
    own_uid = confinement.walls.privileges == "uid"  # only then are all threads of its user its own
    limit_resources(confinement.memory_bytes, confinement.file_bytes, confinement.threads if own_uid else 0)
    die_with_parent(signal.SIGKILL, parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if ruleset is not None:
        ruleset.restrict(no_new_privs=False)
        ruleset.close()
    return confinement.filter.install() if confinement.filter is not None else -1


def confine_and_report(confinement: Confinement, parent: int, keep: Collection[int], channel: socket.socket) -> None:
    """Confines the calling process and hands the witness its listener over `channel`; exits if a wall fails."""
    try:
        listener = confine(confinement, parent, keep)
    except Exception as error:
        channel.send(_FAILED + f"{type(error).__name__}: {error}".encode()[:REPORT_BYTES])
        os._exit(1)
    socket.send_fds(channel, [_CONFINED], [listener] if listener >= 0 else [])
    if listener >= 0:
        os.close(listener)  # or the candidate could answer its own calls


def await_confinement(channel: socket.socket, seconds: float) -> int:
    """Waits until the process at the other end of `channel` is confined, before any candidate code runs there.

    Returns the listener of its filter, or -1 without one. Raises `ConfinementFailed`.
    """
    channel.settimeout(seconds)
    try:
        report, handles, _, _ = socket.recv_fds(channel, 1 + REPORT_BYTES, 1)
    except TimeoutError:
        raise ConfinementFailed(f"a child was not confined within {seconds:.0f} s") from None
    except OSError as error:
        raise ConfinementFailed(f"a child ended before it was confined: {error}") from error
    if not report.startswith(_CONFINED):
        raise ConfinementFailed(report[1:].decode(errors="replace") or "a child ended before it was confined")
    return handles[0] if handles else -1
