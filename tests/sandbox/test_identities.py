"""The walls stand whoever runs the engine: root, an ordinary user, root with the capabilities that Docker leaves.

Needs root, to become the others, and setpriv of util-linux. An interpreter below a home is copied first: nobody else
can read it there, nor could a candidate with a user id of its own. The programs of shared/attacks are run too where
that folder lies beside the project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hostile_programs import ESCAPED, HostileProgram, hostile_programs

from nas_ray.outcome import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parent.parent.parent
ATTACKS = ROOT.parent / "shared" / "attacks"
# https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities
DOCKER = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod"
DOCKER_CAPABILITIES = f"{DOCKER} audit_write setfcap".split()
IDENTITIES: dict[str, list[str]] = {
    "root": [],
    "user": ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
    "docker": ["setpriv", "--bounding-set=-all," + ",".join(f"+{name}" for name in DOCKER_CAPABILITIES)],
}
PRIVILEGES = {"root": "a user id of its own", "user": "an ordinary user's rights", "docker": "a user id of its own"}
# The words of the attacks' manifest for what is called otherwise here.
OUTCOMES = {
    "ok": "valid",
    "memory_exceeded": "out_of_memory",
    "process_limit": "limit_exceeded",
    "disk_exceeded": "limit_exceeded",
    "output_limit": "limit_exceeded",
    "invalid_interface": "contract_error",
}
SMALL = "containment.threads=16 containment.scratch_mib=32 containment.scratch_files=200 containment.output_mib=8"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for everybody; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Path]:
    """A copy of this interpreter, with this environment's packages, that everybody can read."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.fail("these tests need root and setpriv (util-linux)")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield copy_interpreter(Path(name))


def copy_interpreter(folder: Path) -> Path:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "bin").mkdir()
    shutil.copy2(os.path.realpath(sys.executable), folder / "bin" / name)
    libraries = Path(sysconfig.get_config_var("LIBDIR"))
    ignored = shutil.ignore_patterns("site-packages", "dist-packages", "test", "__pycache__", "config-*", "idlelib")
    shutil.copytree(sysconfig.get_paths()["stdlib"], folder / "lib" / name, ignore=ignored)
    for library in libraries.glob(f"lib{name}*.so*"):
        shutil.copy2(library, folder / "lib")
    (folder / "lib" / name / "site-packages").symlink_to(sysconfig.get_paths()["purelib"])
    return folder / "bin" / name


def check_files(identity: str, interpreter: Path, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    environment: Mapping[str, str] = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LD_LIBRARY_PATH": str(interpreter.parent.parent / "lib"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [*IDENTITIES[identity], str(interpreter), "-m", "jobs.cli", "check", *arguments, "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert PRIVILEGES[identity] in done.stderr
    assert "tier A" in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_as_expected(entry: dict[str, Any], found: dict[str, Any]) -> bool:
    """True where a line of `nas-ray check` is what the manifest of the attacks says."""
    word, _, act = entry["expected"].rstrip(")").partition("(")
    if word == "error":
        return found["outcome"] in ("build_error", "train_error") and found["error_type"] == act
    accuracy = found["accuracy"] or 0.0
    return (
        found["outcome"] == OUTCOMES.get(word, word)
        and act in found["detail"]
        and entry.get("min_accuracy", 0.0) <= accuracy <= entry.get("max_accuracy", 1.0)
    )


@pytest.mark.parametrize("identity", IDENTITIES)
def test_every_shared_attack_is_classified_as_its_manifest_says(identity: str, interpreter: Path, folder: Path) -> None:
    if not ATTACKS.is_dir():
        pytest.fail(f"{ATTACKS} is not there")
    entries = {entry["name"]: entry for entry in json.loads((ATTACKS / "manifest.json").read_text())}
    endless = {name for name, entry in entries.items() if entry["expected"] == "timeout"}
    lines = []
    for names, seconds in ((endless, "6"), (entries.keys() - endless, "60")):
        files = [str(ATTACKS / f"{name}.py") for name in sorted(names)]
        limits = ("--protocol", "candidate", "--time-limit", seconds, "--memory-limit", "1.5")
        lines += check_files(identity, interpreter, folder, *files, *limits)
    assert len(lines) == len(entries)
    assert [line for line in lines if not is_as_expected(entries[Path(line["file"]).stem], line)] == []


@pytest.mark.parametrize("identity", IDENTITIES)
def test_every_hostile_act_ends_as_it_may(identity: str, interpreter: Path, folder: Path) -> None:
    programs: dict[str, HostileProgram] = {}
    for number, program in enumerate(hostile_programs()):
        if number % 4 == list(IDENTITIES).index(identity):  # others for each identity
            path = folder / f"{number}.py"
            path.write_text(program.code)
            programs[str(path)] = program
    sets = [word for change in (*SMALL.split(), "dataset.train_limit=64") for word in ("--set", change)]
    limits = ("--epochs", "1", "--time-limit", "2", "--memory-limit", "0.5", *sets)
    for line in check_files(identity, interpreter, folder, *programs, *limits):
        program = programs[line["file"]]
        # What training calls a train_error the build, which comes first here, has two other words for.
        sooner = {Outcome.BUILD_ERROR, Outcome.SHAPE_ERROR} if Outcome.TRAIN_ERROR in program.outcomes else set()
        allowed = program.outcomes | sooner
        assert line["outcome"] in allowed, (program.name, line)
        assert ESCAPED not in line["detail"]
        assert (line["accuracy"] or 0.0) <= program.most_accurate
