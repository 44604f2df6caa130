"""Programs as sets: every run of a few tokens, hashed.

In: a program's normalised text. Out: its shingles as a sorted array of distinct 32-bit hashes, and the exact Jaccard
similarity of two such arrays. The hash depends on nothing but the tokens, so sets agree between processes and machines.
Two different shingles of one pair of programs share a hash with a chance of about n^2 / 2^33: 2e-5 for 400 shingles
each, and then the similarity is off by about 1 / 400.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Shingles = npt.NDArray[np.uint32]  # sorted, distinct

MULTIPLIER = (
    0x9E3779B97F4A7C15  # odd, so that its powers have an inverse modulo 2^64 and every place in a shingle counts
)
MASK = (1 << 64) - 1


def shingle(normalised: str, tokens: int) -> Shingles:
    """The set of runs of `tokens` tokens; a text shorter than that is one shingle of all its tokens."""
    hashes = np.array([_hash_token(token) for token in normalised.split()], dtype=np.uint64)
    width = min(tokens, len(hashes)) or 1
    count = max(len(hashes) - width + 1, 0)
    total = np.full(count, width, dtype=np.uint64)
    for place in range(width):
        total = total * np.uint64(MULTIPLIER) + hashes[place : place + count]
    return np.unique((_mix(total) >> np.uint64(32)).astype(np.uint32))


def jaccard_counts(one: Shingles, other: Shingles) -> tuple[int, int]:
    """Sizes of the intersection and of the union."""
    both = np.concatenate((one, other))
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared, len(both) - shared


@lru_cache(maxsize=65536)
def _hash_token(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """MurmurHash3's 64-bit finaliser: a bijection in which every bit depends on every other."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
