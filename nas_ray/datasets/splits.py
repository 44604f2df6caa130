"""Stratified, seeded choices of images: the validation split, the test split of sets without one, and subsets.

In: labels (N,) and a share or a count. Out: sorted indices. The same labels and seed give the same indices with every
NumPy version, because the random stream is `RandomState`'s, which NumPy has promised never to change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def split_stratified(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Indices, Indices]:
    """Splits indices 0 .. N - 1 into (kept, taken); `taken` holds round(share * N), each class in proportion.

    A class always keeps at least one image, so `taken` is smaller where there are classes of one image.
    """
    members = _shuffled_members(labels, seed)
    room = np.array([len(group) - 1 for group in members])
    quotas = np.minimum(_share_out([len(group) for group in members], round(share * len(labels))), room)
    taken = [group[:quota] for group, quota in zip(members, quotas, strict=True)]
    kept = [group[quota:] for group, quota in zip(members, quotas, strict=True)]
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(taken))


def take_stratified(labels: NDArray[np.int64], count: int, seed: int) -> Indices:
    """Chooses min(count, N) of the indices 0 .. N - 1, each class in proportion."""
    members = _shuffled_members(labels, seed)
    quotas = _share_out([len(group) for group in members], min(count, len(labels)))
    return np.sort(np.concatenate([group[:quota] for group, quota in zip(members, quotas, strict=True)]))


def _shuffled_members(labels: NDArray[np.int64], seed: int) -> list[Indices]:
    """The indices of each class that occurs, each list in random order."""
    # SeedSequence takes seeds of any size; RandomState(seed) stops at 32 bits.
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    return [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _share_out(sizes: list[int], count: int) -> NDArray[np.int64]:
    """Whole quotas in proportion to `sizes` that add up to `count` (the method of largest remainders)."""
    exact = np.array(sizes, dtype=np.float64) * count / max(1, sum(sizes))
    quotas = np.floor(exact).astype(np.int64)
    largest_remainders = np.argsort(quotas - exact, kind="stable")
    quotas[largest_remainders[: count - int(quotas.sum())]] += 1
    return quotas
