"""How long a new adapter takes to write its first tokens: hot swap beside a full reload of the engine.

    python -m benchmarks.refresh                         # the seed model, ten swaps and three reloads

The clock of a swap starts when the adapter's folder is written, as at the end of a fine-tune, and stops when the driver
holds the first program of 16 tokens that the new adapter wrote: the time to the first token is a little shorter. A
reload starts a new generator actor with the same adapter and stops at the same point. Both through the real actor.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence

from actors.generator import GeneratorHandle
from nas_ray.candidate import GenerationRequest
from nas_ray.config import GenerationConfig, ModelConfig, RunConfig
from nas_ray.model_folder import resolve_model

PROMPT = "# 1x8x8 -> 10 classes, at most 500000 parameters\n"


def save_random_adapter(model: str, parent: str, seed: int) -> str:
    """Write a LoRA adapter, random and so small that programs keep their length; returns its folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from nas_ray.lora_targets import find_targets

    defaults = RunConfig().finetune
    base = AutoModelForCausalLM.from_pretrained(resolve_model(model), dtype=torch.float32)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=defaults.rank,
        lora_alpha=defaults.alpha,
        target_modules=list(find_targets(base)),
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    folder = tempfile.mkdtemp(prefix=f"adapter-{seed}-", dir=parent)
    tuned = get_peft_model(base, lora)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.mul_(0.02)
    tuned.save_pretrained(folder)
    return folder


def write_first(handle: GeneratorHandle, version: int) -> None:
    """Ask for one program and wait for it."""
    (done,) = handle.stream([GenerationRequest(version, 0, PROMPT, seed=version)])
    if done.adapter != version:
        raise RuntimeError(f"adapter {done.adapter} wrote the program, not {version}")


def print_line(name: str, seconds: Sequence[float]) -> None:
    """One row of the table."""
    middle = statistics.median(seconds)
    print(f"{name:<12} median {middle:8.3f} s, {min(seconds):.3f} to {max(seconds):.3f}, n = {len(seconds)}")


def main() -> None:
    """Swap, reload, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="seed")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--reloads", type=int, default=3)
    given = parser.parse_args()
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    config = RunConfig(
        model=ModelConfig(path=given.model, engine=given.engine), generation=GenerationConfig(max_tokens=16)
    )
    with tempfile.TemporaryDirectory() as parent:
        adapters = [save_random_adapter(given.model, parent, seed) for seed in range(1, given.swaps + 1)]
        handle = GeneratorHandle(config)
        print("engine:", handle.ready().engine)
        write_first(handle, 0)
        swaps, loads = [], []
        for version, folder in enumerate(adapters, 1):
            started = time.perf_counter()
            handle.swap(folder, version)
            write_first(handle, version)
            swaps.append(time.perf_counter() - started)
            handle.synchronise()
            loads.append(handle.statistics().swap_seconds)
        handle.close()
        reloads = []
        for _ in range(given.reloads):
            started = time.perf_counter()
            handle = GeneratorHandle(config)
            handle.swap(adapters[0], 1)
            write_first(handle, 1)
            reloads.append(time.perf_counter() - started)
            handle.close()
    print_line("hot swap", swaps)
    print_line("  of it load", loads)
    print_line("full reload", reloads)
    print(f"reload / swap: {statistics.median(reloads) / statistics.median(swaps):.0f} x")
    ray.shutdown()


if __name__ == "__main__":
    main()
