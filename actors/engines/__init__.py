"""What runs the language model: one small interface and two engines behind it, vLLM and transformers.

In: generation requests and adapter folders. Out: completions as they finish. An engine lives in one process, holds one
model, and works only inside `step`: nothing runs, spins or waits between two calls.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.config import ModelConfig, RunConfig
from nas_ray.model_folder import resolve_model, weight_bytes
from nas_ray.threads import PASSIVE_THREADS

logger = logging.getLogger(__name__)

# Below this the work of one layer is too small to share between threads: the seed model (8 MB) writes a tenth to a
# third fewer tokens a second with two threads than with one (vLLM on two cores).
_ONE_THREAD_BYTES = 64 << 20


class EngineError(RuntimeError):
    """The engine cannot start, or an adapter cannot be loaded; the message says why and what to change."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What one engine has done since it was started."""

    engine: str  # "vllm" | "transformers"
    adapter: int  # version that writes the next programs; 0 = the base model
    completions: int
    tokens: int  # generated
    prompt_tokens: int
    busy_seconds: float  # inside `step`
    start_seconds: float  # imports and model loading

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second of work; 0 before the first."""
        return self.tokens / self.busy_seconds if self.busy_seconds > 0 else 0.0


class Engine(Protocol):
    """A model with a queue. Each request has its own seed, and the adapter that was in use when it was added."""

    def add(self, request: GenerationRequest) -> None:
        """Queue one request. Raises `PromptError` if prompt and completion do not fit into the context."""

    def step(self) -> list[Completion]:
        """Write the next token of every running program; returns those that ended with it, in no special order."""

    @property
    def busy(self) -> bool:
        """True while some request is unfinished."""

    def load_adapter(self, folder: str | None, version: int) -> None:
        """Use the LoRA weights in `folder` (None: the base model) for requests added from now on.

        Raises `EngineError` if the folder is not an adapter that fits; the adapter in use then stays.
        """

    def statistics(self) -> EngineStatistics:
        """Counts since the start."""

    def close(self) -> None:
        """Free the model's memory."""


def prepare_process(config: ModelConfig) -> None:
    """Set what torch, OpenMP, vLLM and the hub's client read from the environment when they are first imported."""
    for name, value in PASSIVE_THREADS.items():  # spinning threads would take the cores that evaluators work on
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # see actors.engines.vllm
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a line about memory binding at each start
    size = weight_bytes(config)
    if size is not None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all is here: do not wait for a network that may not be
    if config.gpus == 0:
        # Ray sets 1 for an actor that reserves no CPU, which is too little for any model but a tiny one.
        few = size is not None and size < _ONE_THREAD_BYTES
        os.environ["OMP_NUM_THREADS"] = "1" if few else str(len(os.sched_getaffinity(0)))


def choose_engine(config: RunConfig) -> str:
    """The engine's name; `engine: auto` is vLLM where it can run the model, else transformers. Trying takes seconds."""
    if config.model.engine != "auto":
        return config.model.engine
    refusal = vllm_refusal(config.model.path)
    if refusal:
        logger.info("%s; using transformers", refusal)
    return "transformers" if refusal else "vllm"


def vllm_refusal(path: str | None) -> str:
    """Why vLLM cannot run the model at `path` with adapters; "" where nothing speaks against it. Imports vLLM.

    None for the path: only whether vLLM can be imported.
    """
    try:
        importlib.import_module("vllm")
    except Exception as error:  # a broken installation fails in many ways, all of which mean: not this one
        return f"vLLM cannot be imported ({type(error).__name__}: {error})"
    from actors.engines.vllm import find_unadaptable

    unadaptable = find_unadaptable(resolve_model(path)) if path else ""
    return f"vLLM takes no adapters for {unadaptable}" if unadaptable else ""


def open_engine(config: RunConfig) -> Engine:
    """Start the engine that `config.model` asks for, in this process.

    Raises:
        EngineError: it cannot start.
        ModelError: the model cannot be found.
    """
    started = time.monotonic()
    prepare_process(config.model)
    if choose_engine(config) == "vllm":
        from actors.engines.vllm import VllmEngine

        return VllmEngine(config, started)
    from actors.engines.transformers import TransformersEngine

    return TransformersEngine(config, started)


def check_adapter(folder: str) -> None:
    """Raise `EngineError` where `folder` does not hold a PEFT adapter."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (Path(folder) / name).is_file():
            raise EngineError(f"{folder!r} is not an adapter: it has no {name}")
