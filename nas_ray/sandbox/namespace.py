"""The file layer where the kernel has no Landlock: bubblewrap puts a zygote into a root of its own.

In: a `Reach`. Out: the beginning of a command; what it runs sees the files within reach, those that the engine itself
needs, and none besides, and has no network. Weaker than Landlock: all candidates of a slot share the root, and
/proc, which the zygote needs, is in it; the witness guards that. Needs the program `bwrap` and user namespaces, or root
with the right to mount, which containers rarely have.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

from nas_ray.sandbox.landlock import landlock_version
from nas_ray.sandbox.reach import Reach

# What the zygote imports besides what candidates may; in site-packages.
ENGINE = (
    "pydantic pydantic_core annotated_types typing_inspection yaml _yaml landlockpy pyseccomp.py dill tqdm "
    "typing_extensions.py _distutils_hack"
).split()
START_FILES = ("*.pth", "__editable__*", "nas_ray-*.dist-info")  # there, what the interpreter reads when it starts
PROGRAMS = ("/usr/bin", "/usr/sbin")  # libseccomp is looked for with them; candidates may execute nothing
LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
LOADERS = ("/lib", "/lib32", "/lib64")
SYSTEM_FOLDERS = ("/proc/", "/dev/")  # mounted whole, or made
TRIAL_SECONDS = 20.0


def find_wrapper(reach: Reach) -> list[str]:
    """The words to put before a Python command; none where Landlock is there, or bubblewrap is not or cannot work."""
    program = shutil.which("bwrap")
    if program is None or landlock_version():
        return []
    wrapper = [program, "--unshare-net", "--unshare-ipc", "--tmpfs", "/tmp", "--dev", "/dev"]
    wrapper += ["--ro-bind", "/proc", "/proc"]
    for path in dict.fromkeys([*reach.readable, *_engine_files()]):
        if not path.startswith(SYSTEM_FOLDERS):
            wrapper += ["--ro-bind-try", path, path]
    for link in _links():
        wrapper += ["--symlink", os.readlink(link), link]
    for path in reach.writable:
        wrapper += ["--dev-bind-try", path, path]
    wrapper += ["--bind", reach.scratch, reach.scratch, "--chdir", reach.scratch, "--"]
    return wrapper if _works(wrapper) else []


def _links() -> Iterator[str]:
    """Links among the system's folders, and the loader's: what they lead to is there already."""
    yield from filter(os.path.islink, LINKS)
    for folder in dict.fromkeys(map(os.path.realpath, filter(os.path.isdir, LOADERS))):
        with os.scandir(folder) as entries:
            yield from (entry.path for entry in entries if entry.name.startswith("ld-") and entry.is_symlink())


def _engine_files() -> Iterator[str]:
    """The interpreter, its libraries, and packages of the engine."""
    yield from (f"{sys.prefix}/bin", f"{sys.prefix}/pyvenv.cfg", f"{sys.base_prefix}/bin")
    yield os.path.dirname(os.path.realpath(sys.executable))
    yield from PROGRAMS
    libraries = sysconfig.get_config_var("LIBDIR") or f"{sys.base_prefix}/lib"
    yield from glob.glob(f"{libraries}/libpython*")
    site = os.path.realpath(sysconfig.get_paths()["purelib"])
    yield from (f"{site}/{name}" for name in ENGINE)
    yield from (path for pattern in START_FILES for path in glob.glob(f"{site}/{pattern}"))


def _works(wrapper: list[str]) -> bool:
    """True where Python starts behind `wrapper`."""
    command = [*wrapper, sys.executable, "-c", "import json"]
    try:
        return subprocess.run(command, capture_output=True, timeout=TRIAL_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
