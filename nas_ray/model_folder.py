"""Where the language model of a run lives: the package's seed model, a folder, a GGUF file or a Hugging Face id.

In: the `model` section of a configuration. Out: what transformers and vLLM can load, or a `ModelError` that says what
was looked for, found out from small files alone: no weights are read, and neither torch nor vLLM is imported.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from nas_ray import seed_model
from nas_ray.config import ModelConfig

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CHOICES = (
    "model.path may be 'seed', a folder with a model, a .gguf file, or a Hugging Face id such as "
    "Qwen/Qwen2.5-Coder-0.5B-Instruct"
)
_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PRETRAINING_RECORD = "pretraining.json"  # lies in the folder of a model that `nas-ray pretrain` made
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")


class ModelError(ValueError):
    """The language model cannot be used as configured; the message says what was looked for and what is allowed."""


def check_model(config: ModelConfig) -> None:
    """Make sure, before any actor starts, that the model is there and reads as many tokens as the run wants.

    Raises:
        ModelError: nothing at `config.path`, files missing, or `config.context_tokens` beyond what the model can read.
    """
    if _is_gguf(config.path):
        _check_gguf(Path(config.path))
        return
    settings = _read_json(config.path, "config.json")
    if settings is None:
        raise ModelError(f"{_describe(config.path)} has no config.json. {_CHOICES}.")
    if not _is_hub_id(config.path):
        _check_weights(resolve_model(config.path))
    longest = settings.get("max_position_embeddings")
    if isinstance(longest, int) and config.context_tokens > longest:
        raise ModelError(
            f"model.context_tokens is {config.context_tokens}, but {_describe(config.path)} reads at most {longest} "
            f"tokens; set model.context_tokens to {longest} or less"
        )


def resolve_model(path: str) -> str:
    """What `from_pretrained` and vLLM are given for `model.path`: a folder or a hub id.

    A GGUF file is dequantised on the first call (see `dequantise`), which loads its weights; everything else is quick.

    Raises:
        ModelError: `path` is neither 'seed', nor a folder, nor a GGUF file, nor looks like a hub id.
    """
    if path == "seed":
        return str(seed_model.folder())
    if _is_gguf(path):
        return str(dequantise(Path(path)))
    if Path(path).is_dir():
        return str(Path(path).resolve())
    if _is_hub_id(path):
        return path
    raise ModelError(f"there is no folder {path!r}. {_CHOICES}.")


def unpacked_folder(path: str) -> str | None:
    """`resolve_model`, but None for a GGUF file that no call has unpacked yet: this one does not.

    Raises:
        ModelError: as `resolve_model`.
    """
    if _is_gguf(path):
        _check_gguf(Path(path))
        folder = _gguf_folder(Path(path))
        return str(folder) if (folder / "config.json").exists() else None
    return resolve_model(path)


def choose_style(config: ModelConfig) -> str:
    """How prompts reach the model, "chat" or "plain"; `style: auto` is chat where the model carries a chat template."""
    if config.style != "auto":
        return config.style
    path = resolve_model(config.path)
    if (_read_json(path, "tokenizer_config.json") or {}).get("chat_template"):
        return "chat"
    return "chat" if any(_find_file(path, name) for name in _CHAT_TEMPLATES) else "plain"


def is_seed_model(path: str) -> bool:
    """True for 'seed' and for a folder that `nas-ray pretrain` made: such a model knows one line as its prompt."""
    return path == "seed" or (Path(path) / PRETRAINING_RECORD).is_file()


def weight_bytes(config: ModelConfig) -> int | None:
    """Size of the weights on disk, bytes; None for a hub id, whose weights may not be here yet."""
    path = resolve_model(config.path)
    if _is_hub_id(path):
        return None
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in Path(path).glob(pattern))


def dequantise(file: Path) -> Path:
    """Unpack a GGUF file into a folder that every engine and PEFT can load; done once, beside the file.

    The folder is `<file>.model`, or lies in the temporary folder where the file's own is read-only. Its weights are
    float16, twice to eight times the size of the file. Made under a temporary name and renamed, so that an interrupted
    call leaves nothing that looks whole.
    """
    _check_gguf(file)
    target = _gguf_folder(file)
    if (target / "config.json").exists():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    draft = Path(tempfile.mkdtemp(prefix=f"{file.name}.", dir=target.parent))
    try:
        source = {"pretrained_model_name_or_path": str(file.resolve().parent), "gguf_file": file.name}
        # Without dequantize=True the weights stay in GGUF blocks, and such a model cannot be saved again.
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float16
        )
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(draft)
        AutoTokenizer.from_pretrained(**source).save_pretrained(draft)
        draft.chmod(0o755)
        try:
            draft.rename(target)
        except OSError:  # another process was faster
            if not (target / "config.json").exists():
                raise
    except Exception as error:
        raise ModelError(f"the GGUF file {str(file)!r} cannot be unpacked: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _gguf_folder(file: Path) -> Path:
    parent = file.resolve().parent if os.access(file.resolve().parent, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"{file.name}.model"


def _is_gguf(path: str) -> bool:
    return path.endswith(".gguf")


def _is_hub_id(path: str) -> bool:
    return path != "seed" and not Path(path).is_dir() and _HUB_ID.fullmatch(path) is not None


def _describe(path: str) -> str:
    """The model in an error message: the words that the user wrote, and the place they stand for."""
    if path == "seed":
        return f"the seed model ({seed_model.folder()})"
    return f"the Hugging Face model {path!r}" if _is_hub_id(path) else f"the folder {path!r}"


def _check_gguf(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"there is no file {str(file)!r}. {_CHOICES}.")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{str(file)!r} is not a GGUF file: it does not begin with the letters GGUF")


def _check_weights(folder: str) -> None:
    if not any(True for pattern in _WEIGHTS for _ in Path(folder).glob(pattern)):
        raise ModelError(f"the model folder {folder!r} has no weights ({' or '.join(_WEIGHTS)})")
    if not any((Path(folder) / name).exists() for name in _TOKENIZERS):
        raise ModelError(f"the model folder {folder!r} has no tokenizer ({' or '.join(_TOKENIZERS)})")


def _find_file(path: str, name: str) -> Path | None:
    """A small file of the model; from a hub it is downloaded into its cache. None where the model has no such file."""
    if not _is_hub_id(path):
        file = Path(resolve_model(path)) / name
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(path, name))
    except LocalEntryNotFoundError as error:
        if name != "config.json":  # the model is in the cache, this file is not: it has none
            return None
        raise ModelError(_not_reached(path, error)) from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise ModelError(_not_reached(path, error)) from error


def _not_reached(path: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return (
        f"there is no folder {path!r}, and no Hugging Face model of this name can be reached "
        f"({type(error).__name__}: {reason}). {_CHOICES}."
    )


def _read_json(path: str, name: str) -> dict[str, Any] | None:
    file = _find_file(path, name)
    if file is None:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds a {type(content).__name__}, not a mapping")
    return content
