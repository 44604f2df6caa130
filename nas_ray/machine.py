"""What a run needs of its machine: packages, threads, memory, GPUs, a folder to write into, nodes with room.

In: a configuration and what is known of the model. Out: `Finding`s; what cannot be done at all raises.
"""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import pyarrow as pa
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nas_ray.config import RunConfig
from nas_ray.readiness import Finding
from nas_ray.store.place import open_place
from nas_ray.threads import PASSIVE_THREADS

GIB = 1 << 30
SPARE_DISK = 2 * GIB  # for tables, logs and what Ray keeps in the temporary folder


def check_packages() -> Iterator[Finding]:
    """The versions of Python and of every package that nas-ray asks for."""
    python = platform.python_version()
    try:
        wanted = SpecifierSet(metadata("nas-ray")["Requires-Python"])
    except PackageNotFoundError:
        yield Finding(
            "packages", "warning", f"Python {python}; nas-ray itself is not installed, so no versions were compared",
            "pip install -e . in its folder",
        )  # fmt: skip
        return
    if python not in wanted:
        yield Finding("packages", "problem", f"Python is {python}, and {wanted} is needed", "use another Python")
    asked = [Requirement(text) for text in requires("nas-ray") or ()]
    asked = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [complaint for one in asked if (complaint := _compare_version(one))]
    for complaint in wrong:
        yield Finding("packages", "problem", complaint, "pip install -e . in nas-ray's folder brings what it needs")
    if not wrong:
        yield Finding("packages", "ok", f"Python {python}; {len(asked)} packages as required")


def _compare_version(wanted: Requirement) -> str:
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is not installed, and {wanted.name}{wanted.specifier} is needed"
    if wanted.specifier.contains(found, prereleases=True):
        return ""
    return f"{wanted.name} is {found}, and {wanted.specifier} is needed"


def check_threads() -> Iterator[Finding]:
    """How idle OpenMP threads wait: asleep, unless this process's environment says otherwise."""
    cores = len(os.sched_getaffinity(0))
    said = {name: os.environ.get(name, value) for name, value in PASSIVE_THREADS.items()}
    spinning = [f"{name}={said[name]}" for name, value in PASSIVE_THREADS.items() if said[name].upper() != value]
    if spinning:
        yield Finding(
            "threads", "warning", f"{cores} cores; {', '.join(spinning)} makes idle threads spin, and all else wait",
            "unset " + " ".join(entry.partition("=")[0] for entry in spinning),
        )  # fmt: skip
    else:
        yield Finding("threads", "ok", f"{cores} cores; idle threads sleep")


def check_memory(config: RunConfig, parameters: int, evaluators: int) -> Iterator[Finding]:
    """Main memory against what the model's weights take on a CPU, and what candidates may take.

    The writer holds the weights once; the fine-tune holds them again as float32. Activations come on top.
    """
    writer = parameters * (4 if config.model.dtype in ("auto", "float32") else 2) if config.model.gpus == 0 else 0
    tuner = 4 * parameters if config.finetune.enabled and config.finetune.gpus == 0 else 0
    candidates = int(evaluators * config.budget.memory_gib * GIB)
    free = free_memory()
    found = (
        f"{gib(free)} free; the writer's weights take {gib(writer)}, the fine-tune's {gib(tuner)}, and {evaluators} "
        f"candidates at once up to {gib(candidates)}"
    )
    if writer + tuner > free:
        advice = "take a smaller model, more memory, model.dtype bfloat16, or finetune.enabled false"
        yield Finding("memory", "problem", found, advice)
    elif writer + tuner + candidates > free:
        yield Finding("memory", "warning", found, "lower resources.evaluators or budget.memory_gib")
    else:
        yield Finding("memory", "ok", found)


def check_gpus(config: RunConfig, parameters: int) -> Iterator[Finding]:
    """The GPUs of this machine against what the run asks for; those of other nodes are Ray's to know."""
    asked = max(config.model.gpus, config.finetune.gpus, config.resources.evaluator_gpus)
    if not torch.cuda.is_available():
        found = f"torch {torch.__version__} sees none here; the run asks for {'some' if asked else 'none'}"
        advice = "install torch's CUDA build, or join a cluster that has GPUs (--address)" if asked else ""
        yield Finding("gpus", "warning" if asked else "ok", found, advice)
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found = f"{torch.cuda.get_device_name(number)}, {gib(free)} of {gib(total)} free"
        share = config.model.gpu_memory_share * total * max(1, int(config.model.gpus))
        if not asked:
            yield Finding("gpus", "warning", f"{found}; the run uses none", "set model.gpus, resources.evaluator_gpus")
        elif config.model.gpus and 2 * parameters > share:
            found += f"; the model's weights take {gib(2 * parameters)}, and the generator may have {gib(share)}"
            yield Finding(
                "gpus", "problem", found, "take a smaller model, or raise model.gpus or model.gpu_memory_share"
            )
        else:
            yield Finding("gpus", "ok", found)


def free_memory() -> int:
    """Bytes that processes here may still take: what the machine has left, or what this container has."""
    entries = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(dict(entries)["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no cgroup, or one without a limit ("max")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return free


def check_folder(config: RunConfig, adapter_bytes: int) -> Iterator[Finding]:
    """The folder of runs: a file can be written there, and a disk has room for an adapter of every cycle.

    Raises StoreError where nothing can be written.
    """
    remote = "://" in config.folder
    path = Path(config.folder).expanduser().absolute()
    there = next(one for one in (path, *path.parents) if one.exists())  # what is not there will be made, but not here
    place = open_place(config.folder if remote else str(there))
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    place.prepare(name, pa.py_buffer(b"nas-ray doctor"))()
    place.remove(name)
    if remote:
        yield Finding("run folder", "ok", f"{config.folder} can be written")
        return
    free = shutil.disk_usage(there).free
    needed = SPARE_DISK + adapter_bytes * config.cycles
    found = (
        f"{config.folder} can be written; {gib(free)} free, {config.cycles} adapters and all else take {gib(needed)}"
    )
    if free < needed:
        yield Finding("run folder", "warning", found, "set folder to a larger disk")
    else:
        yield Finding("run folder", "ok", found)


def check_places(
    wanted: Mapping[str, Mapping[str, float]], nodes: Mapping[str, Mapping[str, float]], grows: bool
) -> Iterator[Finding]:
    """Is there a node for each of the actors and trials of a run?

    Args:
        wanted: who -> what one of them asks for, as Ray counts: {"CPU": 1.0, "GPU": 0.5}.
        nodes: name -> what a node has.
        grows: nodes may still join, so that what is missing is no more than a warning.
    """
    for who, needs in wanted.items():
        if not any(fits(needs, has) for has in nodes.values()):
            asks = ", ".join(f"{amount:g} {kind}" for kind, amount in needs.items() if amount)
            yield Finding(
                "ray", "warning" if grows else "problem", f"no node has what {who} asks for: {asks}",
                "add such a node, or lower model.gpus, resources.evaluator_* or finetune.gpus",
            )  # fmt: skip


def fits(needs: Mapping[str, float], has: Mapping[str, float]) -> bool:
    """True where a node has all of it."""
    return all(has.get(kind, 0.0) >= amount for kind, amount in needs.items())


def gib(size: float) -> str:
    """Bytes for a person."""
    return f"{size / GIB:,.1f} GiB"
