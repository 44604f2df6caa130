"""Is the model of a run fit for it? Each part is looked at by itself, so that all that is wrong is found at once.

In: a configuration. Out: `Finding`s: what was looked at, whether it is as it should be, what was found, what to do. No
weights are loaded. The machine is looked at in `nas_ray.machine`; what needs Ray or a sandbox is in `jobs.doctor`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from nas_ray.config import FinetuneConfig, RunConfig
from nas_ray.datasets import Dataset
from nas_ray.finetune_report import FinetuneError
from nas_ray.generation_requests import RequestWriter
from nas_ray.lora_targets import choose_targets, outline_model
from nas_ray.model_folder import ModelError, check_model, choose_style, resolve_model, unpacked_folder
from nas_ray.prompts import choose_template, render_prompt

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at one part of a run has shown."""

    subject: str
    verdict: Verdict
    found: str
    advice: str = ""  # what to do; "" where there is nothing to be done


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a language model without its weights."""

    outline: PreTrainedModel  # on the meta device
    tokenizer: Any
    parameters: int


def check_language_model(config: RunConfig, unpack: bool = False) -> Iterator[Finding | ModelFacts]:
    """The model's files, tokenizer, and layers for LoRA; hands on what it has read, if it could be read.

    A GGUF file that was never used is not looked into, unless `unpack` allows the minutes that this takes.
    """
    told = False
    try:
        check_model(config.model)
    except ModelError as error:
        yield Finding("model", "problem", str(error))
        told = True
    try:
        folder = resolve_model(config.model.path) if unpack else unpacked_folder(config.model.path)
        if folder is None:
            yield Finding(
                "model", "warning", f"{config.model.path} is not unpacked yet, so neither its tokenizer nor its layers "
                "were looked at", "the first search unpacks it, to two to eight times its size; or run doctor --deep",
            )  # fmt: skip
            return
        if told and not Path(folder).is_dir():
            return  # a hub that was not reached a moment ago
        tokenizer = AutoTokenizer.from_pretrained(folder)
        outline = outline_model(folder)
    except Exception as error:  # a stranger's files: whatever their readers raise means that they cannot be used
        if not told:
            what = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            yield Finding("model", "problem", f"{config.model.path} cannot be read: {what}")
        return
    facts = ModelFacts(outline, tokenizer, outline.num_parameters())
    yield _describe_model(facts, config, folder)
    if tokenizer.eos_token_id is None:
        yield Finding(
            "tokenizer", "problem", "it has no end-of-text token, so no program could ever end",
            "set eos_token in the model's tokenizer_config.json",
        )  # fmt: skip
    else:
        yield Finding("tokenizer", "ok", f"{len(tokenizer):,} words; a text ends with {tokenizer.eos_token}")
    if config.finetune.enabled:
        yield _describe_adapter(outline, config.finetune)
    yield facts


def _describe_model(facts: ModelFacts, config: RunConfig, folder: str) -> Finding:
    settings = facts.outline.config
    stored = str(getattr(settings, "dtype", None) or "unknown").removeprefix("torch.")
    reads = getattr(settings, "max_position_embeddings", None)
    found = (
        f"{config.model.path}: {settings.model_type}, {count(facts.parameters)} parameters, stored as {stored}; "
        f"reads {config.model.context_tokens:,} tokens of {f'{reads:,}' if reads else 'any number'}; "
        f"{choose_style(config.model)} prompts by the template "
        f"{choose_template(config.generation.template, config.model)}"
    )
    if getattr(settings, "quantization_config", None) is not None:
        return Finding("model", "warning", f"{found}; its weights are quantised", "prefer weights that are not")
    return Finding("model", "ok", found)


def _describe_adapter(outline: PreTrainedModel, config: FinetuneConfig) -> Finding:
    try:
        targets = choose_targets(outline, config.targets)
    except FinetuneError as error:
        return Finding("lora", "problem", str(error), "set finetune.targets to some of these, or to auto")
    size = 4 * adapter_parameters(outline, targets, config.rank)
    return Finding("lora", "ok", f"rank {config.rank} on {', '.join(targets)}: {size / (1 << 20):,.1f} MiB an adapter")


def adapter_parameters(outline: nn.Module, targets: tuple[str, ...], rank: int) -> int:
    """Weights of a LoRA adapter: rank x (inputs + outputs) for each adapted layer."""
    return sum(
        rank * sum(module.weight.shape)
        for name, module in outline.named_modules()
        if name.rpartition(".")[2] in targets and isinstance(getattr(module, "weight", None), nn.Parameter)
    )


def check_prompt(config: RunConfig, dataset: Dataset, tokenizer: Any) -> Iterator[Finding]:
    """The first cycle's prompt, which must leave room for a program. Raises PromptError where it does not."""
    request = RequestWriter(config, dataset, tokenizer).write(0, ())[0]
    tokens = len(render_prompt(tokenizer, request.prompt, config.model.style))
    left = config.model.context_tokens - tokens - config.generation.max_tokens
    yield Finding(
        "prompt", "ok", f"{tokens:,} tokens, {config.generation.max_tokens:,} for the program, {left:,} left for "
        "earlier programs",
    )  # fmt: skip


def describe_dataset(dataset: Dataset) -> Finding:
    """What a data set that was found holds."""
    _, channels, height, width = dataset.train_images.shape
    parts = (dataset.train_labels, dataset.validation_labels, dataset.test_labels)
    training, validation, test = (f"{len(part):,}" for part in parts)
    found = (
        f"{dataset.name}: {channels} x {height} x {width}, {dataset.classes} classes; images to train on: {training}, "
        f"to validate on: {validation}, to test on: {test}"
    )
    return Finding("data set", "ok", found)


def count(number: int) -> str:
    """A number of parameters for a person."""
    return f"{number / 1e9:,.1f} billion" if number >= 1e9 else f"{number / 1e6:,.1f} million"
