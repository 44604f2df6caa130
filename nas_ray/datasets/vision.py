"""`cifar10`, `cifar100` and `svhn`, through torchvision's readers.

In: a folder in torchvision's layout (`cifar-10-batches-py/`, `cifar-100-python/`, `train_32x32.mat`). Out: decoded
images, 32 x 32 RGB. torchvision is imported only here and only when one of these sets is asked for, because its wheels
cannot be imported beside vLLM's CPU build of torch (see requirements/torchvision.txt for an environment that has it).
torchvision checks the files' MD5 sums, so a damaged download is an error here and not a bad score later.
"""

from __future__ import annotations

import importlib
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from nas_ray.datasets.dataset import DatasetError, DecodedImages
from nas_ray.datasets.places import Request

# name -> (torchvision's class, what marks a folder that holds the set, classes)
SETS = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py", 10),
    "cifar100": ("CIFAR100", "cifar-100-python", 100),
    "svhn": ("SVHN", "train_32x32.mat", 10),
}


def torchvision_datasets(name: str) -> Any:
    """The module `torchvision.datasets`. Raises `DatasetError` where it is missing or does not fit torch."""
    try:
        return importlib.import_module("torchvision.datasets")
    except (ImportError, OSError, RuntimeError) as error:  # the last two: built for another torch
        raise DatasetError(
            f"{name} needs torchvision, which cannot be imported here ({error}). Install the one that matches your "
            f"torch, or an environment of requirements/torchvision.txt; vLLM's CPU build and torchvision exclude each "
            f"other. Without it, any folder of images works: dataset.name=folder"
        ) from error


def read_vision_set(request: Request) -> DecodedImages:
    """Reads the training and the test split. Raises `DatasetError` where files or packages are missing."""
    class_name, mark, classes = SETS[request.name]
    vision_class = getattr(torchvision_datasets(request.name), class_name)
    place = next((folder for folder in _layouts(request, mark) if (folder / mark).exists()), None)
    if place is None and request.download:
        place = request.download_place
        place.mkdir(parents=True, exist_ok=True)
    if place is None:
        raise request.explain_missing(
            mark,
            [
                f"set dataset.root to the folder that has {mark}",
                f"with the open network: python -m nas_ray.datasets {request.name} --download",
            ],
        )
    try:
        if request.name == "svhn":
            train, test = (vision_class(place, split=split, download=request.download) for split in ("train", "test"))
            train_labels, test_labels = train.labels, test.labels
            train_images, test_images = train.data, test.data  # (N, C, H, W)
        else:
            train, test = (vision_class(place, train=flag, download=request.download) for flag in (True, False))
            train_labels, test_labels = train.targets, test.targets
            train_images, test_images = (
                split.data.transpose(0, 3, 1, 2) for split in (train, test)
            )  # were (N, H, W, C)
    except ImportError as error:
        raise DatasetError(f"{request.name}: its files need one more package: pip install scipy ({error})") from error
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, HTTPException) as error:
        raise DatasetError(f"{request.name}: torchvision cannot read {place}: {error}") from error
    return DecodedImages(
        train_images=np.ascontiguousarray(train_images),
        train_labels=np.asarray(train_labels, dtype=np.int64),
        test_images=np.ascontiguousarray(test_images),
        test_labels=np.asarray(test_labels, dtype=np.int64),
        classes=classes,
    )


def _layouts(request: Request, mark: str) -> list[Path]:
    """The places themselves, and the parent of one that names the marked folder itself."""
    return [place.parent if place.name == mark else place for place in request.places]
