"""A corpus of programs that count as seen before the first cycle, and whose best may serve as examples.

In: a folder, of .py files or as `nas-ray lemur import` writes it. Out: sketches for the novelty index, and the best
measured programs. Each program is there as it is written and, where it has LEMUR's training code, also without it:
candidates are networks alone, and the training code would hide that two networks are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas_ray.candidate import Program
from nas_ray.config import NoveltyConfig
from nas_ray.lemur.imported import Import
from nas_ray.lemur.network import network_part
from nas_ray.program import parse_completion, read_program
from nas_ray.replay import CORPUS_CYCLE, Pair
from nas_ray.sketches import Sketcher, Sketches


class CorpusError(ValueError):
    """A corpus that cannot be read, or that lacks what a run asks of it."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A measured program of the corpus: its network alone."""

    id: str
    code: str
    accuracy: float  # the best one that the corpus has for it, share 0 .. 1
    cycle: int = CORPUS_CYCLE
    parameters: int | None = None  # what a candidate of a run has, and what the corpus does not know
    depth: int | None = None

    def pair(self, prompt: str) -> Pair:
        """The pair that teaches it as the answer to `prompt`."""
        return Pair(self.id, prompt, self.code, self.cycle, self.accuracy)


def read_corpus(config: NoveltyConfig) -> Sketches:
    """The sketches of every program of `config.corpus`, in an order that is the same in every reading; none without it.

    Files that are no program are passed over.

    Raises:
        CorpusError: there is no such folder, or no .py file in it.
        LemurError: the imported tables cannot be read.
    """
    sketcher = Sketcher(config.shingle_tokens, config.permutations)
    if config.corpus is None:
        return Sketches.of([], [], config.permutations)
    root = _folder(config.corpus)
    if Import.is_at(root):
        return Import.open(root).sketches(sketcher)
    paths = sorted(path for path in root.rglob("*.py") if path.is_file())
    if not paths:
        raise CorpusError(
            f"novelty.corpus: {config.corpus} holds no .py file and nothing that nas-ray lemur import wrote; give a "
            "folder of .py programs, or leave it out"
        )
    found = [parse_completion(path.read_text(encoding="utf-8", errors="replace")) for path in paths]
    programs = [part for program in found if isinstance(program, Program) for part in with_network(program)]
    sketches = [sketcher.sketch(program.normalised) for program in programs]
    return Sketches.of([program.id for program in programs], sketches, config.permutations)


def with_network(program: Program) -> tuple[Program, ...]:
    """The program, and its network alone where that is another program."""
    code = network_part(program.code)
    network = read_program(code) if code != program.code else program
    return (program, network) if isinstance(network, Program) and network.id != program.id else (program,)


def best_exemplars(config: NoveltyConfig, dataset: str, epochs: int) -> list[Exemplar]:
    """The measured programs of `config.corpus` that follow the contract, the best first, each network once.

    A program's accuracy is the best that was measured on `config.corpus_measured_on` (or else `dataset`) after at most
    `epochs` epochs.

    Raises:
        CorpusError: the corpus has no measurements, or none on that data set.
        LemurError: the imported tables cannot be read.
    """
    root = _folder(config.corpus or "")
    wanted = config.corpus_measured_on or dataset
    if not Import.is_at(root):
        raise CorpusError(
            f"novelty.corpus: {config.corpus} is a folder of .py files, which has no measurements to rank programs by; "
            "set novelty.corpus_examples and novelty.corpus_pairs to 0, or give a folder from nas-ray lemur import"
        )
    imported = Import.open(root)
    best = imported.best_accuracies(wanted, epochs)
    if not best:
        raise CorpusError(
            f"novelty.corpus: {config.corpus} has no measurement on {wanted} within {epochs} epochs; it has some on "
            f"{', '.join(imported.datasets()) or 'no data set'}: name one in novelty.corpus_measured_on"
        )
    exemplars: dict[str, Exemplar] = {}
    for program_id, code, accuracy in imported.networks(best):
        known = exemplars.get(program_id)
        if known is None or known.accuracy < accuracy:
            exemplars[program_id] = Exemplar(program_id, code, accuracy)
    return sorted(exemplars.values(), key=lambda one: (-one.accuracy, one.id))


def _folder(name: str) -> Path:
    root = Path(name).expanduser()
    if not root.is_dir():
        raise CorpusError(
            f"novelty.corpus: {name} is not a folder; give a folder of .py programs or one from nas-ray lemur import, "
            "or leave it out"
        )
    return root
