"""The probe: finds by doing which walls this node can put around a candidate.

    python -m nas_ray.sandbox.probe DEVICE SCRATCH OUTSIDE

In: a scratch folder. Out: `Walls` as JSON; for the zygote the `Confinement` itself. Every wall is built around a forked
process that then works as a candidate works and tries what the wall is there to stop; a wall counts if the work went on
and the attempt failed, whatever version the kernel claims. It forks, so it must run in a single-threaded process.
Importing this needs no torch.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import nas_ray
from nas_ray.outcome import Outcome
from nas_ray.sandbox.confinement import CHANNEL, Confinement, ConfinementFailed, await_confinement, confine_and_report
from nas_ray.sandbox.kernel import has_capabilities
from nas_ray.sandbox.landlock import create_ruleset, landlock_version
from nas_ray.sandbox.namespace import find_wrapper
from nas_ray.sandbox.privileges import slot_uids
from nas_ray.sandbox.reach import Reach, find_reach
from nas_ray.sandbox.seccomp import Filter, NoSeccomp, compile_filter
from nas_ray.sandbox.tiers import NO_WALLS, PRIVILEGES, Privileges, Walls
from nas_ray.sandbox.witness import Finding, Witness
from nas_ray.scratch import make_scratch, remove_scratch

TRIAL_SECONDS = 20.0  # one takes milliseconds; a busy machine may be slow
PROGRAM_SECONDS = 120.0
MEMORY_BYTES = FILE_BYTES = 1 << 30  # what a trial may take
THREADS = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Trial = Callable[[], str]  # runs confined; returns "" or what was wrong


def probe_walls(device: str = "cpu") -> Walls:
    """The walls of this node for candidates on `device`, tried in a process of their own."""
    scratch = make_scratch("probe")
    command = [sys.executable, "-m", "nas_ray.sandbox.probe", device, scratch]
    try:
        with tempfile.NamedTemporaryFile() as outside:
            wrapper = find_wrapper(find_reach(scratch, device))
            done = subprocess.run(
                [*wrapper, *command, outside.name if wrapper else ""],
                capture_output=True,
                text=True,
                timeout=PROGRAM_SECONDS,
                start_new_session=True,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(Path(nas_ray.__file__).parent.parent)},
            )
    except subprocess.TimeoutExpired:
        return replace(NO_WALLS, missing=(f"the probe did not end within {PROGRAM_SECONDS:.0f} s",))
    finally:
        remove_scratch(scratch)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return replace(NO_WALLS, missing=(f"the probe failed: {last}",))
    return Walls.from_json(json.loads(lines[-1]))


def find_confinement(
    reach: Reach, memory_bytes: int | None, file_bytes: int, threads: int, device: str = "cpu", outside: str = ""
) -> Confinement:
    """The strongest confinement that stands on this node; the scratch folder is given to its user.

    `outside` is a file that bubblewrap must hide from this process, where it runs behind it.
    """
    missing: list[str] = []
    bare = Confinement(NO_WALLS, os.getuid(), reach, None, None, memory_bytes, file_bytes, threads, device)
    inside = replace(bare, walls=replace(bare.walls, landlock=_find_landlock(bare, missing)))
    inside = _find_privileges(inside, missing)
    for filter_ in _compile_filters(device != "cpu", missing):
        walls = replace(inside.walls, seccomp=True, witness=bool(filter_.watched))
        found = replace(inside, walls=walls, filter=filter_)
        reason = _run_trial(found, partial(_work, reach)) or _run_trial(found, _open_socket)
        if not reason:
            break
        missing.append(f"seccomp{' with a witness' if walls.witness else ''}: {reason}")
    else:
        found = inside
    hidden = bool(outside) and not os.path.exists(outside)
    if not found.walls.landlock and not hidden:
        missing.append("bubblewrap: bwrap is not installed, or cannot make namespaces here")
    ruleset = create_ruleset(reach) if found.walls.landlock and device == "cpu" else None
    said_once = tuple(dict.fromkeys(missing))
    return replace(found, walls=replace(found.walls, bubblewrap=hidden, missing=said_once), ruleset=ruleset)


def _find_landlock(bare: Confinement, missing: list[str]) -> int:
    """The ABI of a Landlock that holds; 0 where there is none."""
    version = landlock_version()
    if not version:
        missing.append("Landlock: the kernel has none, or it is switched off")
        return 0
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(bare.reach.scratch)) as outside:
        walls = replace(bare.walls, landlock=version)
        reason = _run_trial(replace(bare, walls=walls), partial(_open_outside, outside.name))
    if reason:
        missing.append(f"Landlock: {reason}")
    return 0 if reason else version


def _find_privileges(inside: Confinement, missing: list[str]) -> Confinement:
    """`inside` with the best way to have no privileges in which a candidate can work."""
    for kind, uid in _privileges_to_try():
        found = replace(inside, walls=replace(inside.walls, privileges=kind), uid=uid)
        try:
            if os.stat(inside.reach.scratch).st_uid != uid:
                os.chown(inside.reach.scratch, uid, -1)
            reason = _run_trial(found, partial(_work, inside.reach))
        except OSError as error:
            reason = f"the scratch folder cannot be given away: {error.strerror}"
        if not reason:
            return found
        missing.append(f"{PRIVILEGES[kind]}: {reason}")
    return inside


def _privileges_to_try() -> Iterator[tuple[Privileges, int]]:
    """The ways to have no privileges, the best first, each with the user id that it leads to."""
    if os.geteuid() != 0 and not has_capabilities():
        yield "unprivileged", os.getuid()
        return
    if os.geteuid() == 0:
        yield from (("uid", uid) for uid in slot_uids())
    yield "capabilities", os.getuid()


def _compile_filters(gpu: bool, missing: list[str]) -> Iterator[Filter]:
    """The filters to try, the best first."""
    try:
        yield compile_filter(CHANNEL, witness=True, gpu=gpu)
        yield compile_filter(CHANNEL, witness=False, gpu=gpu)
    except NoSeccomp as error:
        missing.append(f"seccomp: {error}")


def _run_trial(confinement: Confinement, trial: Trial) -> str:
    """Runs `trial` in a confined child with its witness. Returns what was wrong, "" where all was as it should be."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live(confinement, trial, parent, theirs)
    theirs.close()
    try:
        reason = _watch(confinement, pid, ours)
        os.kill(pid, signal.SIGKILL)
    except (ConfinementFailed, OSError) as error:  # not being allowed to kill it is a reason too
        reason = str(error)
    ours.close()  # a child that still lives ends by itself now
    os.waitpid(pid, 0)
    return reason


def _live(confinement: Confinement, trial: Trial, parent: int, theirs: socket.socket) -> NoReturn:
    """The child's side of a trial."""
    try:
        os.dup2(theirs.fileno(), CHANNEL)
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, CHANNEL)
        confine_and_report(confinement, parent, {0, 1, 2, CHANNEL}, channel)
        try:
            wrong = trial()
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        channel.send(wrong.encode()[:1000] or b"\0")
        channel.recv(1)
    finally:
        os._exit(1)


def _watch(confinement: Confinement, pid: int, channel: socket.socket) -> str:
    """The supervisor's side of a trial: witnesses until the child has reported."""
    deadline = time.monotonic() + TRIAL_SECONDS
    listener = await_confinement(channel, TRIAL_SECONDS)
    watched = confinement.filter.watched if confinement.filter is not None else {}
    uid = confinement.uid if confinement.walls.privileges == "uid" else None
    witness = Witness(listener, pid, watched, confinement.reach, uid, THREADS, MEMORY_BYTES)
    try:
        handles = [channel.fileno(), *([listener] if listener >= 0 else [])]
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(handles, [], [], left)
            if channel.fileno() in ready:
                return channel.recv(1001).strip(b"\0").decode(errors="replace")
            if witness.is_called():
                finding = witness.hear()
                if finding is not None:
                    return "" if _is_wanted(finding) else f"{finding.outcome}: {finding.detail}"
        return f"no answer within {TRIAL_SECONDS:.0f} s"
    finally:
        witness.close()


def _is_wanted(finding: Finding) -> bool:
    """True for what `_open_socket` does."""
    return finding.outcome is Outcome.FORBIDDEN and finding.detail.startswith("network (socket")


def _open_outside(path: str) -> str:
    """Must fail: opening a file that is not within reach."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return ""
    return "a file outside could be opened"


def _work(reach: Reach) -> str:
    """Must succeed: what every candidate does."""
    for path in reach.readable:
        if not path.startswith("/proc/") and os.access(path, os.R_OK):
            os.close(os.open(path, os.O_RDONLY))
    for source in (json.__file__, shutil.__file__):
        with open(source, "rb") as library:
            library.read(1)
    with open(os.path.join(reach.scratch, "trial"), "wb") as file:
        file.write(b"trial")
    os.unlink(file.name)
    thread = threading.Thread(target=os.getpid)
    thread.start()
    thread.join()
    return ""


def _open_socket() -> str:
    """Must fail where there is a filter: a network connection's beginning."""
    try:
        socket.socket().close()
    except PermissionError:
        return ""
    return "a socket could be opened"


def main() -> None:
    device, scratch, outside = sys.argv[1:]
    found = find_confinement(find_reach(scratch, device), MEMORY_BYTES, FILE_BYTES, THREADS, device, outside)
    print(json.dumps(found.walls.to_json()))


if __name__ == "__main__":
    main()
