"""Random flips and crops of a whole batch in one gather: no per-image Python.

In: uint8 images (B, C, H, W) on the training device and a generator on it. Out: images of the same shape and type.
- flip: mirrored left to right with probability 1/2.
- crop: an eighth of the side (at least 1 pixel) of black is put around the image, and a window of the image's size is
  cut out anywhere in it: the usual 4 pixels at 32 x 32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN_DIVISOR = 8


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn for each image of a batch; None: this kind is off."""

    flipped: Tensor | None  # bool (B,)
    down: Tensor | None  # int64 (B,), first row of the window in the padded image: 0 .. 2 * margin
    right: Tensor | None  # int64 (B,), first column likewise


def crop_margin(height: int, width: int) -> int:
    """Black pixels put on each side before a crop."""
    return max(1, min(height, width) // MARGIN_DIVISOR)


def draw_augmentation(kinds: Collection[str], count: int, margin: int, generator: torch.Generator) -> Draw:
    """Draws for `count` images which are flipped and where they are cropped, on the generator's device."""
    device = generator.device
    flipped = torch.rand(count, device=device, generator=generator) < 0.5 if "flip" in kinds else None
    if "crop" not in kinds:
        return Draw(flipped, None, None)
    down, right = torch.randint(0, 2 * margin + 1, (2, count), device=device, generator=generator)
    return Draw(flipped, down, right)


def augment(images: Tensor, draw: Draw, margin: int) -> Tensor:
    """Applies a draw: crops first, then flips. Images (B, C, H, W) of any type."""
    _, channels, height, width = images.shape
    device = images.device
    if draw.down is not None and draw.right is not None:
        padded = F.pad(images, (margin, margin, margin, margin))
        rows = draw.down[:, None] + torch.arange(height, device=device)  # (B, H)
        columns = draw.right[:, None] + torch.arange(width, device=device)  # (B, W)
        if draw.flipped is not None:
            columns = torch.where(draw.flipped[:, None], columns.flip(1), columns)
        image = torch.arange(len(images), device=device)[:, None, None, None]
        channel = torch.arange(channels, device=device)[:, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    if draw.flipped is not None:
        return torch.where(draw.flipped[:, None, None, None], images.flip(3), images)
    return images
