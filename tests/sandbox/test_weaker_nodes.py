"""A wall that does not stand is not counted: nodes that lack one are made for real, by a filter around the probe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from candidate_programs import GOOD

from nas_ray.sandbox import probe_walls

# Runs a command on a machine whose kernel refuses the given system calls.
LACKING = """
import errno, os, sys
import pyseccomp as library
rules = library.SyscallFilter(library.ALLOW)
for name in sys.argv[1].split(","):
    rules.add_rule(library.ERRNO(errno.ENOSYS), name)
rules.load()
os.execv(sys.argv[2], sys.argv[2:])
"""
LANDLOCK = "landlock_create_ruleset,landlock_restrict_self"
SECCOMP = "seccomp"


def run_lacking(calls: str, *command: str, bubblewrap: bool = False) -> subprocess.CompletedProcess[str]:
    folders = os.environ["PATH"].split(os.pathsep)
    if not bubblewrap:  # nor does it have that
        folders = [folder for folder in folders if not os.path.exists(f"{folder}/bwrap")]
    return subprocess.run(
        [sys.executable, "-c", LACKING, calls, sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": os.pathsep.join(folders)},
    )


def test_this_machine_has_every_wall() -> None:
    walls = probe_walls()
    assert walls.tier == "A", walls
    assert walls.witness


@pytest.mark.parametrize(
    ("calls", "tier", "reason"),
    [(LANDLOCK, "C", "Landlock: "), (SECCOMP, "D", "seccomp"), (f"{LANDLOCK},{SECCOMP}", "D", "Landlock: ")],
)
def test_a_node_without_a_wall_says_so(calls: str, tier: str, reason: str) -> None:
    done = run_lacking(calls, "nas_ray.sandbox")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"tier {tier}: "), done.stdout
    assert f"not {reason}" in done.stdout


def test_a_node_below_the_floor_runs_nothing_unless_told_to(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os\nclass Net:\n    pass\n")
    refused = run_lacking(SECCOMP, "jobs.cli", "check", str(program))
    assert refused.returncode == 2
    assert "tier D" in refused.stderr
    assert "--unsafe" in refused.stderr
    assert refused.stdout == ""
    allowed = run_lacking(SECCOMP, "jobs.cli", "check", str(program), "--unsafe", "--json")
    assert allowed.returncode == 0, allowed.stderr
    assert json.loads(allowed.stdout)["outcome"] == "contract_error"


def test_bubblewrap_stands_in_for_landlock(tmp_path: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    hidden = tmp_path / "hidden"
    hidden.write_text("secret")
    files = {"good": GOOD, "reading": f"open({str(hidden)!r})\n{GOOD}", "late": f"import sqlite3, torch.fft\n{GOOD}"}
    # Through a name that changes under the witness's eyes: only a wall can stop that.
    files["racing"] = f"""
import ctypes, os, threading
path = ctypes.create_string_buffer(b"/usr/lib" + bytes(200))
libc = ctypes.CDLL(None)
def change():
    for _ in range(20000):
        for name in (b"/usr/lib", {os.fsencode(hidden)!r}):
            ctypes.memmove(path, name + bytes(1), len(name) + 1)
threading.Thread(target=change, daemon=True).start()
for _ in range(300):
    handle = libc.open(path, 0)
    if handle >= 0:
        try:
            assert b"secret" not in os.read(handle, 6), "ESCAPED"
        except IsADirectoryError:
            pass
{GOOD}"""
    for name, code in files.items():
        (tmp_path / f"{name}.py").write_text(code)
    programs = [str(tmp_path / f"{name}.py") for name in files]
    done = run_lacking(LANDLOCK, "jobs.cli", "check", *programs, "--json", bubblewrap=True)
    if "tier B" not in done.stderr and os.getuid() != 0:
        pytest.skip("bubblewrap cannot make namespaces here")
    assert "tier B: bubblewrap" in done.stderr
    good, reading, late, racing = [json.loads(line) for line in done.stdout.splitlines()]
    assert (good["outcome"], late["outcome"]) == ("valid", "valid"), done.stdout
    assert reading["outcome"] in ("forbidden", "build_error")  # nothing is there to be opened
    assert "ESCAPED" not in racing["detail"]
