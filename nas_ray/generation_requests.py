"""What a cycle asks the language model: one request for each candidate, all known before the first is sent.

In: the configuration, the facts of the data set, the elites so far. Out: `GenerationRequest`s. They depend on the run's
seed, the cycle, the index and the elites of earlier cycles, so that a cycle which is gone on with asks the same again.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from typing import Any

from nas_ray.candidate import GenerationRequest
from nas_ray.config import RunConfig
from nas_ray.datasets import Dataset
from nas_ray.prompts import Example, TaskFacts, fit_prompt, load_template, shows_examples
from nas_ray.replay import Pair

SHOWN_FROM = 16  # examples are drawn from this many of the best elites: enough to vary, few enough to be good


class RequestWriter:
    """Writes the requests of a run's cycles. `tokenizer` is the model's own, to see that each prompt fits."""

    def __init__(self, config: RunConfig, dataset: Dataset, tokenizer: Any) -> None:
        _, channels, height, width = dataset.train_images.shape
        self.config = config
        self.facts = TaskFacts(dataset.name, channels, height, width, dataset.classes)
        self.tokenizer = tokenizer
        self.template = load_template(config.generation.template, config.model)

    def write(self, cycle: int, elites: Iterable[Pair]) -> list[GenerationRequest]:
        """The requests of `cycle`; examples are drawn from the best of `elites`, other ones for each request.

        Raises PromptError where a prompt leaves no room for an answer.
        """
        shown = self.config.generation.examples if shows_examples(self.template) else 0
        best = sorted(elites, key=lambda pair: (-pair.accuracy, pair.cycle, pair.id))[:SHOWN_FROM] if shown else []
        return [self._write_one(cycle, index, best, shown) for index in range(self.config.candidates_per_cycle)]

    def _write_one(self, cycle: int, index: int, best: list[Pair], shown: int) -> GenerationRequest:
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


def _seed_of(seed: int, cycle: int, index: int) -> int:
    """A sampler seed of 31 bits (the smallest that any engine takes), different for each candidate of a run."""
    digest = hashlib.sha256(f"{seed} {cycle} {index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
