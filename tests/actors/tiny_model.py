"""A language model of random weights and a byte tokenizer, made in a second: what engine tests run on."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|end|>"


def save_model(folder: Path, context: int = 256) -> Path:
    """Two layers, one vocabulary entry a byte; ten of them end a text, so that one has about 26 tokens, by chance."""
    words = [END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=64, max_position_embeddings=context, initializer_range=0.3,
            bos_token_id=None, eos_token_id=list(range(10)), pad_token_id=0,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight.mul_(0.2)
    model.save_pretrained(folder)
    return folder


def save_adapter(model: Path, folder: Path, seed: int, rank: int = 16) -> Path:
    """A LoRA adapter with random, non-zero weights, large enough to change what the model writes."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=4 * rank, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    get_peft_model(LlamaForCausalLM.from_pretrained(model), config).save_pretrained(folder)
    return folder
