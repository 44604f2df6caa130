"""What novelty keeps of a program: its shingles and their MinHash signature, for one program or for thousands.

In: normalised texts. Out: a `Sketch` each, or `Sketches`, many in three flat arrays that travel and are stored fast.
Sketches are equal exactly where text, shingle length and number of permutations are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from nas_ray.bands import Signature
from nas_ray.shingles import Shingles, shingle


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """One program: sorted distinct 32-bit hashes of its shingles, and (permutations,) 32-bit hashes."""

    shingles: Shingles
    signature: Signature


class Sketcher:
    """Makes sketches for one length of shingles and one number of permutations."""

    def __init__(self, shingle_tokens: int, permutations: int) -> None:
        self.shingle_tokens = shingle_tokens
        self.permutations = permutations
        self._blank = MinHash(num_perm=permutations, seed=1, hashfunc=int, scheme="affine32")

    def sketch(self, normalised: str) -> Sketch:
        """The sketch of a normalised text."""
        shingles = shingle(normalised, self.shingle_tokens)
        return Sketch(shingles, self.sign(shingles))

    def sign(self, shingles: Shingles) -> Signature:
        """MinHash signature, (permutations,)."""
        minhash = self._blank.copy()
        minhash.update_batch(shingles.tolist())
        signature: Signature = minhash.hashvalues
        return signature


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """Those of N programs with different ids, in order."""

    ids: tuple[str, ...]
    starts: npt.NDArray[np.int64]  # (N + 1,): where in `shingles` each program's begin
    shingles: npt.NDArray[np.uint32]
    signatures: npt.NDArray[np.uint32]  # (N, permutations)

    @classmethod
    def of(cls, ids: Sequence[str], sketches: Sequence[Sketch], permutations: int) -> Sketches:
        """Those of `ids`, in the same order; a later one of an id that was there is left out."""
        first = {program_id: place for place, program_id in reversed(list(enumerate(ids)))}
        places = sorted(first.values())
        chosen = [sketches[place] for place in places]
        starts = np.cumsum([0, *(len(one.shingles) for one in chosen)], dtype=np.int64)
        shingles = np.concatenate([np.empty(0, np.uint32), *(one.shingles for one in chosen)])
        signatures = np.array([one.signature for one in chosen], np.uint32).reshape(len(chosen), permutations)
        return cls(tuple(ids[place] for place in places), starts, shingles, signatures)

    def __len__(self) -> int:
        return len(self.ids)

    def shingles_of(self, place: int) -> Shingles:
        """The shingles of one program, a view."""
        return self.shingles[self.starts[place] : self.starts[place + 1]]
