"""transformers as the engine, for machines where vLLM cannot be installed: a decode loop of our own over PyTorch.

In: a `RunConfig`. Out: an `Engine`. `generate` returns only when the last program of a batch has ended, and draws all
rows from one stream of random numbers. Here a row leaves its batch when it ends, is handed out at once, and is drawn
from its own seed, so that a request gives the same program whatever stands beside it (up to rounding in the logits).
Symbols: B rows of a batch, T positions seen so far, V words in the vocabulary.
"""

from __future__ import annotations

import inspect
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicCache

from actors.engines import EngineError, EngineStatistics, check_adapter
from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.config import GenerationConfig, RunConfig
from nas_ray.model_folder import choose_style, resolve_model
from nas_ray.prompts import check_length, choose_stops, render_prompt


@dataclass(slots=True)
class _Row:
    """One program being written."""

    request: GenerationRequest
    prompt: list[int]
    adapter: str | None  # PEFT's name of it
    version: int
    submitted: float
    draws: random.Random
    written: list[int]


@dataclass(slots=True)
class _Batch:
    """Rows that were started together; a row that ends leaves, none joins later."""

    rows: list[_Row]  # B
    cache: Any
    seen: Tensor  # (B, T) 1 for a token, 0 for left padding
    next_tokens: Tensor  # (B, 1)


class TransformersEngine:
    """See `actors.engines.Engine`."""

    def __init__(self, config: RunConfig, started: float | None = None) -> None:
        """Load the model. `started`: the `time.monotonic()` from which `start_seconds` counts, imports included."""
        started = time.monotonic() if started is None else started
        self._config = config.model
        self._generation = config.generation
        folder = resolve_model(config.model.path)
        self._style = choose_style(config.model)
        self._stops = choose_stops(config)
        self._device = torch.device("cuda" if config.model.gpus > 0 and torch.cuda.is_available() else "cpu")
        dtype = config.model.dtype
        if dtype == "auto":
            dtype = "float32" if self._device.type == "cpu" else "bfloat16"
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        except Exception as error:
            raise EngineError(f"transformers cannot load {folder!r}: {type(error).__name__}: {error}") from error
        self._model.to(self._device).eval()
        self._ends = _end_tokens(self._model, self._tokenizer)
        # State-space models call their cache by another name, and take no mask once they have read the prompt.
        self._recurrent = "cache_params" in inspect.signature(self._model.forward).parameters
        self._waiting: deque[_Row] = deque()
        self._batches: list[_Batch] = []
        self._adapter: str | None = None
        self._version = 0
        self._loaded = 0
        self._active: str | None = None  # what the model's layers are set to right now
        self._completions = self._tokens = self._prompt_tokens = 0
        self._busy_seconds = 0.0
        self._start_seconds = time.monotonic() - started

    def add(self, request: GenerationRequest) -> None:
        prompt = render_prompt(self._tokenizer, request.prompt, self._style)
        check_length(len(prompt), self._generation.max_tokens, self._config.context_tokens)
        draws = random.Random(request.seed)
        self._waiting.append(_Row(request, prompt, self._adapter, self._version, time.monotonic(), draws, []))

    @torch.inference_mode()
    def step(self) -> list[Completion]:
        started = time.monotonic()
        self._admit()
        finished: list[_Row] = []
        for batch in self._batches:
            self._use(batch.rows[0].adapter)
            self._advance(batch)
            finished += self._release(batch)
        self._batches = [batch for batch in self._batches if batch.rows]
        now = time.monotonic()
        self._busy_seconds += now - started
        return [self._finish(row, now) for row in finished]

    def _admit(self) -> None:
        """Start a batch when half of the places are free: one for every row that leaves would be batches of one."""
        free = self._config.concurrent_requests - sum(len(batch.rows) for batch in self._batches)
        if not self._waiting or (self._batches and 2 * free < self._config.concurrent_requests):
            return
        adapter = self._waiting[0].adapter  # rows of a batch share their weights
        rows: list[_Row] = []
        while self._waiting and len(rows) < free and self._waiting[0].adapter == adapter:
            rows.append(self._waiting.popleft())
        if rows:
            longest = max(len(row.prompt) for row in rows)
            padding = [longest - len(row.prompt) for row in rows]
            tokens = [[0] * pad + row.prompt for pad, row in zip(padding, rows, strict=True)]
            seen = [[0] * pad + [1] * len(row.prompt) for pad, row in zip(padding, rows, strict=True)]
            self._batches.append(
                _Batch(
                    rows,
                    DynamicCache(config=self._model.config),
                    torch.tensor(seen, device=self._device),
                    torch.tensor(tokens, device=self._device),
                )
            )

    def _advance(self, batch: _Batch) -> None:
        """One forward pass, of the whole prompt the first time and of one token afterwards, and one draw a row."""
        positions = (batch.seen.cumsum(1) - 1).clamp(min=0)[:, -batch.next_tokens.shape[1] :]
        mask, cache = batch.seen, {"past_key_values": batch.cache}
        if self._recurrent:
            mask, cache = None if batch.rows[0].written else mask, {"cache_params": batch.cache}
        logits = self._model(
            input_ids=batch.next_tokens,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **cache,
        ).logits[:, -1]  # (B, V)
        uniform = torch.tensor([row.draws.random() for row in batch.rows], dtype=torch.float64, device=self._device)
        batch.next_tokens = draw_tokens(logits, uniform, self._generation)[:, None]
        batch.seen = torch.cat([batch.seen, batch.seen.new_ones((len(batch.rows), 1))], dim=1)
        for row, token in zip(batch.rows, batch.next_tokens[:, 0].tolist(), strict=True):
            row.written.append(token)

    def _release(self, batch: _Batch) -> list[_Row]:
        """Take the rows that ended out of the batch and of its cache."""
        limit = self._generation.max_tokens
        ended = [self._stopped(row) or len(row.written) >= limit for row in batch.rows]
        if not any(ended):
            return []
        finished = [row for row, end in zip(batch.rows, ended, strict=True) if end]
        batch.rows = [row for row, end in zip(batch.rows, ended, strict=True) if not end]
        if batch.rows:
            kept = torch.tensor([place for place, end in enumerate(ended) if not end], device=self._device)
            batch.cache.reorder_cache(kept)  # batch_select_indices leaves the states of recurrent layers as they are
            batch.seen, batch.next_tokens = batch.seen[kept], batch.next_tokens[kept]
        return finished

    def _stopped(self, row: _Row) -> bool:
        """True where the program ends with an end token, or with a text that ends a completion."""
        if row.written[-1] in self._ends:
            return True
        if not self._stops:
            return False
        longest = max(len(stop.encode()) for stop in self._stops)  # bytes; a token that is written has one at least
        tail = self._tokenizer.decode(row.written[-2 * longest :])
        return any(stop in tail for stop in self._stops)

    def _finish(self, row: _Row, now: float) -> Completion:
        stopped = self._stopped(row)
        written = row.written[:-1] if row.written[-1] in self._ends else row.written
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        for stop in self._stops:
            text = text.partition(stop)[0]
        completion = Completion(
            cycle=row.request.cycle,
            index=row.request.index,
            prompt=row.request.prompt,
            seed=row.request.seed,
            text=text,
            tokens=len(row.written),
            prompt_tokens=len(row.prompt),
            seconds=now - row.submitted,
            finish_reason="stop" if stopped else "length",
            engine="transformers",
            adapter=row.version,
        )
        self._completions += 1
        self._tokens += completion.tokens
        self._prompt_tokens += completion.prompt_tokens
        return completion

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._batches)

    def load_adapter(self, folder: str | None, version: int) -> None:
        name: str | None = None
        if folder is not None:
            check_adapter(folder)
            name = f"adapter-{version}-{self._loaded + 1}"
            try:
                self._load(folder, name)
            except Exception as error:
                raise EngineError(f"the adapter {folder!r} does not fit: {type(error).__name__}: {error}") from error
            self._loaded += 1
        self._adapter, self._version = name, version

    def _load(self, folder: str, name: str) -> None:
        from peft import PeftModel

        if not isinstance(self._model, PeftModel):
            self._model = PeftModel.from_pretrained(self._model, folder, adapter_name=name)
            self._model.eval()
            self._active = name
            return
        self._model.load_adapter(folder, adapter_name=name)
        self._use(name)
        needed = {row.adapter for row in self._waiting} | {batch.rows[0].adapter for batch in self._batches} | {name}
        for old in [old for old in self._model.peft_config if old not in needed]:
            self._model.delete_adapter(old)
        self._model.eval()

    def _use(self, adapter: str | None) -> None:
        """Set the layers to one adapter, or to the base weights."""
        if adapter == self._active:
            return
        if adapter is None:
            self._model.base_model.disable_adapter_layers()
        else:
            self._model.base_model.enable_adapter_layers()
            self._model.set_adapter(adapter)
        self._active = adapter

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            "transformers", self._version, self._completions, self._tokens, self._prompt_tokens, self._busy_seconds,
            self._start_seconds,
        )  # fmt: skip

    def close(self) -> None:
        self._waiting.clear()
        self._batches.clear()
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def draw_tokens(logits: Tensor, uniform: Tensor, config: GenerationConfig) -> Tensor:
    """One token a row by inversion: the first word at which the cumulated probability passes the row's number.

    Args:
        logits: (B, V).
        uniform: (B,) float64 in [0, 1).
        config: the temperature, then the cut by `top_k`, then the one by `top_p`, in the order of vLLM.

    Returns: (B,) int64 token ids.
    """
    scaled = logits.double() / config.temperature
    words = None
    if config.top_k or config.top_p < 1:
        kept = min(config.top_k or scaled.shape[-1], scaled.shape[-1])
        scaled, words = scaled.topk(kept, dim=-1)  # (B, K), falling
    probabilities = scaled.softmax(-1)
    if config.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= config.top_p, 0.0)
    cumulated = probabilities.cumsum(-1)
    # (B, 1); the last word's sum is the total, and may miss 1 by rounding or by the cut.
    place = torch.searchsorted(cumulated, (uniform * cumulated[:, -1])[:, None], right=True)
    place = place.clamp(max=cumulated.shape[-1] - 1)
    return (place if words is None else words.gather(-1, place))[:, 0]


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a completion: the tokenizer's and those of the model's generation settings."""
    ends = model.generation_config.eos_token_id
    found = ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in [*found, tokenizer.eos_token_id] if token is not None)
