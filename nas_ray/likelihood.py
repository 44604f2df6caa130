"""How likely a language model finds a program, under the prompt that the program answered.

In: a causal language model and prompt-code pairs. Out: for each program the sum of the negative log-likelihoods of its
tokens (code and end-of-text), in nats; with gradients where they are asked for. Prompt tokens are read, never scored.
Symbols: B programs in a batch, T tokens of the longest of them, S scored positions, V words in the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, distributed, nn
from torch.nn import functional

from nas_ray.finetune_report import FinetuneError
from nas_ray.prompts import render_prompt
from nas_ray.replay import Pair

# Prompt and padding included, that go through the model at once where no gradients are kept; a CPU's caches like few.
MEASURED_TOKENS = {"cpu": 1_024, "gpu": 16_384}
UNSCORED = -100


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many data-parallel processes this is; with more than one, torch.distributed is set up."""

    rank: int = 0
    size: int = 1

    def sum_up(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values


@dataclass(frozen=True, slots=True)
class Encoded:
    """One pair as tokens: the generator's own prompt tokens, the program's, end-of-text."""

    id: str
    tokens: tuple[int, ...]
    prompt_tokens: int

    @property
    def target_tokens(self) -> int:
        return len(self.tokens) - self.prompt_tokens


def encode_pairs(pairs: Sequence[Pair], tokenizer: Any, style: str, longest: int) -> tuple[list[Encoded], list[str]]:
    """The pairs as tokens, in order, and the ids of those left out because they are longer than `longest` tokens.

    `style` is "auto", "chat" or "plain", as the generator's. Raises FinetuneError without an end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise FinetuneError("the model's tokenizer has no end-of-text token (eos_token), so no program could ever end")
    encoded, too_long = [], []
    for pair in pairs:
        prompt = list(render_prompt(tokenizer, pair.prompt, style))
        code = tokenizer.encode(pair.answer, add_special_tokens=False)
        tokens = (*prompt, *code, int(tokenizer.eos_token_id))
        if len(tokens) > longest:
            too_long.append(pair.id)
        else:
            encoded.append(Encoded(pair.id, tokens, len(prompt)))
    return encoded, too_long


def program_nll(model: nn.Module, programs: Sequence[Encoded], device: str) -> Tensor:
    """Sum of each program's token negative log-likelihoods, nats, float32 (B,).

    Padding is on the right: in a causal model no real token ever looks at it, so it needs no mask.
    """
    width = max(len(program.tokens) for program in programs)
    first = min(program.prompt_tokens for program in programs) - 1  # the position that predicts the first target token
    tokens = torch.zeros(len(programs), width, dtype=torch.long)  # (B, T)
    targets = torch.full((len(programs), width), UNSCORED)  # (B, T), targets[:, t] is what position t - 1 predicts
    for row, program in enumerate(programs):
        whole = torch.tensor(program.tokens)
        tokens[row, : len(whole)] = whole
        targets[row, program.prompt_tokens : len(whole)] = whole[program.prompt_tokens :]
    options: dict[str, Any] = {"use_cache": False}
    if _keeps_logits(model):  # a vocabulary of 150,000 words times a long prompt is gigabytes of logits nobody reads
        options["logits_to_keep"] = width - first
    logits = model(input_ids=tokens.to(device), **options).logits  # (B, S + 1, V) or (B, T, V)
    logits = logits[:, -(width - first) : -1].float()  # (B, S, V)
    targets = targets[:, first + 1 :].to(device)  # (B, S)
    losses = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.flatten(), ignore_index=UNSCORED, reduction="none"
    )
    return losses.view_as(targets).sum(1)


@torch.inference_mode()
def measure_nll(model: nn.Module, programs: Sequence[Encoded], device: str, world: World) -> tuple[float, ...]:
    """`program_nll` of every program, in order, in eval mode; each process of `world` does its share."""
    was_training = model.training
    model.eval()
    sums = torch.zeros(len(programs), dtype=torch.float64, device=device)
    mine = range(world.rank, len(programs), world.size)
    limit = MEASURED_TOKENS["cpu" if device == "cpu" else "gpu"]
    for places in batch_by_tokens(mine, programs, limit):
        sums[places] = program_nll(model, [programs[place] for place in places], device).double()
    world.sum_up(sums)
    model.train(was_training)
    return tuple(sums.tolist())


def batch_by_tokens(places: Sequence[int], programs: Sequence[Encoded], limit: int) -> Iterator[list[int]]:
    """`places` by falling length, in batches of at most `limit` tokens with padding (one program at least)."""
    batch: list[int] = []
    for place in sorted(places, key=lambda place: (-len(programs[place].tokens), place)):
        if batch and (len(batch) + 1) * len(programs[batch[0]].tokens) > limit:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _keeps_logits(model: nn.Module) -> bool:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model  # PEFT's wrapper takes any argument
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
