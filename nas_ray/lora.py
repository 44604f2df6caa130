"""A LoRA adapter that makes the elites likelier: maximum-likelihood training on prompt-code pairs, with PEFT.

In: a model folder, pairs to train on, pairs held out, a `FinetuneConfig`, perhaps the adapter that wrote the pairs.
Out: a new adapter folder that PEFT and vLLM load, and a `FinetuneReport`: each program's likelihood before and after.

Plain PyTorch: one process, or several that share each batch (`World`) and come to the same weights as one would.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from nas_ray.config import FinetuneConfig
from nas_ray.finetune_report import FinetuneError, FinetuneReport
from nas_ray.likelihood import Encoded, World, batch_by_tokens, encode_pairs, measure_nll, program_nll
from nas_ray.lora_targets import choose_targets, stores_transposed
from nas_ray.replay import Pair

CLIP = 1.0  # largest norm of the gradient of the mean loss per token
WARMUP = 0.1  # share of all steps in which the learning rate rises from 0; constant from there on
POOL = 8  # batches that are sorted by length together: little padding, and still another mix each epoch
STEP_TOKENS = 16_384  # with padding, that one process holds activations for; a larger share goes through in parts
CHECKPOINTED_PARAMETERS = 1_000_000_000  # from here on activations are recomputed in the backward pass
PROGRESS_FILE = "progress.pt"


class EpochSaver(Protocol):
    """Told after each epoch; `save(folder)` writes all that `train_adapter(resume=folder)` needs to go on."""

    def __call__(self, epochs_done: int, loss: float, save: Callable[[Path], None]) -> None: ...


@dataclass(slots=True)
class Progress:
    """What a resumed fine-tune takes up, beside the adapter and the optimiser."""

    epochs_done: int
    losses: list[float]
    before_train: tuple[float, ...]
    before_held_out: tuple[float, ...]
    resumed: list[int]


def train_adapter(
    model_folder: str,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    config: FinetuneConfig,
    style: str,
    previous: str | None,
    out: Path,
    seed: int,
    device: str,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
    on_epoch: EpochSaver | None = None,
    resume: Path | None = None,
    world: World | None = None,
) -> FinetuneReport:
    """Train a LoRA adapter on `pairs` and write it to the new folder `out` (rank 0 does).

    Each step's loss is the sum over the batch's completion tokens divided by the tokens of an average batch. A
    program's weight therefore does not depend on its length or on its batch mates (theory: R1, "Token-mean loss").

    Args:
        style: "auto", "chat" or "plain": how the generator rendered its prompts.
        previous: folder of the adapter that wrote the newest pairs; None for the base model.
        device: "cpu" (float32) or "cuda", "cuda:N" (bfloat16; the adapter itself is float32 on both).
        on_step: told (steps done, steps in all, mean loss per token of this process's share) after each step.
        resume: a folder that `on_epoch`'s `save` wrote; training goes on after that epoch.
        world: this process among its equals; every one gets the same arguments but for `world` and `device`.

    Raises FinetuneError if `out` exists, no module carries a target's name, `previous` has another shape, no pair fits
    the model's context, or the loss stops being finite.
    """
    begun = time.perf_counter()
    world = world or World()
    if out.exists():
        raise FinetuneError(f"adapter folder {out} exists already, and an adapter is never overwritten; name another")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = _load_model(model_folder, config, seed, device)
    longest = getattr(model.config, "max_position_embeddings", None) or 2**31
    training, too_long = encode_pairs(pairs, tokenizer, style, longest)
    unseen, too_long_unseen = encode_pairs(held_out, tokenizer, style, longest)
    if not training:
        raise FinetuneError(f"none of the {len(pairs)} pairs to train on fits the model's context of {longest} tokens")

    measuring = time.perf_counter()
    if resume:
        progress = Progress(**torch.load(resume / PROGRESS_FILE, weights_only=True)["progress"])
        progress.resumed.append(progress.epochs_done)
        _load_adapter(model, resume, device)
    else:
        fresh = {name: value.clone() for name, value in model.state_dict().items() if "lora_" in name}
        if previous:
            _load_adapter(model, Path(previous), device)
        before = (measure_nll(model, training, device, world), measure_nll(model, unseen, device, world))
        progress = Progress(0, [], *before, [])
        if config.start == "fresh":
            model.load_state_dict(fresh, strict=False)
    measure_seconds = time.perf_counter() - measuring

    training_from = time.perf_counter()
    steps = _train(model, training, config, seed, device, progress, resume, world, on_step, on_epoch)
    train_seconds = time.perf_counter() - training_from

    measuring = time.perf_counter()
    after = (measure_nll(model, training, device, world), measure_nll(model, unseen, device, world))
    measure_seconds += time.perf_counter() - measuring
    report = FinetuneReport(
        adapter=str(out),
        start=config.start,
        previous=previous or "",
        training_ids=tuple(program.id for program in training),
        held_out_ids=tuple(program.id for program in unseen),
        too_long_ids=(*too_long, *too_long_unseen),
        nll_before_train=progress.before_train,
        nll_after_train=after[0],
        nll_before_held_out=progress.before_held_out,
        nll_after_held_out=after[1],
        losses=tuple(progress.losses),
        resumed=tuple(progress.resumed),
        steps=steps,
        tokens=sum(program.target_tokens for program in training),
        workers=world.size,
        device=device,
        train_seconds=train_seconds,
        measure_seconds=measure_seconds,
        seconds=time.perf_counter() - begun,
    )
    if world.rank == 0:
        unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        _save_adapter(model, unfinished)
        report.save(unfinished)
        unfinished.rename(out)
    return report


def _load_model(folder: str, config: FinetuneConfig, seed: int, device: str) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    targets = choose_targets(base, config.targets)
    if base.num_parameters() >= CHECKPOINTED_PARAMETERS:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(seed)  # the adapter's first weights: the same in every process
    return get_peft_model(
        base.to(device),
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(targets),
            fan_in_fan_out=stores_transposed(base, targets),
            task_type="CAUSAL_LM",
            base_model_name_or_path=folder,
        ),
    )


def _load_adapter(model: PeftModel, folder: Path, device: str) -> None:
    try:
        weights = load_file(folder / "adapter_model.safetensors", device=device)
        answer = set_peft_model_state_dict(model, weights)
    except FileNotFoundError as error:
        raise FinetuneError(f"{folder} is not an adapter's folder: it has no adapter_model.safetensors") from error
    except RuntimeError as error:
        raise FinetuneError(
            f"the adapter {folder} has another rank than the configuration asks for; "
            f"set finetune.rank as it was, or finetune.start to fresh with no adapter before it ({error})"
        ) from error
    missing = [name for name in answer.missing_keys if "lora_" in name]
    if missing or answer.unexpected_keys:
        raise FinetuneError(
            f"the adapter {folder} adapts other modules than finetune.targets says "
            f"(first difference: {[*missing, *answer.unexpected_keys][0]}); set finetune.targets as it was"
        )


def _save_adapter(model: PeftModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a process with the same id that died here
    folder.mkdir(parents=True)
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card template: nothing is filled in


def _train(
    model: PeftModel,
    programs: Sequence[Encoded],
    config: FinetuneConfig,
    seed: int,
    device: str,
    progress: Progress,
    resume: Path | None,
    world: World,
    on_step: Callable[[int, int, float], None] | None,
    on_epoch: EpochSaver | None,
) -> int:
    """Train in place and add to `progress`; returns the optimiser steps from the first epoch on."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
    if resume:
        optimiser.load_state_dict(torch.load(resume / PROGRESS_FILE, weights_only=True)["optimiser"])
    elif world.size > 1:
        for weight in weights:  # the same already, unless a device rounds otherwise
            distributed.broadcast(weight.data, 0)
    tokens = sum(program.target_tokens for program in programs)
    batch_tokens = tokens * min(config.batch_size, len(programs)) / len(programs)  # of an average batch
    steps_an_epoch = -(-len(programs) // config.batch_size)
    steps = steps_an_epoch * config.epochs
    done = steps_an_epoch * progress.epochs_done
    model.train()
    for epoch in range(progress.epochs_done, config.epochs):
        torch.manual_seed(random.Random(f"dropout {seed} {epoch} {world.rank}").getrandbits(63))
        total = torch.zeros((), dtype=torch.float64, device=device)
        for batch in _shuffled_batches(programs, config.batch_size, random.Random(f"order {seed} {epoch}")):
            mine = torch.zeros((), dtype=torch.float64, device=device)
            for places in batch_by_tokens(batch[world.rank :: world.size], programs, STEP_TOKENS):
                nll = program_nll(model, [programs[place] for place in places], device).sum()
                torch.autograd.backward(nll / batch_tokens)
                mine += nll.detach()
            _sum_gradients(weights, world)
            norm = nn.utils.clip_grad_norm_(weights, CLIP)
            if not torch.isfinite(norm):
                raise FinetuneError(
                    f"the loss is not finite from step {done + 1} of {steps} on; lower finetune.lr (it is {config.lr})"
                )
            for group in optimiser.param_groups:
                group["lr"] = config.lr * min(1.0, (done + 1) / max(1.0, WARMUP * steps))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            total += mine
            done += 1
            if on_step:
                share = sum(programs[place].target_tokens for place in batch[world.rank :: world.size])
                on_step(done, steps, mine.item() / max(share, 1))
        progress.losses.append(world.sum_up(total).item() / tokens)
        progress.epochs_done = epoch + 1
        if on_epoch:
            on_epoch(epoch + 1, progress.losses[-1], lambda folder: _save_progress(folder, model, optimiser, progress))
    return steps


def _sum_gradients(weights: Sequence[nn.Parameter], world: World) -> None:
    """Add up the processes' gradients in one message: adapters are small, and a process may have no program at all."""
    if world.size == 1:
        return
    gradients: list[Tensor] = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = world.sum_up(torch.cat([gradient.flatten() for gradient in gradients]))
    for weight, part in zip(weights, torch.split(flat, [weight.numel() for weight in weights]), strict=True):
        weight.grad = part.view_as(weight)


def _shuffled_batches(programs: Sequence[Encoded], size: int, order: random.Random) -> list[list[int]]:
    """Every place once, in batches of like lengths, in random order; the one smaller batch, if any, among them."""
    places = list(range(len(programs)))
    order.shuffle(places)
    batches = []
    for start in range(0, len(places), size * POOL):
        pool = sorted(places[start : start + size * POOL], key=lambda place: len(programs[place].tokens))
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    order.shuffle(batches)
    return batches


def _save_progress(folder: Path, model: PeftModel, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    values: Mapping[str, Any] = {field.name: getattr(progress, field.name) for field in fields(progress)}
    _save_adapter(model, folder)
    torch.save({"progress": dict(values), "optimiser": optimiser.state_dict()}, folder / PROGRESS_FILE)
