"""Properties of the model that the package carries."""

import random

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from nas_ray.grammar import prompt, sample_document
from nas_ray.language_model import sample
from nas_ray.seed_model import folder
from nas_ray.seed_model.measure import judge_all, summary

LINEAR = """
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.head = nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], out_shape[0])

    def forward(self, x):
        return self.head(x.flatten(1))
"""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(folder())


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder(), dtype=torch.float32)


def test_weights_are_small_enough_to_be_carried() -> None:
    assert (folder() / "model.safetensors").stat().st_size <= 8 * 2**20


def test_shape_is_one_that_vllm_can_serve_on_a_cpu(model: LlamaForCausalLM) -> None:
    assert model.config.model_type == "llama"
    assert model.config.head_dim == 64
    assert model.config.max_position_embeddings == 512
    assert 1_000_000 <= sum(one.numel() for one in model.parameters()) <= 4_000_000


def test_programs_take_few_tokens_and_survive_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(11)
    lengths = []
    for _ in range(100):
        _, program = sample_document(rng)
        ids = tokenizer(program)["input_ids"]
        assert tokenizer.decode(ids) == program
        lengths.append(len(ids))
    assert sum(lengths) / len(lengths) <= 100


def test_samples_differ_and_about_half_of_them_run(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    programs = sample(model, tokenizer, prompt((1, 8, 8), 10, 500_000), 24, seed=0)
    assert len(set(programs)) >= 22
    assert all("class Net(nn.Module):" in one for one in programs)
    outcomes = [one.outcome for one in judge_all(programs)]
    assert 5 <= outcomes.count("valid") <= 20


def test_lora_reaches_every_projection(model: LlamaForCausalLM) -> None:
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM"))
    adapters = [name for name, one in adapted.named_parameters() if one.requires_grad]
    assert len(adapters) == 2 * len(names) * model.config.num_hidden_layers
    adapted.unload()


def test_a_linear_network_is_judged_valid_and_good() -> None:
    verdict, again = judge_all([LINEAR, LINEAR])
    assert verdict.outcome == "valid"
    assert verdict.parameters == 650
    assert verdict.accuracy is not None
    assert verdict.accuracy > 0.8
    assert again == verdict


def test_a_broken_network_is_judged_by_where_it_breaks() -> None:
    outcomes = {
        ("return", "return ("): "syntax_error",
        ("class Net", "class Other"): "contract_error",
        ("nn.Linear(in_shape", "nn.Linear(2 * in_shape"): "shape_error",
        ("out_shape[0])", "7)"): "invalid_output",
    }
    verdicts = judge_all([LINEAR.replace(old, new, 1) for old, new in outcomes])
    assert [one.outcome for one in verdicts] == list(outcomes.values())
    assert all(one.accuracy is None for one in verdicts)


def test_summary_counts_add_up() -> None:
    programs = [LINEAR, LINEAR, "class Net(:"]
    result = summary(programs, judge_all(programs))
    assert result["n"] == 3
    assert result["outcomes"] == {"valid": 2, "syntax_error": 1}
    assert result["valid_share"] == pytest.approx(2 / 3, abs=1e-3)
