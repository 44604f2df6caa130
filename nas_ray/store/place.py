"""Bytes under names in one folder: on a local disk, or in an object store (`s3://`, `gs://`).

In: a path or URI. Out: a `Place` whose writes appear whole or not at all. Locally a file is written to a hidden `.tmp`
name, synced, and renamed. An object store shows an object only once it is complete, so there it is put under its final
name at once. Nothing here knows about rows.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from pyarrow import fs

TEMPORARY = ".tmp"
WITHOUT_FOLDERS = ("s3", "gcs", "abfs")  # pyarrow's names of stores that need no folder made before a file


class StoreError(Exception):
    """A run folder that cannot be read or written as asked: which one, why, and what to do about it."""


class Place(Protocol):
    """A folder. Names are relative and use "/"; hidden and temporary names are never listed."""

    uri: str

    def address(self, name: str) -> str:
        """The path or URI of a file or folder in it."""

    def prepare(self, name: str, data: pa.Buffer) -> Callable[[], None]:
        """Get `data` ready to appear under `name`; it does when the returned function is called."""

    def read(self, name: str) -> pa.Buffer:
        """The whole content. Raises FileNotFoundError, or StoreError where it is there but cannot be read."""

    def names(self, folder: str) -> list[str]:
        """Names of the files right inside `folder`, sorted; none if there is no such folder."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders right inside `folder`, sorted."""

    def remove(self, name: str) -> None:
        """Remove one file; no error if it is gone already."""

    def clean(self) -> list[str]:
        """Remove what interrupted writes left behind and return the names. Only for the one writer."""


class LocalPlace:
    """A folder of this machine, or one mounted on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = str(path)

    def address(self, name: str) -> str:
        return str(self.path / name)

    def prepare(self, name: str, data: pa.Buffer) -> Callable[[], None]:
        target = self.path / name
        temporary = target.with_name(f".{target.name}{TEMPORARY}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a power cut can leave the final name on an empty file
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._explained(error, f"write {name}") from error

        def publish() -> None:
            try:
                temporary.replace(target)
            except OSError as error:
                raise self._explained(error, f"write {name}") from error

        return publish

    def read(self, name: str) -> pa.Buffer:
        try:
            return pa.py_buffer((self.path / name).read_bytes())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._explained(error, f"read {name}") from error

    def names(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in self._entries(folder) if entry.is_file())

    def folders(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in self._entries(folder) if entry.is_dir())

    def remove(self, name: str) -> None:
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._explained(error, f"remove {name}") from error

    def clean(self) -> list[str]:
        removed = []
        for path in sorted(self.path.rglob(f".*{TEMPORARY}")):
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError as error:
                raise self._explained(error, f"remove {path.name}") from error
            removed.append(path.relative_to(self.path).as_posix())
        return removed

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / folder) as entries:
                return [entry for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._explained(error, f"list {folder or 'it'}") from error

    def _explained(self, error: OSError, action: str) -> StoreError:
        """The same failure in words that say what to do."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(self.path).free if self.path.exists() else 0
            why = "disk quota is used up" if error.errno == errno.EDQUOT else "disk is full"
            return StoreError(
                f"could not {action} in {self.uri}: the {why} ({free:,} bytes free). Nothing that was recorded is "
                f"lost: make room, then go on with `nas-ray resume {self.uri}`."
            )
        why = error.strerror or str(error)
        return StoreError(f"could not {action} in {self.uri}: {why}. Check the folder and its permissions.")


class ObjectPlace:
    """A prefix of an object store, or any other filesystem of pyarrow whose files appear only when complete."""

    def __init__(self, uri: str, filesystem: fs.FileSystem, prefix: str) -> None:
        self.uri = uri
        self.filesystem = filesystem
        self.prefix = prefix.rstrip("/")

    def address(self, name: str) -> str:
        base, mark, options = self.uri.partition("?")  # s3://bucket/run?region=...
        return f"{base.rstrip('/')}/{name}{mark}{options}"

    def prepare(self, name: str, data: pa.Buffer) -> Callable[[], None]:
        def publish() -> None:
            path = self._path(name)
            try:
                if self.filesystem.type_name not in WITHOUT_FOLDERS:
                    self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
                with self.filesystem.open_output_stream(path) as stream:
                    stream.write(data)
            except OSError as error:
                raise self._explained(error, f"write {name}") from error

        return publish

    def read(self, name: str) -> pa.Buffer:
        try:
            with self.filesystem.open_input_file(self._path(name)) as stream:
                return stream.read_buffer()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._explained(error, f"read {name}") from error

    def names(self, folder: str) -> list[str]:
        return [info.base_name for info in self._entries(folder) if info.type == fs.FileType.File]

    def folders(self, folder: str) -> list[str]:
        return [info.base_name for info in self._entries(folder) if info.type == fs.FileType.Directory]

    def remove(self, name: str) -> None:
        try:
            self.filesystem.delete_file(self._path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._explained(error, f"remove {name}") from error

    def clean(self) -> list[str]:
        return []  # an interrupted put leaves nothing that can be seen

    def _path(self, name: str) -> str:
        return f"{self.prefix}/{name}" if name else self.prefix

    def _entries(self, folder: str) -> list[fs.FileInfo]:
        try:
            found = self.filesystem.get_file_info(fs.FileSelector(self._path(folder), allow_not_found=True))
        except OSError as error:
            raise self._explained(error, f"list {folder or 'it'}") from error
        shown = [info for info in found if not info.base_name.startswith(".")]
        return sorted(shown, key=lambda info: str(info.base_name))

    def _explained(self, error: OSError, action: str) -> StoreError:
        return StoreError(
            f"could not {action} in {self.uri}: {error}. Check the address, the credentials and the connection; "
            f"nothing that was recorded is lost, go on with `nas-ray resume {self.uri}`."
        )


def open_place(folder: str) -> Place:
    """The place that a path or URI names. Raises StoreError for a scheme that pyarrow cannot open."""
    if "://" not in folder:
        return LocalPlace(Path(folder).expanduser().absolute())
    try:
        filesystem, prefix = fs.FileSystem.from_uri(folder)
    except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot open {folder}: {error}. A run folder is a local path, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER."
        ) from error
    if isinstance(filesystem, fs.LocalFileSystem):
        return LocalPlace(Path(prefix))
    return ObjectPlace(folder, filesystem, prefix)
