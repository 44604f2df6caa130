"""The transformers engine in this process, and the vLLM engine in one of its own (it takes a process over)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from actors.engines import EngineError
from actors.engines.transformers import TransformersEngine, draw_tokens
from nas_ray.candidate import Completion, GenerationRequest
from nas_ray.config import FinetuneConfig, GenerationConfig, ModelConfig, RunConfig
from nas_ray.prompts import PromptError

PROMPT = "# 1x8x8 -> 10 classes, at most 500000 parameters\n"


def make_config(model: Path, **changes: object) -> RunConfig:
    settings = {"engine": "transformers", "context_tokens": 256, "concurrent_requests": 4} | changes
    return RunConfig(
        model=ModelConfig(path=str(model), **settings),  # type: ignore[arg-type]
        generation=GenerationConfig(max_tokens=60),
        finetune=FinetuneConfig(rank=16),
    )


def make_request(index: int, prompt: str = PROMPT) -> GenerationRequest:
    return GenerationRequest(0, index, prompt, seed=1000 + index)


def drain(engine: TransformersEngine) -> dict[int, Completion]:
    done: dict[int, Completion] = {}
    while engine.busy:
        for completion in engine.step():
            assert completion.index not in done
            done[completion.index] = completion
    return done


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TransformersEngine:
    return TransformersEngine(make_config(tiny_model))


def write(engine: TransformersEngine, indices: list[int], prompt: str = PROMPT) -> dict[int, Completion]:
    for index in indices:
        engine.add(make_request(index, prompt))
    return drain(engine)


def test_a_completion_ends_before_a_text_that_ends_it(tiny_model: Path, engine: TransformersEngine) -> None:
    whole = write(engine, list(range(6)))
    stop = next(done.text for done in whole.values() if len(done.text) > 8)[4:6]
    config = make_config(tiny_model)
    generation = config.generation.model_copy(update={"stop": (stop,)})
    stopping = TransformersEngine(config.model_copy(update={"generation": generation}))
    for index, done in write(stopping, list(range(6))).items():
        head, found, _ = whole[index].text.partition(stop)
        assert done.text == head
        assert done.finish_reason == ("stop" if found else whole[index].finish_reason)
        assert done.tokens <= whole[index].tokens


def test_every_request_is_answered_once(engine: TransformersEngine) -> None:
    done = write(engine, list(range(11)))
    assert sorted(done) == list(range(11))
    for index, completion in done.items():
        assert (completion.seed, completion.prompt, completion.engine) == (1000 + index, PROMPT, "transformers")
        assert completion.finish_reason == ("stop" if completion.tokens < 60 else "length")
        assert completion.prompt_tokens == len(PROMPT)  # a byte, a token


def test_rows_are_handed_out_before_their_batch_has_ended(engine: TransformersEngine) -> None:
    for index in range(4):
        engine.add(make_request(index))
    early: list[Completion] = []
    while engine.busy and not early:
        early = engine.step()
    assert engine.busy
    later = drain(engine)
    assert not {done.index for done in early} & set(later)


def test_a_program_does_not_depend_on_its_batch_mates(engine: TransformersEngine) -> None:
    together = write(engine, list(range(6)))
    alone = {index: write(engine, [index])[index].text for index in range(6)}
    assert {index: done.text for index, done in together.items()} == alone


def test_padding_does_not_change_a_program(engine: TransformersEngine) -> None:
    alone = write(engine, [0])[0].text
    engine.add(make_request(0))
    engine.add(make_request(1, PROMPT * 3))
    assert drain(engine)[0].text == alone


def test_different_seeds_write_different_programs(engine: TransformersEngine) -> None:
    assert len({done.text for done in write(engine, list(range(8))).values()}) == 8


def test_greedy_decoding_agrees_with_generate(tiny_model: Path) -> None:
    config = make_config(tiny_model).model_copy(update={"generation": GenerationConfig(max_tokens=40, top_k=1)})
    engine = TransformersEngine(config)
    tokens = engine._tokenizer(PROMPT, return_tensors="pt")
    expected = engine._model.generate(**tokens, do_sample=False, max_new_tokens=40)[0, tokens["input_ids"].shape[1] :]
    done = write(engine, [0])[0]
    assert done.tokens == len(expected)
    written = expected[:-1] if done.finish_reason == "stop" else expected
    assert done.text == engine._tokenizer.decode(written, skip_special_tokens=True)


def test_adapters_change_what_is_written_and_the_base_comes_back(tiny_model: Path, adapters: list[str]) -> None:
    engine = TransformersEngine(make_config(tiny_model))
    texts = []
    for version, folder in enumerate([None, *adapters, adapters[0], None]):
        engine.load_adapter(folder, version if folder else 0)
        done = write(engine, [0])[0]
        texts.append(done.text)
        assert done.adapter == (version if folder else 0)
    assert texts[0] == texts[4]
    assert texts[1] == texts[3]
    assert len(set(texts)) == 3


def test_a_request_keeps_the_adapter_it_was_added_under(tiny_model: Path, adapters: list[str]) -> None:
    engine = TransformersEngine(make_config(tiny_model))
    engine.load_adapter(adapters[0], 1)
    alone = write(engine, [0])[0].text
    engine.add(make_request(0))
    engine.step()
    engine.load_adapter(adapters[1], 2)
    engine.add(make_request(1))
    done = drain(engine)
    assert (done[0].adapter, done[1].adapter) == (1, 2)
    assert done[0].text == alone


def test_a_folder_that_is_no_adapter_is_refused_and_the_old_one_stays(
    tiny_model: Path, adapters: list[str], tmp_path: Path
) -> None:
    engine = TransformersEngine(make_config(tiny_model))
    engine.load_adapter(adapters[0], 1)
    with pytest.raises(EngineError, match=r"adapter_config\.json"):
        engine.load_adapter(str(tmp_path), 2)
    assert write(engine, [0])[0].adapter == 1


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(engine: TransformersEngine) -> None:
    with pytest.raises(PromptError, match=r"294 tokens.*60.*256"):
        engine.add(make_request(0, PROMPT * 6))
    assert not engine.busy


def test_draws_follow_the_distribution_after_both_cuts() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 20).double() * 2
    config = GenerationConfig(temperature=0.7, top_k=8, top_p=0.9)
    # Independent of draw_tokens: probabilities sorted by hand, cut, renormalised.
    probabilities = (logits[0] / 0.7).exp()
    order = probabilities.argsort(descending=True)[:8].tolist()
    total = sum(float(probabilities[word]) for word in order)
    kept, mass = [], 0.0
    for word in order:
        if mass >= 0.9:
            break
        kept.append(word)
        mass += float(probabilities[word]) / total
    draws = 20_000
    uniform = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    drawn = draw_tokens(logits.expand(draws, -1), uniform, config)
    assert set(drawn.tolist()) == set(kept)
    kept_mass = sum(float(probabilities[word]) for word in kept)
    for word in kept:
        share = float((drawn == word).double().mean())
        assert share == pytest.approx(float(probabilities[word]) / kept_mass, abs=1e-3)


VLLM_SCRIPT = """
import json, sys
from actors.engines import EngineError, open_engine
from nas_ray.prompts import PromptError
from tests.actors.test_engines import PROMPT, drain, make_config, make_request, write
model, folders = sys.argv[1], sys.argv[2:]
engine = open_engine(make_config(model, engine="vllm", concurrent_requests=24))
found = {"together": {i: done.text for i, done in write(engine, list(range(6))).items()}}
found["alone"] = {i: write(engine, [i])[i].text for i in range(6)}
found["swaps"] = []
for version, folder in enumerate([None, *folders, folders[0], None]):
    engine.load_adapter(folder, version if folder else 0)
    done = write(engine, [0])[0]
    found["swaps"].append([done.adapter, done.text])
engine.add(make_request(0))
engine.step()
engine.load_adapter(folders[1], 7)
engine.add(make_request(1))
found["kept"] = {i: done.adapter for i, done in drain(engine).items()}
for index in range(24):  # different from the first line on, and together more than vLLM reads in one step
    engine.add(make_request(index, f"# {index}" + PROMPT * 3))
found["crowd"] = sorted(drain(engine))
for name, call in (
    ("adapter", lambda: engine.load_adapter("/nowhere", 9)), ("prompt", lambda: engine.add(make_request(0, PROMPT * 6)))
):
    try:
        call()
    except (EngineError, PromptError) as error:
        found[name] = str(error)
found["statistics"] = [engine.statistics().completions, engine.statistics().tokens]
engine.close()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_vllm_keeps_the_same_promises(tiny_model: Path, adapters: list[str]) -> None:
    pytest.importorskip("vllm")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", VLLM_SCRIPT, str(tiny_model), *adapters]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["together"] == found["alone"]
    assert [version for version, _ in found["swaps"]] == [0, 1, 2, 3, 0]
    texts = [text for _, text in found["swaps"]]
    assert texts[0] == texts[4] == found["alone"]["0"]
    assert texts[1] == texts[3]
    assert len(set(texts)) == 3
    assert found["kept"] == {"0": 0, "1": 7}
    assert "adapter_config.json" in found["adapter"]
    assert "256" in found["prompt"]
    assert found["crowd"] == list(range(24))
    assert found["statistics"][0] == 43
