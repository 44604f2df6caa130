"""What a run has that its seed corpus has not: elites that are absent from it, and how near the nearest comes.

In: a run's store. Out: a `CorpusComparison`, or None for a run without a corpus; or a sentence that says it. Every
elite is compared with every program of the corpus, exactly: by id and by the Jaccard similarity of shingles, not by
what the index looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from nas_ray.corpus import CorpusError, read_corpus
from nas_ray.lemur import LemurError
from nas_ray.normalisation import normalise
from nas_ray.outcome import Outcome
from nas_ray.schema import CandidateRow
from nas_ray.sketches import Sketcher, Sketches
from nas_ray.store import Store


@dataclass(frozen=True, slots=True)
class CorpusComparison:
    """A run beside its corpus."""

    corpus: str
    programs: int  # different ones in the corpus, a program and its network alone counted apart
    refused: int  # candidates that were duplicates of one of these
    elites: int
    absent: int  # elites that are not in the corpus by id and whose nearest program in it is less similar than tau
    nearest_id: str  # the elite that comes nearest to the corpus; "" without elites
    nearest_similarity: float
    mean_similarity: float  # of the elites to their nearest program

    def describe(self) -> str:
        """One or two sentences for a person."""
        refused = f"{self.refused:,} candidates were refused as duplicates of its {self.programs:,} programs."
        if not self.elites:
            return f"Seed corpus {self.corpus}: no elite yet; {refused}"
        return (
            f"Seed corpus {self.corpus}: {self.absent:,} of {self.elites:,} elites are absent from it (largest "
            f"similarity {self.nearest_similarity:.2f}, of {self.nearest_id[:10]}; mean of the nearest "
            f"{self.mean_similarity:.2f}); {refused}"
        )


def describe_corpus(store: Store) -> str:
    """The comparison in a sentence or two; "" for a run without a corpus; why, where the corpus is gone."""
    try:
        comparison = compare_with_corpus(store)
    except (CorpusError, LemurError) as error:
        return f"The elites cannot be compared with the seed corpus any more: {error}"
    return comparison.describe() if comparison is not None else ""


def compare_with_corpus(store: Store) -> CorpusComparison | None:
    """The comparison; None for a run without a corpus. Raises CorpusError or LemurError where it cannot be read."""
    novelty = store.config.novelty
    if novelty.corpus is None:
        return None
    corpus = read_corpus(novelty)
    chosen = {program_id for cycle in store.cycles() for program_id in cycle.elite_ids}
    rows = store.candidates()
    elites = {row.id: row for row in rows if row.id in chosen and row.outcome is Outcome.VALID}
    known = set(corpus.ids)
    similarities = _nearest(list(elites.values()), corpus, Sketcher(novelty.shingle_tokens, novelty.permutations))
    absent = [
        program_id not in known and similarity < novelty.tau
        for program_id, similarity in zip(elites, similarities, strict=True)
    ]
    nearest = int(np.argmax(similarities)) if elites else None
    return CorpusComparison(
        corpus=novelty.corpus,
        programs=len(corpus),
        refused=sum(row.outcome is Outcome.DUPLICATE and row.duplicate_of in known for row in rows),
        elites=len(elites),
        absent=sum(absent),
        nearest_id=list(elites)[nearest] if nearest is not None else "",
        nearest_similarity=float(similarities[nearest]) if nearest is not None else 0.0,
        mean_similarity=float(similarities.mean()) if elites else 0.0,
    )


def _nearest(rows: Sequence[CandidateRow], corpus: Sketches, sketcher: Sketcher) -> npt.NDArray[np.float64]:
    """For each row, (rows,), the largest Jaccard similarity to a program of the corpus; 0 for an empty one.

    Shared shingles are counted all at once, as a product of two sparse matrices of programs by shingles.
    """
    if not rows or not len(corpus):
        return np.zeros(len(rows))
    sketches = [sketcher.sketch(normalise(row.code)) for row in rows]
    ours = Sketches.of([row.id for row in rows], sketches, sketcher.permutations)
    columns, places = np.unique(np.concatenate([corpus.shingles, ours.shingles]), return_inverse=True)
    split = len(corpus.shingles)
    theirs_matrix = _incidence(places[:split], corpus.starts, len(columns))
    our_matrix = _incidence(places[split:], ours.starts, len(columns))
    shared = (our_matrix @ theirs_matrix.T).toarray()  # (rows, corpus)
    union = np.diff(ours.starts)[:, None] + np.diff(corpus.starts)[None, :] - shared
    largest: npt.NDArray[np.float64] = (shared / np.maximum(union, 1)).max(axis=1)
    return largest


def _incidence(places: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], columns: int) -> csr_array:
    """Programs by shingles, 1 where a program has a shingle."""
    return csr_array((np.ones(len(places), np.int32), places, starts), shape=(len(starts) - 1, columns))
