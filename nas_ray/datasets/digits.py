"""`digits`: scikit-learn's 1,797 handwritten digits, 8 x 8 grey, on disk with the package: no download, ever.

In: nothing. Out: decoded images. The set has no official test split.
"""

from __future__ import annotations

import importlib

import numpy as np

from nas_ray.datasets.dataset import DatasetError, DecodedImages
from nas_ray.datasets.places import Request

FULL_INK = 16  # the files count ink in sixteenths: 0 .. 16


def read_digits(request: Request) -> DecodedImages:
    """Reads the set; pixels 0 .. 16 are spread over 0 .. 255. Raises `DatasetError` without scikit-learn."""
    try:
        sklearn_datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DatasetError(
            f"{request.name}: scikit-learn carries its files: pip install scikit-learn ({error})"
        ) from error
    bunch = sklearn_datasets.load_digits()
    pixels = np.rint(bunch.images * (255 / FULL_INK)).astype(np.uint8)  # (1797, 8, 8)
    return DecodedImages(train_images=pixels[:, None], train_labels=bunch.target.astype(np.int64), classes=10)
