"""`folder`: any images of yours, one folder a class.

In: ROOT/train/CLASS/IMAGE, and where you have them ROOT/validation/CLASS/IMAGE and ROOT/test/CLASS/IMAGE. Out: decoded
images; classes are the sorted names of the folders in train/. All grey images give one channel, else all become RGB
(transparency is dropped). Orientation noted by a camera is applied. Files with none of SUFFIXES are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_ray.datasets.dataset import DatasetError, DecodedImages
from nas_ray.datasets.places import Request

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
GREY_MODES = frozenset({"1", "L", "LA", "La"})
COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
SPLITS = ("train", "validation", "test")
ORIENTATION_TAG, TURNED = 0x0112, frozenset({5, 6, 7, 8})  # EXIF: these swap width and height
NAMED_FILES = 5  # listed in an error before "and n more"


@dataclass(frozen=True, slots=True)
class _Header:
    """What an image file says before it is decoded."""

    size: tuple[int, int]  # width, height, orientation applied where sizes matter
    grey: bool
    fault: str = ""


def read_image_folder(request: Request) -> DecodedImages:
    """Decodes every image once, at `request.resolution` where that is set.

    Raises `DatasetError` for a wrong layout, unreadable images (named), and images of different sizes (named) where no
    resolution is set.
    """
    root = request.root
    if root is None:
        raise DatasetError("folder: set dataset.root to a folder that holds train/CLASS/IMAGE")
    class_names = _class_names(root / "train")
    if len(class_names) < 2:
        raise DatasetError(f"folder: {root}/train holds {len(class_names)} class folder(s); 2 or more are needed")
    files = {split: _list_images(root / split, class_names) for split in SPLITS if (root / split).is_dir()}
    every_file = [file for listed in files.values() for file, _ in listed]
    arrays: dict[str, Any] = {}
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        headers = dict(
            zip(every_file, pool.map(partial(_read_header, sized=request.resolution is None), every_file), strict=True)
        )
        _refuse([f"{file}: {header.fault}" for file, header in headers.items() if header.fault], "cannot be used")
        width, height = (request.resolution,) * 2 if request.resolution else _common_size(headers)
        mode = "L" if all(header.grey for header in headers.values()) else "RGB"
        for split, listed in files.items():
            pixels = np.empty(
                (len(listed), len(mode), height, width), dtype=np.uint8
            )  # "L" is one channel, "RGB" three
            jobs = ((file, mode, pixels[position]) for position, (file, _) in enumerate(listed))
            _refuse([fault for fault in pool.map(_decode_into, jobs) if fault], "cannot be decoded")
            arrays[f"{split}_images"] = pixels
            arrays[f"{split}_labels"] = np.array([label for _, label in listed], dtype=np.int64)
    return DecodedImages(**arrays, classes=len(class_names))


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DatasetError(f"folder: {folder} does not exist; expected is train/CLASS/IMAGE under dataset.root")
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _list_images(folder: Path, class_names: Sequence[str]) -> list[tuple[Path, int]]:
    """(file, label) of every image of a split, sorted by class and name."""
    unknown = sorted(set(_class_names(folder)) - set(class_names))
    if unknown:
        raise DatasetError(f"folder: {folder} holds classes that train/ does not: {', '.join(unknown)}")
    listed: list[tuple[Path, int]] = []
    for label, name in enumerate(class_names):
        found = sorted(
            file for file in (folder / name).rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
        )
        if not found and folder.name == "train":
            raise DatasetError(f"folder: no image in {folder / name}; suffixes read: {', '.join(sorted(SUFFIXES))}")
        listed += [(file, label) for file in found]
    if not listed:
        raise DatasetError(f"folder: no image in {folder}; remove it or fill it")
    return listed


def _read_header(file: Path, sized: bool) -> _Header:
    """Looks at a file; its orientation only where its size matters, because in a PNG it may stand after the pixels."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            turned = sized and image.getexif().get(ORIENTATION_TAG) in TURNED
            size = (image.height, image.width) if turned else image.size
            known = image.mode in GREY_MODES | COLOUR_MODES
            fault = "" if known else f"pixels of mode {image.mode}; 8 bits a channel are needed"
            return _Header(size, image.mode in GREY_MODES, fault)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return _Header((0, 0), False, str(error))


def _common_size(headers: Mapping[Path, _Header]) -> tuple[int, int]:
    """The (width, height) that all images have. Raises `DatasetError` naming the exceptions."""
    ((width, height), _) = Counter(header.size for header in headers.values()).most_common(1)[0]
    others = [
        f"{file}: {w} x {h}" for file, (w, h) in ((f, g.size) for f, g in headers.items()) if (w, h) != (width, height)
    ]
    _refuse(others, f"are not {width} x {height} like most: set protocol.resolution, or make all images one size")
    return width, height


def _decode_into(job: tuple[Path, str, NDArray[np.uint8]]) -> str:
    """Decodes one image into its place (C, H, W); returns what went wrong, or ""."""
    from PIL import Image, ImageOps

    file, mode, place = job
    _, height, width = place.shape
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert(mode)
        if upright.size != (width, height):
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{file}: {error}"
    pixels: NDArray[np.uint8] = np.asarray(upright)  # (H, W) or (H, W, C)
    place[:] = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    return ""


def _refuse(faults: Sequence[str], reason: str) -> None:
    if faults:
        more = f"\n  and {len(faults) - NAMED_FILES} more" if len(faults) > NAMED_FILES else ""
        listed = "".join(f"\n  {fault}" for fault in faults[:NAMED_FILES])
        raise DatasetError(f"folder: {len(faults)} image(s) {reason}:{listed}{more}")
