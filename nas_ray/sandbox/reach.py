"""The files within a candidate's reach: the libraries that a network may import, a few devices, and its scratch folder.

In: this interpreter and what is installed. Out: `Reach`, which the Landlock layer turns into rules and the witness
judges paths by. An allow-list: packages that carry data sets (scikit-learn has the digits with their labels) are not on
it, nor is anything of the user's. Plain paths, so that it can travel to the zygote. Importing this needs no torch.
"""

from __future__ import annotations

import glob
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nas_ray

# What a network may import beside the standard library, with what these packages import themselves, and the engine's
# own needs in the child. Names of files and folders in a folder of packages; a missing one does no harm.
PACKAGES = (
    "torch torchgen functorch torchvision torchaudio torchvision.libs numpy numpy.libs scipy scipy.libs einops timm "
    "sympy mpmath networkx jinja2 markupsafe filelock fsspec typing_extensions.py packaging opt_einsum PIL pillow.libs "
    "safetensors triton nvidia cuda"
).split()
LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/cuda", "/opt/nvidia")
DATA = (
    "/etc/ld.so.cache /etc/localtime /etc/timezone /etc/mime.types /etc/ssl/openssl.cnf /usr/share/zoneinfo "
    "/usr/share/locale /usr/share/i18n /proc/meminfo /proc/loadavg /proc/cpuinfo /proc/version /proc/filesystems "
    "/proc/sys/vm/overcommit_memory /proc/sys/kernel/cap_last_cap /sys/devices/system/cpu /sys/devices/system/node "
    "/sys/kernel/mm/transparent_hugepage /dev/urandom /dev/random"
).split()
WRITABLE = ("/dev/null",)
GPU_DATA = ("/proc/driver/nvidia", "/sys/module/nvidia", "/sys/bus/pci", "/sys/devices/pci*")
GPU_DEVICES = ("nvidia", "dri", "kfd")  # how the names of their devices begin
SITE_FOLDERS = ("site-packages", "dist-packages")  # of packages; inside the standard library's folder, no part of it


@dataclass(frozen=True)
class Reach:
    """Absolute paths without symbolic links; a folder stands for everything below it."""

    listable: tuple[str, ...]  # folders whose entries may be listed, without their contents being read
    readable: tuple[str, ...]
    writable: tuple[str, ...]  # devices, and folders of devices
    scratch: str  # the one folder where files may be made

    def may_read(self, path: str, listing: bool) -> bool:
        """True if the file or, with `listing`, the folder at `path` (resolved) is within reach."""
        return _covers(self._readable, path) or self.may_write(path) or (listing and _covers(self._listable, path))

    def may_write(self, path: str) -> bool:
        """True if the file at `path` (resolved) may be made, changed or removed."""
        return _covers(self._writable, path)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reach:
        lists = {name: tuple(values[name]) for name in ("listable", "readable", "writable")}
        return cls(scratch=values["scratch"], **lists)

    @cached_property
    def _listable(self) -> frozenset[str]:
        return frozenset(self.listable)

    @cached_property
    def _readable(self) -> frozenset[str]:
        return frozenset(self.readable)

    @cached_property
    def _writable(self) -> frozenset[str]:
        return frozenset((*self.writable, self.scratch))


def _covers(roots: frozenset[str], path: str) -> bool:
    """True where `path` or a folder that holds it is one of `roots`."""
    while path not in roots:
        path, _, name = path.rpartition("/")
        if not name or not path:
            return False
    return True


def find_reach(scratch: str, device: str = "cpu") -> Reach:
    """The reach of candidates of this interpreter, with `scratch` as the folder of their own."""
    paths = sysconfig.get_paths()
    standard = {paths["stdlib"], paths["platstdlib"]}
    # Where packages are: the interpreter's own, a virtual environment's, a user's; whatever this process imports from.
    sites = {entry for entry in sys.path if os.path.basename(entry) in SITE_FOLDERS} | {
        paths["purelib"],
        paths["platlib"],
    }
    libraries = sysconfig.get_config_var("LIBDIR") or f"{sys.base_prefix}/lib"
    readable = [*_python_free(LIBRARY_FOLDERS), *DATA, str(Path(nas_ray.__file__).parent)]
    readable += glob.glob(f"{libraries}/lib*.so*")
    readable += [entry.path for folder in standard for entry in _entries(folder) if entry.name not in SITE_FOLDERS]
    readable += [f"{site}/{name}" for site in sites for name in PACKAGES]
    writable = list(WRITABLE)
    if device != "cpu":
        readable += [path for pattern in GPU_DATA for path in glob.glob(pattern)]
        writable += [entry.path for entry in _entries("/dev") if entry.name.startswith(GPU_DEVICES)]
    return Reach(_resolve([*standard, *sites]), _resolve(readable), _resolve(writable), os.path.realpath(scratch))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _python_free(folders: Iterable[str]) -> Iterator[str]:
    """The folders' entries, without the packages of other interpreters."""
    for folder in folders:
        yield from (entry.path for entry in _entries(folder) if not entry.name.startswith("python"))


def _resolve(paths: Iterable[str]) -> tuple[str, ...]:
    """Those that exist, without links, each once."""
    return tuple(sorted({os.path.realpath(path) for path in paths if os.path.exists(path)}))
