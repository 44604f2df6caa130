"""LoRA targets of the usual architectures: found in models of random weights, trained, saved, loaded back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from nas_ray import seed_model
from nas_ray.config import FinetuneConfig
from nas_ray.config_file import load_config
from nas_ray.finetune_report import FinetuneError
from nas_ray.likelihood import World, encode_pairs, measure_nll
from nas_ray.lora import train_adapter
from nas_ray.lora_targets import choose_targets, find_targets, outline_model, stores_transposed
from nas_ray.replay import Pair
from tests.tiny_architectures import LLAMA_LIKE, TARGETS, save_architecture

WEIGHTS = "adapter_model.safetensors"
PAIRS = [Pair("a", "# 1x8x8\n", "class Net: pass\n", 0, 0.5), Pair("b", "# 1x8x8\n", "x = 1\n", 0, 0.5)]


@pytest.mark.parametrize("model_type", TARGETS)
def test_layers_of_attention_and_mlp_are_found_trained_saved_and_loaded(model_type: str, tmp_path: Path) -> None:
    folder = save_architecture(model_type, tmp_path / "model")
    assert find_targets(outline_model(str(folder))) == TARGETS[model_type]

    config = FinetuneConfig(rank=2, epochs=1, lr=0.01)
    report = train_adapter(str(folder), PAIRS, [], config, "plain", None, tmp_path / "adapter", 0, "cpu")
    assert report.steps == 1
    assert sum(report.nll_after_train) < sum(report.nll_before_train)
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in load_file(tmp_path / "adapter" / WEIGHTS)}
    assert adapted == set(TARGETS[model_type])

    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), report.adapter
    )
    programs, _ = encode_pairs(PAIRS, AutoTokenizer.from_pretrained(folder), "plain", 256)
    assert measure_nll(loaded, programs, "cpu", World()) == pytest.approx(report.nll_after_train, rel=1e-4)


def test_the_seed_model_keeps_the_seven_layers_that_earlier_runs_adapted() -> None:
    assert find_targets(outline_model(str(seed_model.folder()))) == LLAMA_LIKE


def test_an_adapter_of_listed_layers_goes_on_under_auto(tmp_path: Path) -> None:
    folder = save_architecture("qwen2", tmp_path / "model")
    listed = FinetuneConfig(rank=2, epochs=1, targets=LLAMA_LIKE)
    first = train_adapter(str(folder), PAIRS, [], listed, "plain", None, tmp_path / "0001", 0, "cpu")
    found = FinetuneConfig(rank=2, epochs=1)
    second = train_adapter(str(folder), PAIRS, [], found, "plain", first.adapter, tmp_path / "0002", 0, "cpu")
    assert second.nll_before_train == pytest.approx(first.nll_after_train, rel=1e-5)


def test_only_the_listed_layers_are_adapted_where_some_are_listed(tmp_path: Path) -> None:
    model = outline_model(str(save_architecture("gpt2", tmp_path)))
    assert choose_targets(model, ("c_attn", "q_proj")) == ("c_attn",)
    with pytest.raises(FinetuneError, match=r"q_proj.*no such module.*c_attn, c_fc, c_proj"):
        choose_targets(model, ("q_proj",))


def test_one_name_is_a_list_of_one() -> None:
    assert load_config(None, ["finetune.targets=auto"]).finetune.targets == ("auto",)
    assert load_config(None, ["finetune.targets=q_proj"]).finetune.targets == ("q_proj",)
    assert load_config(None, ["finetune.targets=[q_proj, v_proj]"]).finetune.targets == ("q_proj", "v_proj")


def test_a_model_without_blocks_has_no_targets_and_says_so() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_head=1, n_layer=0))
    assert find_targets(model) == ()
    with pytest.raises(FinetuneError, match="no linear layer at all"):
        choose_targets(model, ("auto",))


def test_transposed_weights_are_recognised(tmp_path: Path) -> None:
    for model_type, transposed in (("gpt2", True), ("gpt_neox", False)):
        model = outline_model(str(save_architecture(model_type, tmp_path / model_type)))
        assert stores_transposed(model, find_targets(model)) is transposed
