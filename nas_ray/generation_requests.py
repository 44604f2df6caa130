"""What a cycle asks the language model: one request for each candidate, all known before the first is sent.

In: the configuration, the facts of the data set, the elites so far. Out: `GenerationRequest`s. They depend on the run's
seed, the cycle, the index and the elites of earlier cycles, so that a cycle which is gone on with asks the same again.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any, Protocol

from nas_ray.candidate import GenerationRequest
from nas_ray.config import RunConfig
from nas_ray.corpus import CorpusError, Exemplar, best_exemplars
from nas_ray.datasets import Dataset
from nas_ray.parents import Archived, choose_parents
from nas_ray.prompts import (
    Example,
    Parent,
    TaskFacts,
    build_edit_prompt,
    build_prompt,
    fit_prompt,
    load_template,
    render_prompt,
    shows_examples,
)
from nas_ray.replay import Pair

SHOWN_FROM = 16  # examples are drawn from this many of the best elites: enough to vary, few enough to be good


class Editable(Archived, Protocol):
    """What an edit is asked of; `nas_ray.schema.CandidateRow` has it."""

    @property
    def code(self) -> str: ...


class RequestWriter:
    """Writes the requests of a run's cycles. `tokenizer` is the model's own, to see that each prompt fits."""

    def __init__(self, config: RunConfig, dataset: Dataset, tokenizer: Any) -> None:
        _, channels, height, width = dataset.train_images.shape
        self.config = config
        self.facts = TaskFacts(dataset.name, channels, height, width, dataset.classes)
        self.tokenizer = tokenizer
        self.template = load_template(config.generation.template, config.model)
        self.edit_template = load_template(config.delta.template, config.model, edits=True)
        self.exemplars, self.corpus_pairs = self._open_corpus(dataset.name)

    def write(self, cycle: int, elites: Iterable[Pair], archive: Sequence[Editable] = ()) -> list[GenerationRequest]:
        """The requests of `cycle`.

        Examples are drawn from the best of `elites`, other ones for each request. The share `generation.delta` asks for
        an edit of a program of the `archive` (novel and valid ones), or while that is empty of the corpus's best, all
        alike; without either, and where a parent is too long for the model's context, a whole program is asked for.

        Raises PromptError where a prompt leaves no room for an answer.
        """
        shown = self.config.generation.examples if shows_examples(self.template) else 0
        best = sorted(elites, key=lambda pair: (-pair.accuracy, pair.cycle, pair.id))[:SHOWN_FROM] if shown else []
        # Accuracies of the corpus are another protocol's: its examples take turns with the elites, they do not compete.
        best += [exemplar.pair("") for exemplar in self.exemplars] if shown else []
        count = self.config.candidates_per_cycle
        edited = [index for index in range(count) if self._is_edit(index)] if archive or self.exemplars else []
        seed = _seed_of(self.config.seed, cycle, count)
        drawn: Sequence[Editable] = choose_parents(archive, self.config.delta, len(edited) if archive else 0, seed)
        if not archive and edited:  # nor do they compete as parents; of unknown size and depth, they would share a cell
            drawn = random.Random(f"exemplars {seed}").choices(self.exemplars, k=len(edited))
        parents = dict(zip(edited, drawn, strict=True))
        return [
            (self._write_edit(cycle, index, parents[index]) if index in parents else None)
            or self._write_whole(cycle, index, best, shown)
            for index in range(count)
        ]

    def _is_edit(self, index: int) -> bool:
        """Spreads the edits evenly over a cycle, exactly as many as the share says."""
        full, delta = (Fraction(str(weight)) for weight in (self.config.generation.full, self.config.generation.delta))
        share = delta / (full + delta)  # of the weights as they are written: 0.29 of 100 are 29, not 28 as in binary
        return math.floor((index + 1) * share) > math.floor(index * share)

    def _write_edit(self, cycle: int, index: int, parent: Editable) -> GenerationRequest | None:
        """None where the parent is too long."""
        seed = _seed_of(self.config.seed, cycle, index)
        delta = self.config.delta
        wanted = random.Random(seed).choice(delta.wanted)
        shown = Parent(parent.code, parent.accuracy or 0.0, parent.parameters)
        protocol, budget = self.config.protocol, self.config.budget
        prompt = build_edit_prompt(self.edit_template, self.facts, budget, shown, wanted, delta.format, protocol)
        tokens = len(render_prompt(self.tokenizer, prompt, self.config.model.style))
        if tokens + self.config.generation.max_tokens > self.config.model.context_tokens:
            return None
        return GenerationRequest(cycle, index, prompt, seed, (parent.id,), "delta", parent.code, wanted)

    def _write_whole(self, cycle: int, index: int, best: list[Pair], shown: int) -> GenerationRequest:
        seed = _seed_of(self.config.seed, cycle, index)
        chosen = random.Random(seed).sample(best, min(shown, len(best)))
        chosen.sort(key=lambda pair: -pair.accuracy)
        prompt = fit_prompt(
            self.tokenizer,
            self.template,
            self.facts,
            self.config.budget,
            [Example(pair.code, pair.accuracy) for pair in chosen],
            self.config.protocol,
            style=self.config.model.style,
            max_tokens=self.config.generation.max_tokens,
            context_tokens=self.config.model.context_tokens,
        )
        parents = tuple(pair.id for pair in chosen if pair.code.strip() in prompt)
        return GenerationRequest(cycle, index, prompt, seed, parents)

    def _open_corpus(self, dataset: str) -> tuple[tuple[Exemplar, ...], tuple[Pair, ...]]:
        """The corpus's best programs that fit into the model's context: as examples, and as pairs to be taught.

        Raises CorpusError where some are asked for and none fits, and as `best_exemplars` does.
        """
        novelty = self.config.novelty
        if not (novelty.corpus_examples or novelty.corpus_pairs):
            return (), ()
        ranked = best_exemplars(novelty, dataset, self.config.protocol.epochs)
        exemplars = tuple(islice(filter(self._fits, ranked), novelty.corpus_examples))
        prompt = build_prompt(self.template, self.facts, self.config.budget, (), self.config.protocol)
        room = self.config.model.context_tokens - len(render_prompt(self.tokenizer, prompt, self.config.model.style))
        fitting = (one for one in ranked if len(self.tokenizer.encode(one.code)) < room)  # and the end-of-text token
        pairs = tuple(one.pair(prompt) for one in islice(fitting, novelty.corpus_pairs))
        if len(exemplars) < min(1, novelty.corpus_examples) or len(pairs) < min(1, novelty.corpus_pairs):
            raise CorpusError(
                f"novelty.corpus: none of the {len(ranked)} measured programs of {novelty.corpus} fits into the "
                f"model's context of {self.config.model.context_tokens} tokens: raise model.context_tokens, or set "
                "novelty.corpus_examples and novelty.corpus_pairs to 0"
            )
        return exemplars, pairs

    def _fits(self, exemplar: Exemplar) -> bool:
        """True where a prompt that shows this program leaves room for an answer."""
        shown = [Example(exemplar.code, exemplar.accuracy)]
        prompt = build_prompt(self.template, self.facts, self.config.budget, shown, self.config.protocol)
        tokens = len(render_prompt(self.tokenizer, prompt, self.config.model.style))
        return tokens + self.config.generation.max_tokens <= self.config.model.context_tokens


def _seed_of(seed: int, cycle: int, index: int) -> int:
    """A sampler seed of 31 bits (the smallest that any engine takes), different for each candidate of a run."""
    digest = hashlib.sha256(f"{seed} {cycle} {index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
