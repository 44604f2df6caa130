"""`mnist` and `fashion-mnist`: IDX files, packed with gzip or not.

In: a folder with the four files, or one that holds them in torchvision's layout. Out: decoded images, 28 x 28 grey.
An own reader of 20 lines, because torchvision cannot be installed beside vLLM's CPU build; on the same files it gives
the arrays that torchvision's gives (tested where torchvision is installed).
Format: two zero bytes, type (8: unsigned byte), number of dimensions, each as a big-endian uint32, then the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas_ray.datasets.dataset import DatasetError, DecodedImages
from nas_ray.datasets.places import Request
from nas_ray.datasets.vision import torchvision_datasets

UNSIGNED_BYTE = 8
CLASS_NAMES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # torchvision's, which are its folder names too
DEBIAN_PACKAGE = "on Debian or Ubuntu: apt-get install dataset-fashion-mnist"
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx_set(request: Request) -> DecodedImages:
    """Reads the four files from the first place that has them all, downloading them first only where that is allowed.

    Raises `DatasetError` where they are missing or broken.
    """
    files = _find_files(request)
    if files is None and request.download:
        vision_class = getattr(torchvision_datasets(request.name), CLASS_NAMES[request.name])
        try:
            vision_class(str(request.download_place), download=True)
        except (RuntimeError, OSError, HTTPException) as error:
            raise DatasetError(f"{request.name}: the download to {request.download_place} failed: {error}") from error
        files = _find_files(request)
    if files is None:
        raise request.explain_missing(
            f"{FILES[0]}[.gz] with its three companions",
            [
                *([DEBIAN_PACKAGE] if request.name == "fashion-mnist" else []),
                "set dataset.root to the folder that has them",
                f"with torchvision and the open network: python -m nas_ray.datasets {request.name} --download",
            ],
        )
    train_images, train_labels, test_images, test_labels = map(read_idx, files, (3, 1, 3, 1))
    return DecodedImages(
        train_images=train_images[:, None],
        train_labels=train_labels.astype(np.int64),
        test_images=test_images[:, None],
        test_labels=test_labels.astype(np.int64),
        classes=10,
    )


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """Reads one IDX file of unsigned bytes with so many dimensions. Raises `DatasetError` where it is anything else."""
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{file} cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]) or len(content) < header:
        start = content[:4].hex(" ") or "nothing"
        raise DatasetError(
            f"{file} is no IDX file of unsigned bytes in {dimensions} dimensions: it starts with {start}"
        )
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if len(content) - header != math.prod(shape):
        raise DatasetError(f"{file} holds {len(content) - header} values; its header says {shape}: fetch it again")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()  # writable, as torch wants


def _find_files(request: Request) -> list[Path] | None:
    """The four files of the first folder that has them all; torchvision keeps them in FashionMNIST/raw, say."""
    for place in request.places:
        for folder in (place, place / "raw", place / CLASS_NAMES[request.name] / "raw"):
            found = [next((f for f in (folder / name, folder / f"{name}.gz") if f.is_file()), None) for name in FILES]
            complete = [file for file in found if file is not None]
            if len(complete) == len(FILES):
                return complete
    return None
