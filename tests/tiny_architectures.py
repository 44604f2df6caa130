"""One model of random weights for each usual architecture, all of two small blocks: no file is fetched for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

END = "<|end|>"
CONTEXT = 256
LLAMA_LIKE = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
NEOX_LIKE = ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value")
GPT2_LIKE = ("c_attn", "c_fc", "c_proj")

# model_type -> the layers that LoRA adapts
TARGETS: dict[str, tuple[str, ...]] = {
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "gemma": LLAMA_LIKE,
    "gemma2": LLAMA_LIKE,
    "gemma3_text": LLAMA_LIKE,
    "stablelm": LLAMA_LIKE,
    "mixtral": ("k_proj", "o_proj", "q_proj", "v_proj"),
    "qwen2_moe": ("k_proj", "o_proj", "q_proj", "v_proj"),
    "phi": ("dense", "fc1", "fc2", "k_proj", "q_proj", "v_proj"),
    "phi3": ("down_proj", "gate_up_proj", "o_proj", "qkv_proj"),
    "gpt2": GPT2_LIKE,
    "gpt_bigcode": GPT2_LIKE,
    "gpt_neox": NEOX_LIKE,
    "falcon": NEOX_LIKE,
    "bloom": NEOX_LIKE,
    "starcoder2": ("c_fc", "c_proj", "k_proj", "o_proj", "q_proj", "v_proj"),
    "opt": ("fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"),
    "deepseek_v3": ("kv_a_proj_with_mqa", "o_proj", "q_a_proj", "q_b_proj"),
    "mamba": ("dt_proj", "in_proj", "x_proj"),
}
_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "initializer_range": 0.2,  # so large that a model prefers one word clearly, and another one at each place
}
_OWN_SIZES: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32},
    "gemma3_text": {"head_dim": 32},
    "qwen3": {"head_dim": 32},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 32, "init_std": 0.2},
    "deepseek_v3": {
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32,
        "first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "moe_intermediate_size": 32,
    },
    "mamba": {"state_size": 8},
}  # fmt: skip


def save_tokenizer(folder: Path) -> int:
    """A tokenizer of one token a byte and an end; returns the number of its words."""
    words = [END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)
    return len(words)


def save_architecture(model_type: str, folder: Path) -> Path:
    """A whole model folder of that architecture."""
    words = save_tokenizer(folder)
    sizes = {**_SIZES, **_OWN_SIZES.get(model_type, {}), "vocab_size": words}
    config = AutoConfig.for_model(model_type, **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
