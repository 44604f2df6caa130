"""Resizes decoded images once, all of them in batched matrix products.

In: uint8 images (N, C, H, W) of one size. Out: uint8 images (N, C, side, side).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHUNK_PIXELS = 1 << 24  # of float32 input at a time: 64 MiB


def resize_images(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Bilinear resize, antialiased when shrinking: Pillow's filter, within one grey level of its result.

    Pillow rounds between its two passes and this does not, hence the grey level.
    """
    count, channels, height, width = images.shape
    if (height, width) == (side, side):
        return images
    vertical, horizontal = _bilinear_weights(height, side), _bilinear_weights(width, side)
    resized = np.empty((count, channels, side, side), dtype=np.uint8)
    step = max(1, CHUNK_PIXELS // (channels * max(height, side) * max(width, side)))
    for start in range(0, count, step):
        rows = vertical @ images[start : start + step].astype(np.float32)  # (n, C, side, W)
        resized[start : start + step] = np.rint(rows @ horizontal.T).clip(0, 255)
    return resized


def _bilinear_weights(size: int, side: int) -> NDArray[np.float32]:
    """The matrix (side, size) that maps `size` pixels to `side`: a triangle, widened by the factor of shrinking."""
    scale = size / side
    centres = (np.arange(side) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights: NDArray[np.float32] = np.maximum(0.0, 1.0 - distance).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
