"""Finds a data set by name, decodes it once and splits it.

In: a `DatasetConfig`. Out: a `Dataset`. Names are the built-in ones and every entry point of the group
`nas_ray.datasets`: a callable(root: str | None) that returns `DecodedImages`, or a dict with its fields.

Splits are stratified and seeded. Validation is the source's own split where it has one, else a share of the training
images, chosen by `split_seed`. A set without a test split gives TEST_SHARE of its images to one, chosen by a fixed
seed, so that the test images are the same for every run; this comes first, so that validation never meets them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np

from nas_ray.config import DatasetConfig, RunConfig
from nas_ray.datasets.dataset import Dataset, DatasetError, DecodedImages, Labels, Pixels, check_images
from nas_ray.datasets.digits import read_digits
from nas_ray.datasets.idx import read_idx_set
from nas_ray.datasets.image_folder import read_image_folder
from nas_ray.datasets.places import Request
from nas_ray.datasets.resizing import resize_images
from nas_ray.datasets.splits import split_stratified, take_stratified
from nas_ray.datasets.vision import read_vision_set

ENTRY_POINT_GROUP = "nas_ray.datasets"
TEST_SHARE, TEST_SEED = 0.2, 20_240_229  # of sets without an official test split; never to be changed
STATISTICS_CHUNK = 4096  # images at a time: numpy counts in 8 bytes a pixel

SOURCES: dict[str, Callable[[Request], DecodedImages]] = {
    "digits": read_digits,
    "fashion-mnist": read_idx_set,
    "mnist": read_idx_set,
    "cifar10": read_vision_set,
    "cifar100": read_vision_set,
    "svhn": read_vision_set,
    "folder": read_image_folder,
}


def load_dataset(config: DatasetConfig, resolution: int | None = None, *, download: bool = False) -> Dataset:
    """Decodes and splits the data set that `config` names, resized to `resolution` x `resolution` pixels where given.

    Files are fetched from the open network only with `download`. Raises `DatasetError` for an unknown name, missing or
    broken files or packages, and splits that come out empty.
    """
    request = Request(config.name, Path(config.root).expanduser() if config.root else None, resolution, download)
    if request.root is not None and not download and not request.root.is_dir():
        raise DatasetError(f"{config.name}: dataset.root is {config.root}, which is not a folder")
    source = SOURCES.get(config.name)
    decoded = check_images(source(request) if source else _call_plugin(request), config.name)
    test_images, test_labels = decoded.test_images, decoded.test_labels
    images, labels = decoded.train_images, decoded.train_labels
    if test_images is None or test_labels is None:
        kept, taken = split_stratified(labels, TEST_SHARE, TEST_SEED)
        test_images, test_labels, images, labels = images[taken], labels[taken], images[kept], labels[kept]
    validation_images, validation_labels = decoded.validation_images, decoded.validation_labels
    if validation_images is None or validation_labels is None:
        kept, taken = split_stratified(labels, config.validation_fraction, config.split_seed)
        validation_images, validation_labels, images, labels = images[taken], labels[taken], images[kept], labels[kept]
    images, labels = _limit(images, labels, config.train_limit, config.split_seed)
    validation_images, validation_labels = _limit(
        validation_images, validation_labels, config.validation_limit, config.split_seed
    )
    if len(images) < 2 or not len(validation_images) or not len(test_images):
        raise DatasetError(
            f"{config.name}: {len(images)} training, {len(validation_images)} validation and {len(test_images)} test "
            f"images; at least 2, 1 and 1 are needed: more images, or another dataset.validation_fraction"
        )
    if resolution is not None:
        images, validation_images, test_images = (
            resize_images(part, resolution) for part in (images, validation_images, test_images)
        )
    mean, std = measure_channels(images)
    return Dataset(
        name=config.name,
        classes=decoded.classes or 0,  # check_images has filled it in
        mean=mean,
        std=std,
        train_images=images,
        train_labels=labels,
        validation_images=validation_images,
        validation_labels=validation_labels,
        test_images=test_images,
        test_labels=test_labels,
    )


def load_datasets(config: RunConfig) -> dict[str, Dataset]:
    """Every data set of a run by its name, the first one first. Raises `DatasetError` as `load_dataset` does."""
    return {one.name: load_dataset(one, config.protocol.resolution) for one in (config.dataset, *config.also)}


def dataset_names() -> list[str]:
    """Every name that `load_dataset` knows here: the built-in ones, then the plug-ins'."""
    return [*SOURCES, *sorted(set(_plugins()) - set(SOURCES))]


def measure_channels(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation per channel of pixels scaled to 0 .. 1, exactly, from histograms."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(images), STATISTICS_CHUNK):
            counts += np.bincount(images[start : start + STATISTICS_CHUNK, channel].ravel(), minlength=256)
        mean = float(counts @ levels / counts.sum())
        deviation = float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))
        means.append(mean)
        deviations.append(deviation if np.count_nonzero(counts) > 1 else 1.0)
    return tuple(means), tuple(deviations)


def _limit(images: Pixels, labels: Labels, limit: int | None, seed: int) -> tuple[Pixels, Labels]:
    if limit is None or limit >= len(labels):
        return images, labels
    chosen = take_stratified(labels, limit, seed)
    return images[chosen], labels[chosen]


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _call_plugin(request: Request) -> DecodedImages:
    """What the plug-in of that name returns. Its failures become `DatasetError`s that name it."""
    plugin = _plugins().get(request.name)
    if plugin is None:
        names = dataset_names()
        close = difflib.get_close_matches(request.name, names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise DatasetError(
            f"unknown data set {request.name!r}; known here are {', '.join(names)}.{hint} For a set of your own use "
            f"'folder', or install a package with an entry point of the group {ENTRY_POINT_GROUP!r}"
        )
    try:
        result = plugin.load()(str(request.root) if request.root is not None else None)
        decoded = DecodedImages(**result) if isinstance(result, Mapping) else result
    except Exception as error:  # a stranger's code: whatever it raises is its fault, and says whose
        raise DatasetError(
            f"{request.name}: its plug-in {plugin.value} failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(decoded, DecodedImages):
        raise DatasetError(
            f"{request.name}: its plug-in {plugin.value} returned {type(result).__name__}; it must return "
            f"nas_ray.datasets.DecodedImages or a dict with its fields"
        )
    return decoded
