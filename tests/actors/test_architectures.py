"""Architectures other than Llama's in both engines: programs with the base weights, and with a trained adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.engines.transformers import TransformersEngine
from nas_ray.config import FinetuneConfig, GenerationConfig, ModelConfig, RunConfig
from nas_ray.lora import train_adapter
from nas_ray.replay import Pair
from tests.actors.test_engines import drain, make_request, write
from tests.tiny_architectures import CONTEXT, TARGETS, save_architecture

PROMPT = "# 1x8x8\n"
PAIRS = [Pair("a", PROMPT, "class Net: pass\n", 0, 0.5)]
BROKEN = "\N{REPLACEMENT CHARACTER}"
WORDS = 16
QUICK = ("phi3", "gpt2", "gpt_neox", "mixtral")


@dataclass(frozen=True)
class Saved:
    """A model's folder, that of an adapter trained on it, and what each of them must write."""

    model: str
    adapter: str
    base_text: str
    adapted_text: str


def save_both(model_type: str, folder: Path) -> Saved:
    """What it must write comes from transformers' own `generate`, word by likeliest word."""
    model = str(save_architecture(model_type, folder / "model"))
    config = FinetuneConfig(rank=8, epochs=2, lr=0.05)
    adapter = train_adapter(model, PAIRS, [], config, "plain", None, folder / "adapter", 0, "cpu").adapter
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    base_text = generate(loaded, model)
    adapted_text = generate(PeftModel.from_pretrained(loaded, adapter), model)
    assert base_text != adapted_text
    return Saved(model, adapter, base_text, adapted_text)


def generate(model: Any, folder: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(PROMPT, return_tensors="pt")
    written = model.eval().generate(**prompt, do_sample=False, max_new_tokens=WORDS)[0, prompt["input_ids"].shape[1] :]
    return str(tokenizer.decode(written, skip_special_tokens=True))


def make_config(model: str, engine: str, top_k: int = 1) -> RunConfig:
    return RunConfig(
        model=ModelConfig.model_validate(
            {"path": model, "engine": engine, "context_tokens": CONTEXT, "concurrent_requests": 4}
        ),
        generation=GenerationConfig(max_tokens=WORDS, top_k=top_k),
        finetune=FinetuneConfig(rank=8),
    )


@pytest.mark.parametrize(
    "model_type", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TARGETS]
)
def test_transformers_engine_writes_what_the_model_and_its_adapter_would(model_type: str, tmp_path: Path) -> None:
    saved = save_both(model_type, tmp_path)
    engine = TransformersEngine(make_config(saved.model, "transformers"))
    assert write(engine, [0], PROMPT)[0].text == saved.base_text
    engine.load_adapter(saved.adapter, 1)
    assert write(engine, [0], PROMPT)[0].text == saved.adapted_text
    engine.load_adapter(None, 0)
    assert {done.text for done in write(engine, [0, 1], PROMPT).values()} == {saved.base_text}


@pytest.mark.parametrize("model_type", ["gpt2", "mamba"])
def test_rows_that_end_leave_the_others_as_they_were(model_type: str, tmp_path: Path) -> None:
    prompts = [PROMPT, PROMPT * 2, PROMPT * 3, "#"]
    config = make_config(str(save_architecture(model_type, tmp_path)), "transformers", top_k=0)
    engine = TransformersEngine(config)
    engine._ends = frozenset(range(0, 250, 9))  # many ends, so that rows end at different times
    alone = [write(engine, [index], prompt)[index].text for index, prompt in enumerate(prompts)]
    for index, prompt in enumerate(prompts):
        engine.add(make_request(index, prompt))
    together = drain(engine)
    assert [together[index].text for index in range(len(prompts))] == alone
    assert len({done.tokens for done in together.values()}) > 1


VLLM_SCRIPT = """
import json, sys
from actors.engines import open_engine
from tests.actors.test_architectures import PROMPT, make_config
from tests.actors.test_engines import write
model, adapter = sys.argv[1:]
engine = open_engine(make_config(model, "vllm"))
texts = [write(engine, [0], PROMPT)[0].text]
engine.load_adapter(adapter, 1)
texts.append(write(engine, [0], PROMPT)[0].text)
engine.close()
print(json.dumps(texts))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("model_type", ["qwen2", "phi3", "opt", "gpt_neox", "starcoder2"])
def test_vllm_writes_what_the_model_and_its_adapter_would(model_type: str, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    saved = save_both(model_type, tmp_path)
    command = [sys.executable, "-c", VLLM_SCRIPT, saved.model, saved.adapter]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    texts = json.loads(result.stdout.splitlines()[-1])  # vLLM keeps back the bytes of an unfinished character
    assert texts == [saved.base_text.rstrip(BROKEN), saved.adapted_text.rstrip(BROKEN)]


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "served"), [("qwen2", True), ("gpt2", False)])
def test_auto_takes_transformers_where_vllm_takes_no_adapters(model_type: str, served: bool, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = save_architecture(model_type, tmp_path)
    script = "import sys; from actors.engines import vllm_refusal; print(vllm_refusal(sys.argv[1]))"
    result = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ("" if served else "vLLM takes no adapters for GPT2LMHeadModel")
