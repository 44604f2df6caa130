"""vLLM as the engine: continuous batching, paged cache, and LoRA adapters swapped without a reload, on a GPU or a CPU.

In: a `RunConfig`, in a process made ready by `prepare_process`. Out: an `Engine`. The engine core runs inside this
process and not in a child of its own (VLLM_ENABLE_V1_MULTIPROCESSING=0): a kill of the process then leaves no orphan
behind, an idle engine uses no CPU, and a start takes one import of vLLM instead of two.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

from actors.engines import EngineError, EngineStatistics, check_adapter
from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.config import RunConfig
from nas_ray.model_folder import choose_style, resolve_model
from nas_ray.prompts import check_length, choose_stops, render_prompt

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the LoRA ranks that vLLM can be opened for
_GIB = 1 << 30
_STEP_TOKENS = 2048  # of all requests together in a step on a CPU: vLLM's own default there


class VllmEngine:
    """See `actors.engines.Engine`. vLLM binds the memory and the threads of its process: open one a process."""

    def __init__(self, config: RunConfig, started: float | None = None) -> None:
        """Load the model. `started`: the `time.monotonic()` from which `start_seconds` counts, imports included."""
        started = time.monotonic() if started is None else started
        self._model = config.model
        self._generation = config.generation
        self._folder = resolve_model(config.model.path)
        self._style = choose_style(config.model)
        self._stops = list(choose_stops(config))
        self._rank = config.finetune.rank
        try:
            self._engine = self._open()
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                f"vLLM cannot start with {self._folder!r}: {type(error).__name__}: {error}. "
                "model.engine: transformers runs it without vLLM"
            ) from error
        self._tokenizer = self._engine.get_tokenizer()
        self._running: dict[str, tuple[GenerationRequest, int, float]] = {}  # request, adapter, submitted
        self._added = 0
        self._adapter: Any = None
        self._version = 0
        self._loaded = 0
        self._completions = self._tokens = self._prompt_tokens = 0
        self._busy_seconds = 0.0
        self._start_seconds = time.monotonic() - started

    def _open(self) -> Any:
        # Notes to developers of torch and vLLM that would appear in the log of every run.
        warnings.filterwarnings("ignore", message=".*reduce_op.*", category=FutureWarning)
        logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
        from vllm import EngineArgs, ModelRegistry
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        settings: dict[str, Any] = {"max_lora_rank": next((rank for rank in _RANKS if rank >= self._rank), None)}
        if settings["max_lora_rank"] is None:
            raise EngineError(f"finetune.rank is {self._rank}; vLLM's largest is {_RANKS[-1]}")
        if current_platform.is_cpu():
            # float32: bfloat16 needs AMX, and dies with SIGILL in tiny models on some CPUs (vLLM 0.32).
            # eager: LoRA rules out compilation on a CPU anyway, and without it no warm-up is done.
            settings["dtype"] = "float32" if self._model.dtype == "auto" else self._model.dtype
            settings["enforce_eager"] = True
            # A prompt that is read in two parts takes a number back from its request's random generator, which
            # PyTorch's CPU generator cannot do (vLLM 0.32): so a prompt waits until a step has room for all of it.
            settings["enable_chunked_prefill"] = False
            settings["max_num_batched_tokens"] = max(_STEP_TOKENS, self._model.context_tokens)
            settings["kv_cache_memory_bytes"] = int(self._model.cpu_cache_gib * _GIB)
            _register_architectures(ModelRegistry, self._folder)
        else:
            settings["dtype"] = "bfloat16" if self._model.dtype == "auto" else self._model.dtype
            settings["gpu_memory_utilization"] = self._model.gpu_memory_share
            settings["tensor_parallel_size"] = max(1, int(self._model.gpus))
        arguments = EngineArgs(
            model=self._folder,
            max_model_len=self._model.context_tokens,
            max_num_seqs=self._model.concurrent_requests,
            enable_lora=True,
            max_loras=2,  # the one that running requests still use, and the one just loaded
            enable_prefix_caching=True,  # all programs of a cycle share their prompt; blocks are keyed by adapter
            disable_log_stats=True,
            use_tqdm_on_load=False,
            seed=0,  # every request has its own
            **settings,
        )
        return LLMEngine.from_engine_args(arguments)

    def add(self, request: GenerationRequest) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        tokens = render_prompt(self._tokenizer, request.prompt, self._style)
        check_length(len(tokens), self._generation.max_tokens, self._model.context_tokens)
        sampling = SamplingParams(
            temperature=self._generation.temperature,
            top_p=self._generation.top_p,
            top_k=self._generation.top_k,
            max_tokens=self._generation.max_tokens,
            stop=self._stops,
            seed=request.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._added += 1
        name = str(self._added)
        (rendered,) = self._engine.renderer.render_cmpl([{"prompt_token_ids": tokens}])
        self._engine.add_request(name, rendered, sampling, lora_request=self._adapter)
        self._running[name] = (request, self._version, time.monotonic())

    def step(self) -> list[Completion]:
        if not self._running:
            return []
        started = time.monotonic()
        outputs = self._engine.step()
        now = time.monotonic()
        self._busy_seconds += now - started
        return [self._finish(output, now) for output in outputs if output.finished]

    def _finish(self, output: Any, now: float) -> Completion:
        request, version, submitted = self._running.pop(output.request_id)
        (answer,) = output.outputs
        completion = Completion(
            cycle=request.cycle,
            index=request.index,
            prompt=request.prompt,
            seed=request.seed,
            text=answer.text,
            tokens=len(answer.token_ids),
            prompt_tokens=len(output.prompt_token_ids),
            seconds=now - submitted,
            finish_reason="stop" if answer.finish_reason == "stop" else "length",
            engine="vllm",
            adapter=version,
        )
        self._completions += 1
        self._tokens += completion.tokens
        self._prompt_tokens += completion.prompt_tokens
        return completion

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def load_adapter(self, folder: str | None, version: int) -> None:
        if folder is None:
            self._adapter, self._version = None, version
            return
        from vllm.lora.request import LoRARequest

        check_adapter(folder)
        # A name, an id and a path of its own for every load: cached prefixes are keyed by name and path, so that none
        # written by an earlier adapter is taken for this one's. vLLM drops the least recently used adapter itself.
        self._loaded += 1
        adapter = LoRARequest(f"adapter-{version}-{self._loaded}", self._loaded, folder)
        try:
            self._engine.add_lora(adapter)
        except Exception as error:
            raise EngineError(
                f"vLLM, opened for rank {self._rank}, cannot load {folder!r}: {type(error).__name__}: {error}"
            ) from error
        self._adapter, self._version = adapter, version

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            "vllm", self._version, self._completions, self._tokens, self._prompt_tokens, self._busy_seconds,
            self._start_seconds,
        )  # fmt: skip

    def close(self) -> None:
        self._running.clear()
        self._engine.engine_core.shutdown()


def find_unadaptable(folder: str) -> str:
    """The model's architecture, if it is one of those that vLLM serves without LoRA (GPT-2, Mamba); else "".

    On a GPU it is not looked for: that would import the model's class beside the engine's own inspection of it.
    """
    from transformers import AutoConfig
    from vllm import ModelRegistry
    from vllm.model_executor.models.interfaces import supports_lora
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return ""
    for architecture in AutoConfig.from_pretrained(folder).architectures or ():
        known = ModelRegistry.models.get(architecture)
        if known is not None and not supports_lora(known.load_model_cls()):
            return str(architecture)
    return ""


def _register_architectures(registry: Any, folder: str) -> None:
    """Hand vLLM its own model classes, imported here.

    It would inspect them in a child process to keep CUDA out of the parent, which costs one more import of torch and
    vLLM (10 s on two cores) on the first start on a machine, and which a CPU build has no need of.
    """
    from transformers import AutoConfig

    for architecture in AutoConfig.from_pretrained(folder).architectures or ():
        known = registry.models.get(architecture)
        if known is not None:
            registry.register_model(architecture, known.load_model_cls())
