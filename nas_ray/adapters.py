"""Where adapters lie: one folder for each version, on a disk or in an object store, whole or not there.

In: folders named by a path or an address (`s3://...`, `gs://...`). Out: local folders that PEFT and vLLM load, and
finished versions beside the run's tables. A version is whole once its `finetune.json` is there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pyarrow import fs

from nas_ray.finetune_report import REPORT_FILE, FinetuneError


def folder_within(folder: str | Path, name: str) -> str:
    """The folder `name` in `folder`; an address keeps its options (s3://bucket/run?region=...) at the end."""
    base, mark, options = str(folder).partition("?") if is_remote(folder) else (str(folder), "", "")
    return f"{base.rstrip('/')}/{name}{mark}{options}"


def adapter_folder(adapters: str | Path, version: int) -> str:
    """The folder of one version among `adapters`."""
    return folder_within(adapters, f"{version:04d}")


def newest_version(adapters: str | Path) -> int:
    """The highest version among `adapters`; 0 if there is none."""
    filesystem, path = _open(str(adapters))
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return max((int(entry.base_name) for entry in found if entry.base_name.isdigit()), default=0)


def is_remote(folder: str | Path) -> bool:
    """True for the address of an object store, False for a path."""
    return "://" in str(folder) and not str(folder).startswith("file://")


def holds_adapter(folder: str) -> bool:
    """True if a whole adapter lies there."""
    filesystem, path = _open(folder)
    return bool(filesystem.get_file_info(f"{path}/{REPORT_FILE}").type == fs.FileType.File)


def fetch_adapter(folder: str | Path, into: Path) -> Path:
    """A local folder with the adapter's files: `folder` itself where it is local, else a copy in the folder `into`."""
    return copy_adapter(str(folder), into) if is_remote(folder) else Path(folder)


def copy_adapter(folder: str, into: Path) -> Path:
    """A copy of the adapter, local or remote, in the local folder `into`; it bears the same name."""
    filesystem, path = _open(folder)
    copy = into / path.rpartition("/")[2]
    copy.mkdir(parents=True, exist_ok=True)
    fs.copy_files(path, str(copy), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
    return copy


def publish_adapter(finished: Path, folder: str) -> None:
    """Bring the finished local adapter to its place: by one rename, or into an object store with the report last.

    Raises FinetuneError if a whole adapter lies there: a version is never overwritten.
    """
    if holds_adapter(folder):
        raise FinetuneError(f"{folder} holds an adapter already; versions are never overwritten")
    filesystem, path = _open(folder)
    if is_remote(folder):
        files = sorted((file for file in finished.iterdir()), key=lambda file: file.name == REPORT_FILE)
        for file in files:
            fs.copy_files(
                str(file), f"{path}/{file.name}",
                source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem,
            )  # fmt: skip
    else:
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # a folder without a report: something broken off by hand
        ready = place.with_name(f".{place.name}-ready.tmp")
        shutil.rmtree(ready, ignore_errors=True)
        shutil.move(finished, ready)  # perhaps from another disk, where a rename would not do
        ready.rename(place)


def remove_folder(folder: str) -> None:
    """Delete a folder and all it holds; none there is no error."""
    filesystem, path = _open(folder)
    if filesystem.get_file_info(path).type == fs.FileType.Directory:
        filesystem.delete_dir(path)


def _open(folder: str) -> tuple[fs.FileSystem, str]:
    if not is_remote(folder):
        return fs.LocalFileSystem(), str(Path(folder.removeprefix("file://")).expanduser().absolute())
    filesystem, path = fs.FileSystem.from_uri(folder)
    return filesystem, path.rstrip("/")
