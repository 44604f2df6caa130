"""Temporary folders of processes that may be killed before they can clean up.

In: what a folder is for. Out: an empty folder that names its owner, so that a later process can remove what a dead one
left. What is removed may have been made by a hostile program: nothing here follows a link, recurses, or touches a
folder that is not one of ours by name and absolute path.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "nas-ray-"


def make_scratch(purpose: str) -> str:
    """Makes `nas-ray-<purpose>-<pid>-...` in the temporary folder, and removes those of owners that are gone."""
    prefix = f"{PREFIX}{purpose}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = folder.name.removeprefix(prefix).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            remove_scratch(str(folder))
    return tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")


def remove_scratch(folder: str) -> None:
    """Removes `folder` and what is in it, as far as this process may; nothing happens where it is gone already."""
    with suppress(OSError):
        clear_scratch(folder)
        os.rmdir(folder)


def clear_scratch(folder: str) -> None:
    """Empties `folder`, however deep and whatever the modes of what lies in it. Raises `OSError` where it may not.

    Inner folders are taken up to the top, so that no path ever grows too long, under names that none could have taken.
    """
    if not os.path.isabs(folder) or not os.path.basename(folder).startswith(PREFIX) or os.path.islink(folder):
        raise ValueError(f"{folder!r} is no scratch folder; nothing in it is removed")
    word, count = secrets.token_hex(8), 0
    while True:
        with os.scandir(folder) as listing:
            entries = list(listing)
        if not entries:
            return
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            with os.scandir(entry.path) as listing:
                inner = list(listing)
            for one in inner:
                if not one.is_dir(follow_symlinks=False):
                    os.unlink(one.path)
                    continue
                os.chmod(one.path, 0o700)
                count += 1
                os.rename(one.path, f"{folder}/{word}-{count}")
            os.rmdir(entry.path)
