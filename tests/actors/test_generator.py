"""The generator actor and its handle on a real Ray cluster, with the real vLLM where it is installed."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.engines import EngineError
from actors.generator import GeneratorError, GeneratorHandle
from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.config import GenerationConfig, ModelConfig, ResourceConfig, RunConfig
from nas_ray.model_folder import ModelError
from nas_ray.prompts import PromptError

PROMPT = "# 1x8x8 -> 10 classes, at most 500000 parameters\n"
ENGINE = "vllm" if importlib.util.find_spec("vllm") else "transformers"


def make_config(model: Path | str, engine: str = ENGINE, gpus: float = 0.0) -> RunConfig:
    return RunConfig(
        model=ModelConfig(
            path=str(model), engine=engine, context_tokens=256, concurrent_requests=4, cpu_cache_gib=0.25, gpus=gpus
        ),
        generation=GenerationConfig(max_tokens=60),
        resources=ResourceConfig(place_seconds=3),
    )


def make_requests(count: int, cycle: int = 0) -> list[GenerationRequest]:
    return [GenerationRequest(cycle, index, PROMPT, seed=1000 + index) for index in range(count)]


def collect(handle: GeneratorHandle, count: int) -> list[Completion]:
    done: list[Completion] = []
    while len(done) < count:
        done += handle.poll(timeout=1.0)
    return done


def texts(completions: list[Completion]) -> dict[int, str]:
    """Texts by index; fails where one was delivered twice."""
    assert len({(done.cycle, done.index) for done in completions}) == len(completions)
    return {done.index: done.text for done in completions}


@pytest.fixture(scope="module")
def handle(ray_session: None, tiny_model: Path) -> Iterator[GeneratorHandle]:
    handle = GeneratorHandle(make_config(tiny_model))
    handle.ready()
    yield handle
    handle.close()


def test_completions_arrive_while_others_are_being_written(handle: GeneratorHandle) -> None:
    before = handle.statistics()
    handle.add(make_requests(12))
    first = collect(handle, 1)
    assert handle.unfinished == 12 - len(first) > 0
    done = first + collect(handle, 12 - len(first))
    assert sorted(texts(done)) == list(range(12))
    assert handle.poll(timeout=1.0) == []
    after = handle.statistics()
    assert after.completions - before.completions == 12
    assert after.tokens - before.tokens == sum(completion.tokens for completion in done)
    assert after.tokens_per_second > 0
    assert after.engine == ENGINE


def test_the_same_seeds_write_the_same_programs(handle: GeneratorHandle) -> None:
    together = texts(list(handle.stream(make_requests(8))))
    one_by_one = [done for request in make_requests(8) for done in handle.stream([request])]
    assert texts(one_by_one) == together


def test_a_request_that_is_being_written_is_not_taken_twice(handle: GeneratorHandle) -> None:
    with pytest.raises(ValueError, match="cycle 0, index 0"):
        list(handle.stream([*make_requests(1), *make_requests(1)]))
    assert len(collect(handle, 1)) == 1


def test_generator_killed_while_idle_is_replaced_by_the_next_request(ray_session: None, tiny_model: Path) -> None:
    handle = GeneratorHandle(make_config(tiny_model, "transformers"))
    expected = texts(list(handle.stream(make_requests(4))))
    pid = handle.pid
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    handle.swap(None, 0)
    assert texts(list(handle.stream(make_requests(4)))) == expected
    assert handle.poll() == []
    assert handle.pid != pid

    handle.add([GenerationRequest(0, 0, PROMPT * 6, seed=0)])
    with pytest.raises(PromptError, match=r"294 tokens.*60.*256"):  # prompt, completion, context
        collect(handle, 1)
    handle.close()


def test_a_missing_model_is_an_error_before_any_actor_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        GeneratorHandle(make_config(tmp_path / "no-such-model"))


def test_a_model_that_cannot_be_loaded_is_an_error_that_says_why(ray_session: None, tmp_path: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    handle = GeneratorHandle(make_config(tmp_path, "transformers"))
    with pytest.raises(EngineError, match="cannot load"):
        handle.ready()
    handle.close()


def test_a_cluster_without_room_is_an_error_that_says_what_is_missing(ray_session: None, tiny_model: Path) -> None:
    handle = GeneratorHandle(make_config(tiny_model, "transformers", gpus=1))
    with pytest.raises(GeneratorError, match=r"1 GPU.*0 GPU"):
        handle.ready()
    handle.close()


def test_killed_generator_goes_on_with_its_adapter_and_loses_nothing(
    handle: GeneratorHandle, adapters: list[str]
) -> None:
    """One test, in the order of a run: write, swap, write, kill in the middle, write on, swap back."""
    base = texts(list(handle.stream(make_requests(12))))
    handle.swap(adapters[0], 1)
    handle.synchronise()
    expected = texts(list(handle.stream(make_requests(12))))
    assert expected != base

    handle.add(make_requests(12))
    done = collect(handle, 1)
    pid = handle.pid
    os.kill(pid, signal.SIGKILL)
    done += collect(handle, 12 - len(done))
    assert texts(done) == expected
    assert {completion.adapter for completion in done} == {1}
    assert handle.pid != pid
    assert handle.statistics().restarts == 1

    handle.swap(None, 0)
    assert texts(list(handle.stream(make_requests(12)))) == base


def test_an_adapter_that_cannot_be_loaded_is_an_error(handle: GeneratorHandle, tmp_path: Path) -> None:
    handle.swap(str(tmp_path), 3)
    with pytest.raises(EngineError, match=r"adapter_config\.json"):
        handle.synchronise()
