"""Which layers of a language model LoRA adapts, found from the model itself and not from a table of architectures.

In: a causal language model, with or without weights. Out: the last names of modules, as PEFT's `target_modules` takes
them: ("c_attn", "c_fc", "c_proj") of GPT-2, ("down_proj", "gate_proj", ..., "v_proj") of Llama.

PEFT's own `all-linear` stores the full path of each layer, and takes routers and layers outside the blocks too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from nas_ray.finetune_report import FinetuneError

AUTO = ("auto",)
_IN_BLOCK = re.compile(r"\.\d+\.")  # the blocks of a model are numbered: model.layers.0.self_attn.q_proj

# A router decides by small differences, and vLLM has kernels of its own for it.
_ROUTERS = {"gate", "router", "shared_expert_gate"}
# vLLM takes the latent attention of DeepSeek apart when it loads the weights, and would not see what LoRA adds here.
_LATENT = {"kv_b_proj"}
# PEFT takes these names in a mixture of experts for the stacked weights of the experts, not for linear layers.
_EXPERTS = {"gate_proj", "up_proj", "down_proj"}
# PEFT refuses it: the kernels of Mamba read the weight itself and pass the adapter by.
_MAMBA = {"out_proj"}
_MAMBA_MODELS = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"}


def find_targets(model: PreTrainedModel) -> tuple[str, ...]:
    """The linear layers of attention and MLP, by their last names, in alphabetical order; empty where there are none.

    These are all linear layers of the numbered blocks but routers and what PEFT or vLLM cannot adapt; of a mixture of
    experts, attention alone. The output head, and projections before and behind the blocks, are left alone.
    """
    left_out = _ROUTERS | _LATENT
    if any(name.endswith(".experts") for name, _ in model.named_modules()):
        left_out |= _EXPERTS
    if model.config.model_type in _MAMBA_MODELS:
        left_out |= _MAMBA
    inside = {name.rpartition(".")[2] for name in _linear_layers(model) if _IN_BLOCK.search(name)}
    return tuple(sorted(inside - left_out))


def choose_targets(model: PreTrainedModel, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The layers that `finetune.targets` stands for in this model: found by `find_targets`, or those of them it has.

    Raises:
        FinetuneError: the model has none of them; the message lists what it has.
    """
    names = {name.rpartition(".")[2] for name in _linear_layers(model)}
    found = find_targets(model) if wanted == AUTO else tuple(sorted(names & set(wanted)))
    if not found:
        raise FinetuneError(
            f"finetune.targets {', '.join(wanted)}: the model {model.name_or_path or model.config.model_type} has no "
            f"such module; it has {', '.join(sorted(names)) or 'no linear layer at all'}"
        )
    return found


def outline_model(folder: str) -> PreTrainedModel:
    """The model of a folder or hub id without its weights: modules and shapes on the meta device, in about a second."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def stores_transposed(model: nn.Module, targets: Sequence[str]) -> bool:
    """True where the targets are GPT-2's `Conv1D`, whose weights are (in, out): PEFT's `fan_in_fan_out`."""
    return any(
        isinstance(module, Conv1D) and name.rpartition(".")[2] in targets for name, module in model.named_modules()
    )


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Full names of all linear layers but the output head."""
    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]
