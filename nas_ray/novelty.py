"""Was this program seen before? In three views: its id, its code, its traced operation graph.

In: programs (and the signatures of their graphs) in order of arrival. Out: verdicts that name the nearest earlier
program. The same calls in the same order give the same verdicts, on any machine.

Code is compared by the Jaccard similarity of token shingles. MinHash (datasketch, 256 permutations) and bands find the
candidates; every candidate is then verified on its exact set of shingles, so a similarity in a verdict is exact, a
program is never refused by chance, and what MinHash may do is to overlook a near-duplicate, with probability
`miss_rate` at tau and less above. An admitted program keeps its place whatever becomes of it later: it was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nas_ray.bands import BandTable, choose_bands
from nas_ray.candidate import Program, Verdict
from nas_ray.config import NoveltyConfig
from nas_ray.shingles import Shingles, jaccard_counts
from nas_ray.sketches import Sketcher, Sketches

NOVEL = Verdict(novel=True, neighbour="", similarity=0.0, view="")
SKETCH_BITS = 16  # of the table in which candidates are sifted before they are verified


@dataclass(frozen=True, slots=True)
class Record:
    """One admitted program, as much as is needed to admit it again."""

    id: str
    normalised: str
    graph: str = ""  # signature of its traced graph, if it held the place of that graph


class NoveltyIndex:
    """Every program that was admitted, by id, by code and by graph. With tau = 1 only ids and graphs are compared."""

    def __init__(self, config: NoveltyConfig) -> None:
        self.config = config
        self._tau = Fraction(repr(config.tau))  # 0.9 is 9/10 here: counts are compared as integers, never rounded
        self._bands: BandTable | None = None
        if self._tau < 1:
            self._bands = BandTable(*choose_bands(config.permutations, config.tau, config.miss_rate))
        self._sketcher = Sketcher(config.shingle_tokens, config.permutations)
        self._entries: dict[str, int] = {}
        self._ids: list[str] = []  # "" where an entry was withdrawn
        self._shingles: list[Shingles] = []
        self._graphs: dict[str, str] = {}
        self._graph_of: dict[str, str] = {}
        self._sketch = np.zeros(1 << SKETCH_BITS, dtype=np.bool_)

    def __len__(self) -> int:
        """Number of admitted programs."""
        return len(self._entries)

    def __contains__(self, program_id: str) -> bool:
        return program_id in self._entries

    def admit_code(self, program: Program) -> Verdict:
        """Judge a program by id and code; a novel one is admitted.

        The verdict of a novel program names the nearest program that was looked at, if any.
        """
        if program.id in self._entries:
            return Verdict(novel=False, neighbour=program.id, similarity=1.0, view="id")
        if self._bands is None:
            self._add(program.id, None, ())
            return NOVEL
        sketch = self._sketcher.sketch(program.normalised)
        shingles, keys = sketch.shingles, self._bands.keys(sketch.signature)
        nearest, shared, union = self._find_nearest(shingles, sorted(self._bands.find(keys)))
        similarity = shared / union
        if shared >= self._tau * union:
            return Verdict(novel=False, neighbour=nearest, similarity=similarity, view="code")
        self._add(program.id, shingles, keys)
        return Verdict(novel=True, neighbour=nearest, similarity=similarity, view="")

    def admit_graph(self, program_id: str, graph: str) -> Verdict:
        """Judge an admitted program by the signature of its traced graph; the first program with a graph holds it.

        A program whose graph was seen keeps its place in the other views: its code was seen, too.

        Raises:
            KeyError: `program_id` was not admitted by `admit_code`.
        """
        if program_id not in self._entries:
            raise KeyError(f"program {program_id} was not admitted by its code, so its graph cannot be judged")
        holder = self._graphs.setdefault(graph, program_id)
        if holder != program_id:
            return Verdict(novel=False, neighbour=holder, similarity=1.0, view="graph")
        self._graph_of[program_id] = graph
        return NOVEL

    def withdraw(self, program_id: str) -> bool:
        """Forget a program that an engine fault took, so that it may be written again; False if it was not there.

        Verdicts that named it stand.
        """
        entry = self._entries.pop(program_id, None)
        if entry is None:
            return False
        if self._bands is not None:
            self._bands.remove(entry, self._bands.keys(self._sketcher.sign(self._shingles[entry])))
            self._shingles[entry] = np.empty(0, dtype=np.uint32)
        self._ids[entry] = ""
        graph = self._graph_of.pop(program_id, None)
        if graph is not None:
            del self._graphs[graph]
        return True

    def restore(self, records: Iterable[Record]) -> None:
        """Admit again, in order and without judging, what was admitted before; ids that are there are skipped."""
        for record in records:
            if record.id not in self._entries:
                shingles, keys = None, list[int]()
                if self._bands is not None:
                    sketch = self._sketcher.sketch(record.normalised)
                    shingles, keys = sketch.shingles, self._bands.keys(sketch.signature)
                self._add(record.id, shingles, keys)
            if record.graph and self._graphs.setdefault(record.graph, record.id) == record.id:
                self._graph_of[record.id] = record.graph

    def seed(self, sketches: Sketches) -> None:
        """Admit a corpus, without judging: what it holds counts as seen before the first cycle.

        The sketches are of `config.shingle_tokens` and `config.permutations`.
        """
        for place, program_id in enumerate(sketches.ids):
            if program_id not in self._entries:
                keys = self._bands.keys(sketches.signatures[place]) if self._bands is not None else []
                self._add(program_id, sketches.shingles_of(place), keys)

    def _add(self, program_id: str, shingles: Shingles | None, keys: Sequence[int]) -> None:
        entry = len(self._ids)
        self._entries[program_id] = entry
        self._ids.append(program_id)
        if self._bands is not None and shingles is not None:
            self._shingles.append(shingles)
            self._bands.add(entry, keys)

    def _find_nearest(self, shingles: Shingles, candidates: Sequence[int]) -> tuple[str, int, int]:
        """(id, shared shingles, shingles in either) of the most similar candidate, the earliest of equals.

        ("", 0, 1) if there is none.

        Candidates are sifted first: shingles that fall on the same place of a small table can only be over-counted, so
        the share that they give is never below the true one, and most candidates need no second look.
        """
        best, best_shared, best_union = "", 0, 1
        if not candidates:
            return best, best_shared, best_union
        bounds = self._bound_shared(shingles, candidates)
        sizes = np.array([len(self._shingles[entry]) for entry in candidates])
        shares = bounds / (len(shingles) + sizes - bounds)
        for place in np.argsort(-shares, kind="stable").tolist():
            bound = int(bounds[place])
            if bound * best_union < best_shared * (len(shingles) + int(sizes[place]) - bound):
                break
            entry = candidates[place]
            shared, union = jaccard_counts(shingles, self._shingles[entry])
            nearer = shared * best_union - best_shared * union
            if nearer > 0 or (nearer == 0 and best and entry < self._entries[best]):
                best, best_shared, best_union = self._ids[entry], shared, union
        return best, best_shared, best_union

    def _bound_shared(self, shingles: Shingles, candidates: Sequence[int]) -> npt.NDArray[np.int64]:
        """For each candidate, (candidates,), a number of shared shingles that is at least the true one."""
        places = shingles & np.uint32((1 << SKETCH_BITS) - 1)
        self._sketch[places] = True
        arrays = [self._shingles[entry] for entry in candidates]
        starts = np.cumsum([0, *(len(array) for array in arrays[:-1])])
        hits = self._sketch[np.concatenate(arrays) & np.uint32((1 << SKETCH_BITS) - 1)]
        self._sketch[places] = False
        bounds: npt.NDArray[np.int64] = np.minimum(np.add.reduceat(hits, starts, dtype=np.int64), len(shingles))
        return bounds
