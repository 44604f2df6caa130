"""Locality-sensitive hashing: which earlier programs are worth a look, without looking at all of them.

In: MinHash signatures. Out: the entries that share at least one band of the signature.

Why not datasketch's `MinHashLSH`: it is as right and fast enough, but its sets in dictionaries took 7.3 kB an entry
where this table takes 2.2 kB (100,000 entries, 18 bands of 14 rows; `python -m benchmarks.novelty` compares the two
again).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Signature = npt.NDArray[np.uint32]


def choose_bands(permutations: int, tau: float, miss_rate: float) -> tuple[int, int]:
    """(bands, rows): the most selective split of a signature that still finds pairs at similarity `tau`.

    Rows agree with probability tau, so all bands miss a pair with probability (1 - tau^rows)^bands. Taken is the
    largest number of rows with bands = permutations // rows for which that is at most `miss_rate`. (The usual rule,
    equal areas under the two error curves, gives 13 x 19 at 0.85 and misses 15 % of the pairs at 0.90.)

    Raises:
        ValueError: not even one row a band is enough.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if (1 - tau**rows) ** bands <= miss_rate:
            return bands, rows
    chance = (1 - tau) ** permutations
    raise ValueError(
        f"{permutations} permutations miss {chance:.2%} of the pairs at similarity {tau}, more than the miss_rate of "
        f"{miss_rate:.2%} that is allowed: raise novelty.permutations, novelty.tau or novelty.miss_rate"
    )


class BandTable:
    """Entries, known by number, under the bands of their signatures."""

    def __init__(self, bands: int, rows: int) -> None:
        self.bands = bands
        self.rows = rows
        # Odd multipliers over the whole of 2^64, one for each place of the signature: equal bands at different places
        # differ, and so do permuted ones. Fixed, so that tables agree between processes.
        random = np.random.default_rng(0)
        self._multipliers = random.integers(0, 2**63, (bands, rows), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._buckets: dict[int, int | list[int]] = {}  # mostly one entry each, so mostly no list

    def keys(self, signature: Signature) -> list[int]:
        """One 64-bit key a band; `signature` holds at least bands * rows hashes."""
        blocks = signature[: self.bands * self.rows].reshape(self.bands, self.rows).astype(np.uint64)
        sums: list[int] = (blocks * self._multipliers).sum(axis=1).tolist()
        return sums

    def add(self, entry: int, keys: Iterable[int]) -> None:
        """Put an entry under its keys."""
        for key in keys:
            bucket = self._buckets.get(key)
            if bucket is None:
                self._buckets[key] = entry
            elif isinstance(bucket, list):
                bucket.append(entry)
            else:
                self._buckets[key] = [bucket, entry]

    def remove(self, entry: int, keys: Iterable[int]) -> None:
        """Take an entry away from its keys, which must be those that it was added with."""
        for key in keys:
            bucket = self._buckets[key]
            if isinstance(bucket, list):
                bucket.remove(entry)
                if len(bucket) == 1:
                    self._buckets[key] = bucket[0]
            else:
                del self._buckets[key]

    def find(self, keys: Iterable[int]) -> set[int]:
        """Entries that share a key."""
        found: set[int] = set()
        for key in keys:
            bucket = self._buckets.get(key)
            if isinstance(bucket, list):
                found.update(bucket)
            elif bucket is not None:
                found.add(bucket)
        return found
