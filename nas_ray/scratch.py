"""Temporary folders of processes that may be killed before they can clean up.

In: what a folder is for. Out: an empty folder that names its owner, so that a later process can remove what a dead one
left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def make_scratch(purpose: str) -> str:
    """Makes `nas-ray-<purpose>-<pid>-...` in the temporary folder, and removes those of owners that are gone."""
    prefix = f"nas-ray-{purpose}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = folder.name.removeprefix(prefix).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")
