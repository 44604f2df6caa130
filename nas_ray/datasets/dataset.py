"""What a data set is to the search: decoded images, labels and three splits, as plain arrays.

In: arrays from a source. Out: `DecodedImages` (what a source or a plug-in returns), `Dataset` (what training and
grading use), and `DatasetError`, the one exception of this room, whose text says what is allowed and what to install.

Shapes: N images, C channels, H and W pixels. Pixels are uint8 (0 .. 255), labels are 0 .. classes - 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (N, C, H, W)
Labels = NDArray[np.int64]  # (N,)


class DatasetError(ValueError):
    """A data set that cannot be had: unknown name, missing or broken files, a missing package, a wrong plug-in."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImages:
    """What a source hands over: everything decoded once, before any split of ours.

    `validation_*` is given only by sources with a validation split of their own; `test_*` is None where there is no
    official test split. `classes` is None to mean "largest training label + 1".
    """

    train_images: Pixels  # uint8 (N, C, H, W)
    train_labels: Labels  # integers (N,)
    test_images: Pixels | None = None
    test_labels: Labels | None = None
    validation_images: Pixels | None = None
    validation_labels: Labels | None = None
    classes: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images to learn from, to be graded on (validation) and to be measured on once, at the end (test)."""

    name: str
    classes: int
    mean: tuple[float, ...]  # per channel, of the training pixels scaled to 0 .. 1
    std: tuple[float, ...]  # likewise; 1.0 for a channel that is constant, so that division is safe
    train_images: Pixels  # uint8 (N, C, H, W)
    train_labels: Labels  # int64 (N,)
    validation_images: Pixels
    validation_labels: Labels
    test_images: Pixels
    test_labels: Labels
    appended_test: int = 0  # so many of the validation images, the last ones, are test images: see `append_test`


def append_test(dataset: Dataset) -> Dataset:
    """The data set with the test images behind the validation images, so that one training predicts both.

    They are graded apart. Only what does not choose any more may ask for this: an export, a final round.
    """
    return replace(
        dataset,
        validation_images=np.concatenate([dataset.validation_images, dataset.test_images]),
        validation_labels=np.concatenate([dataset.validation_labels, dataset.test_labels]),
        appended_test=len(dataset.test_labels),
    )


def in_shape(dataset: Dataset) -> tuple[int, int, int, int]:
    """The `in_shape` of the candidates' contract: (1, C, H, W)."""
    _, channels, height, width = dataset.train_images.shape
    return (1, channels, height, width)


def out_shape(dataset: Dataset) -> tuple[int]:
    """The `out_shape` of the candidates' contract: (classes,)."""
    return (dataset.classes,)


def check_images(decoded: DecodedImages, source: str) -> DecodedImages:
    """Checks types, shapes and label ranges of what `source` returned; labels become int64, `classes` is filled in.

    Raises `DatasetError` with the part, what it is and what it must be.
    """
    parts = {
        "train": (decoded.train_images, decoded.train_labels),
        "validation": (decoded.validation_images, decoded.validation_labels),
        "test": (decoded.test_images, decoded.test_labels),
    }
    classes = decoded.classes
    checked: dict[str, Any] = {}
    for part, (images, labels) in parts.items():
        if images is None and labels is None and part != "train":
            continue
        if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
            raise DatasetError(f"{source}: {part}_images and {part}_labels must both be NumPy arrays")
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
            raise DatasetError(
                f"{source}: {part}_images is {images.dtype} {images.shape}; it must be uint8 (N, C, H, W), not empty"
            )
        if images.shape[1:] != decoded.train_images.shape[1:]:
            raise DatasetError(
                f"{source}: {part}_images has images of shape {images.shape[1:]}, train_images of "
                f"{decoded.train_images.shape[1:]}; they must be equal (C, H, W)"
            )
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise DatasetError(
                f"{source}: {part}_labels is {labels.dtype} {labels.shape}; it must be integers ({len(images)},)"
            )
        if classes is None:
            classes = int(labels.max()) + 1  # train comes first
        if labels.min() < 0 or labels.max() >= classes:
            raise DatasetError(
                f"{source}: {part}_labels run from {labels.min()} to {labels.max()}; allowed are 0 .. {classes - 1}"
            )
        checked[f"{part}_images"] = np.ascontiguousarray(images)
        checked[f"{part}_labels"] = labels.astype(np.int64)
    if classes is None or classes < 2:
        raise DatasetError(f"{source}: {classes} class; a data set to classify needs at least 2")
    return DecodedImages(**checked, classes=classes)
