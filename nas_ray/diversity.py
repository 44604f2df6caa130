"""How different the programs of a cycle are.

In: a run's final rows and a cycle. Out: a `Diversity`: counts, entropies of two distributions, and the Vendi score.
What is measured is what the generator wrote in that cycle, duplicates included: every candidate that has a program.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.special import entr

from nas_ray.candidate import Program
from nas_ray.outcome import Outcome
from nas_ray.parents import cell_of
from nas_ray.program import parse_completion
from nas_ray.schema import CandidateRow
from nas_ray.shingles import Shingles, shingle


@dataclass(frozen=True, slots=True)
class Diversity:
    """One cycle; an entropy is 0 where all are alike, and nan where nothing could be counted."""

    candidates: int
    programs: int  # candidates that have a program
    distinct: int  # programs, by id
    duplicates: int  # candidates refused as such, of their own cycle or of an earlier one
    graphs: int  # distinct traced graphs
    graph_entropy: float  # nats, of the graph signatures
    cell_entropy: float  # nats, of the cells of size and depth (`nas_ray.parents.cell_of`)
    vendi: float  # effective number of different programs, 1 .. programs; nan without any


def measure_diversity(rows: Iterable[CandidateRow], cycle: int, shingle_tokens: int) -> Diversity:
    """The diversity of `cycle`; `rows` are those of the whole run, `shingle_tokens` is `novelty.shingle_tokens`.

    Graph, size and depth are those of the programs that were built. One that was refused before, as an exact copy of an
    earlier program, counts with what that one had; one refused as a near copy has none and is left out of the two
    entropies (the Vendi score has it).
    """
    rows = list(rows)
    built = {row.id: row for row in rows if row.graph}
    own = [row for row in rows if row.cycle == cycle]
    written = [row for row in own if row.id]
    known = [built[row.id] for row in written if row.id in built]
    sets = {row.id: shingle(_normalised(row), shingle_tokens) for row in written}
    return Diversity(
        candidates=len(own),
        programs=len(written),
        distinct=len(sets),
        duplicates=sum(row.outcome is Outcome.DUPLICATE for row in own),
        graphs=len({row.graph for row in known}),
        graph_entropy=entropy(row.graph for row in known),
        cell_entropy=entropy(cell_of(row) for row in known),
        vendi=vendi_score(jaccard_matrix([sets[row.id] for row in written])),
    )


def entropy(labels: Iterable[Hashable]) -> float:
    """Shannon entropy of the labels' shares, nats: from 0 (all alike) to log(n) (all different); nan without labels."""
    counts = np.array(list(Counter(labels).values()), dtype=np.float64)
    return float(entr(counts / counts.sum()).sum()) if counts.size else math.nan


def vendi_score(similarity: npt.NDArray[np.float64]) -> float:
    """exp of the entropy of the eigenvalues of K / n: the effective number of different things; nan for n = 0.

    D. Friedman and A. B. Dieng, The Vendi Score: a diversity evaluation metric for machine learning, TMLR 2023. K, here
    `similarity`, is (n, n), positive semidefinite, with ones on its diagonal. n alike give 1, n that share nothing n.
    """
    if not similarity.size:
        return math.nan
    eigenvalues = np.linalg.eigvalsh(similarity / len(similarity))
    # They add up to 1 and none is negative, but for rounding.
    return float(np.exp(entr(np.maximum(eigenvalues, 0.0)).sum()))


def jaccard_matrix(sets: Sequence[Shingles]) -> npt.NDArray[np.float64]:
    """Jaccard similarity of each pair of sets of shingles, (n, n); two empty sets are alike.

    It is positive semidefinite: J. C. Gower, A general coefficient of similarity and some of its properties,
    Biometrics 27 (1971).
    """
    sizes = np.array([len(one) for one in sets], dtype=np.int64)
    if not len(sizes):
        return np.empty((0, 0))
    members, columns = np.unique(np.concatenate(sets), return_inverse=True)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    holds = csr_array((np.ones(len(columns)), columns.reshape(-1), starts), shape=(len(sizes), len(members)))
    shared = (holds @ holds.T).toarray()
    union = sizes[:, None] + sizes[None, :] - shared
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)


def _normalised(row: CandidateRow) -> str:
    program = parse_completion(row.code)
    if not isinstance(program, Program):
        raise ValueError(f"candidate {row.id} (cycle {row.cycle}, index {row.index}) has an id but no program")
    return program.normalised
