"""The training images of a protocol, in batches: what the training loop learns from, its own or a program's.

In: uint8 images and labels on the training device, a normaliser, a protocol. Out: `Batches`, the `train_data` of
LEMUR's `learn(train_data)`: each pass over it is one epoch of (normalised images, labels).

Order and augmentation come from a generator of their own, so that they are the same for every candidate, whatever it
draws itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nas_ray.augmentation import augment, crop_margin, draw_augmentation
from nas_ray.config import ProtocolConfig


class Batches:
    """Goes over the images once in each pass, in a new random order, augmented anew.

    A last partial batch of a single image is left out, because batch normalisation cannot learn from one.

    Attributes:
        batch_size: images in each batch but the last.
        drawn: batches handed out so far, over all passes.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, normalise: Callable[[Tensor], Tensor], protocol: ProtocolConfig
    ) -> None:
        self.batch_size = protocol.batch_size
        self.drawn = 0
        self._images = images  # uint8 (N, C, H, W)
        self._labels = labels  # int64 (N,)
        self._normalise = normalise
        self._augmentation = protocol.augmentation
        self._margin = crop_margin(images.shape[2], images.shape[3])
        self._generator = torch.Generator(images.device).manual_seed(protocol.seed)

    def __len__(self) -> int:
        """Batches in one pass."""
        full, rest = divmod(len(self._images), self.batch_size)
        return full + (rest > 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: float32 images (B, C, H, W) and int64 labels (B,)."""
        order = torch.randperm(len(self._images), generator=self._generator, device=self._generator.device)
        for chosen in torch.split(order, self.batch_size)[: len(self)]:
            images = self._images[chosen]
            if self._augmentation:
                draw = draw_augmentation(self._augmentation, len(images), self._margin, self._generator)
                images = augment(images, draw, self._margin)
            self.drawn += 1
            yield self._normalise(images), self._labels[chosen]
