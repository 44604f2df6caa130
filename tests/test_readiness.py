"""What the doctor looks at without Ray: each part is judged by itself, and what is wrong names the numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nas_ray import seed_model
from nas_ray.config import RunConfig
from nas_ray.config_file import load_config
from nas_ray.datasets import load_dataset
from nas_ray.lora import train_adapter
from nas_ray.lora_targets import choose_targets, outline_model
from nas_ray.prompts import PromptError
from nas_ray.readiness import (
    Finding,
    ModelFacts,
    adapter_parameters,
    check_language_model,
    check_prompt,
    describe_dataset,
)
from nas_ray.replay import Pair
from tests.tiny_architectures import save_architecture


def verdicts(config: RunConfig) -> dict[str, str]:
    found = check_language_model(config)
    return {finding.subject: finding.verdict for finding in found if isinstance(finding, Finding)}


def config_of(*changes: str) -> RunConfig:
    return load_config(None, changes)


def facts_of(config: RunConfig) -> ModelFacts:
    return next(found for found in check_language_model(config) if isinstance(found, ModelFacts))


def test_the_seed_model_is_fit_to_run() -> None:
    assert verdicts(RunConfig()) == {"model": "ok", "tokenizer": "ok", "lora": "ok"}
    assert facts_of(RunConfig()).parameters == 2_068_032


def test_all_that_is_wrong_with_a_model_is_found_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(seed_model.folder(), folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = config_of(f"model.path={folder}", "model.context_tokens=600", "finetune.targets=c_attn")
    found = [finding for finding in check_language_model(config) if isinstance(finding, Finding)]
    problems = {finding.subject: finding.found for finding in found if finding.verdict == "problem"}
    assert set(problems) == {"model", "tokenizer", "lora"}
    assert "600" in problems["model"]
    assert "c_attn" in problems["lora"]


def test_a_model_that_is_not_there_is_one_problem() -> None:
    assert verdicts(config_of("model.path=/nowhere/model")) == {"model": "problem"}


def test_a_gguf_file_is_not_unpacked_for_a_look(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert verdicts(config_of(f"model.path={tmp_path / 'small.gguf'}")) == {"model": "warning"}
    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf"]


def test_an_adapters_size_is_known_before_it_is_trained(tmp_path: Path) -> None:
    folder = str(save_architecture("gpt2", tmp_path / "model"))
    outline = outline_model(folder)
    config = RunConfig().finetune.model_copy(update={"epochs": 1})
    pairs = [Pair("a", "# 1x8x8\n", "x = 1\n", 0, 0.5)]
    train_adapter(folder, pairs, [], config, "plain", None, tmp_path / "adapter", 0, "cpu")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    expected = sum(weight.numel() for weight in weights.values())
    assert adapter_parameters(outline, choose_targets(outline, config.targets), config.rank) == expected


def test_a_prompt_that_leaves_no_room_is_told_with_the_numbers() -> None:
    dataset, facts = load_dataset(RunConfig().dataset), facts_of(RunConfig())
    (finding,) = check_prompt(RunConfig(), dataset, facts.tokenizer)
    assert finding.verdict == "ok"
    with pytest.raises(PromptError, match="512"):
        list(
            check_prompt(
                config_of("generation.max_tokens=511", "generation.template=instruct"), dataset, facts.tokenizer
            )
        )
    assert "1 x 8 x 8, 10 classes" in describe_dataset(dataset).found
