"""Augmentation in batches does to each image what the plain formula does to one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas_ray.augmentation import augment, crop_margin, draw_augmentation


def plain(image: Tensor, flipped: bool, down: int, right: int, margin: int) -> Tensor:
    """One image (C, H, W), pixel by pixel."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                source_row = row + down - margin
                source_column = (width - 1 - column if flipped else column) + right - margin
                if 0 <= source_row < height and 0 <= source_column < width:
                    result[channel, row, column] = image[channel, source_row, source_column]
    return result


@pytest.mark.parametrize("kinds", [("flip",), ("crop",), ("flip", "crop"), ()])
def test_a_batch_is_augmented_like_its_images_one_by_one(kinds: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (9, 2, 16, 11), dtype=torch.uint8, generator=generator)
    margin = 2
    draw = draw_augmentation(kinds, len(images), margin, generator)
    flipped = draw.flipped if draw.flipped is not None else torch.zeros(9, dtype=torch.bool)
    down = draw.down if draw.down is not None else torch.full((9,), margin)
    right = draw.right if draw.right is not None else torch.full((9,), margin)
    expected = torch.stack(
        [
            plain(image, bool(flipped[i]), int(down[i]), int(right[i]), margin if "crop" in kinds else 2)
            for i, image in enumerate(images)
        ]
    )
    result = augment(images, draw, margin)
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)


def test_draws_are_seeded_and_uniform() -> None:
    def draw(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        made = draw_augmentation(("flip", "crop"), 20_000, 4, torch.Generator().manual_seed(seed))
        assert made.flipped is not None
        assert made.down is not None
        assert made.right is not None
        return made.flipped, made.down, made.right

    flipped, down, right = draw(0)
    assert all(torch.equal(a, b) for a, b in zip(draw(0), (flipped, down, right), strict=True))
    assert not torch.equal(draw(1)[1], down)
    assert abs(flipped.float().mean().item() - 0.5) < 0.02
    for shift in (down, right):
        counts = torch.bincount(shift, minlength=9)
        assert len(counts) == 9
        assert (counts.float() / 20_000 - 1 / 9).abs().max() < 0.012
    assert abs(torch.corrcoef(torch.stack([down.float(), right.float()]))[0, 1].item()) < 0.03


@pytest.mark.parametrize(("side", "margin"), [(8, 1), (28, 3), (32, 4), (4, 1)])
def test_the_margin_is_an_eighth_of_the_side_and_at_least_one(side: int, margin: int) -> None:
    assert crop_margin(side, side) == margin
