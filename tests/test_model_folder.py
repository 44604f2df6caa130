"""Finding the language model, and clear errors where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nas_ray import seed_model
from nas_ray.config import ModelConfig
from nas_ray.model_folder import ModelError, check_model, choose_style, resolve_model, weight_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    return tmp_path


def test_seed_is_the_folder_in_the_package() -> None:
    assert resolve_model("seed") == str(seed_model.folder())


def test_a_whole_folder_is_accepted(folder: Path) -> None:
    check_model(ModelConfig(path=str(folder)))
    assert resolve_model(str(folder)) == str(folder)
    assert weight_bytes(ModelConfig(path=str(folder))) == 4


@pytest.mark.parametrize("path", ["/nowhere/model", "./nowhere", "a/b/c", "model.gguf"])
def test_a_missing_model_is_named_with_the_choices(path: str) -> None:
    with pytest.raises(ModelError) as raised:
        check_model(ModelConfig(path=path))
    assert path in str(raised.value)
    assert "'seed', a folder" in str(raised.value)


def test_a_hub_id_that_cannot_be_reached_is_named_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"no folder 'nobody/no-such-model'.*'seed', a folder"):
        check_model(ModelConfig(path="nobody/no-such-model"))


@pytest.mark.parametrize(
    ("missing", "named"), [("config.json", "config"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")]
)
def test_a_missing_file_is_named(folder: Path, missing: str, named: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=named):
        check_model(ModelConfig(path=str(folder)))


def test_a_context_beyond_the_models_is_an_error_with_both_numbers(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"513.*512"):
        check_model(ModelConfig(path=str(folder), context_tokens=513))


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK..")
    with pytest.raises(ModelError, match="not a GGUF file"):
        check_model(ModelConfig(path=str(file)))


def save_gguf(file: Path) -> None:
    """A Llama of two layers and random weights with a byte tokenizer, as a GGUF file."""
    import gguf
    from tokenizers import pre_tokenizers

    draws = np.random.default_rng(0)
    words = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    hidden, inner = 128, 256
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_merges(["a b"])
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(words) - 1))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (len(words), hidden), "output": (len(words), hidden), "output_norm": (hidden,)}
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{layer}.{name}"] = (hidden, hidden)
        shapes[f"blk.{layer}.ffn_gate"] = shapes[f"blk.{layer}.ffn_up"] = (inner, hidden)
        shapes[f"blk.{layer}.ffn_down"] = (hidden, inner)
        shapes[f"blk.{layer}.attn_norm"] = shapes[f"blk.{layer}.ffn_norm"] = (hidden,)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draws.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_unpacked_once_into_a_folder_that_loads(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = tmp_path / "tiny.gguf"
    save_gguf(file)
    config = ModelConfig(path=str(file))
    check_model(config)
    folder = Path(resolve_model(config.path))
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert choose_style(config) == "plain"
    assert resolve_model(config.path) == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.gguf", "tiny.gguf.model"]
    check_model(ModelConfig(path=str(folder)))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert not hasattr(model.config, "quantization_config")
    assert model.num_parameters() > 200_000
    assert AutoTokenizer.from_pretrained(folder).tokenize("cab") == ["c", "ab"]


def test_style_follows_the_chat_template(folder: Path) -> None:
    config = ModelConfig(path=str(folder))
    assert choose_style(config) == "plain"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert choose_style(config) == "chat"
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert choose_style(config) == "chat"
    assert choose_style(ModelConfig(path=str(folder), style="plain")) == "plain"
