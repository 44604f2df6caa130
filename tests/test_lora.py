"""The LoRA fine-tune on the package's own seed model: what is learned, what is scored, what is written."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from nas_ray import grammar, seed_model
from nas_ray.config import FinetuneConfig
from nas_ray.finetune_report import FinetuneError, FinetuneReport
from nas_ray.likelihood import World, batch_by_tokens, encode_pairs, measure_nll
from nas_ray.lora import train_adapter
from nas_ray.prompts import render_prompt
from nas_ray.replay import Pair

MODEL = str(seed_model.folder())
CONFIG = FinetuneConfig(epochs=2, batch_size=4, rank=4)
DIGITS = ((1, 8, 8), 10, 500_000)


def pairs_of(count: int, seed: int = 0) -> list[Pair]:
    rng = random.Random(seed)
    programs = [grammar.sample_program(rng, *DIGITS) for _ in range(count)]
    return [Pair(f"{seed:04d}{i:04d}", grammar.prompt(*DIGITS), program, 0, 0.5) for i, program in enumerate(programs)]


def train(out: Path, config: FinetuneConfig = CONFIG, previous: str | None = None, **options: object) -> FinetuneReport:
    arguments: dict[str, object] = {"pairs": pairs_of(10), "held_out": pairs_of(3, seed=1), "seed": 0} | options
    return train_adapter(MODEL, config=config, style="auto", previous=previous, out=out, device="cpu", **arguments)  # type: ignore[arg-type]


def weights_of(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "adapter_model.safetensors")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> FinetuneReport:
    """One plain fine-tune, shared by the tests that only look at it."""
    return train(tmp_path_factory.mktemp("adapters") / "0001")


def nll_by_hand(pair: Pair, adapter: str | None = None) -> float:
    """Sum of -log p over the program's tokens and end-of-text: one token after the other, from the definition."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    prompt = render_prompt(tokenizer, pair.prompt, "auto")
    target = [*tokenizer.encode(pair.code, add_special_tokens=False), tokenizer.eos_token_id]
    with torch.inference_mode():
        scores = functional.log_softmax(model.eval()(torch.tensor([[*prompt, *target]])).logits[0], dim=-1)
    return -sum(scores[len(prompt) + place - 1, token].item() for place, token in enumerate(target))


def test_training_makes_the_elites_likelier(first: FinetuneReport) -> None:
    assert sum(first.nll_after_train) < sum(first.nll_before_train)
    assert first.losses[1] < first.losses[0]
    assert first.steps == 2 * 3


def test_nll_is_the_sum_over_completion_tokens_under_the_generation_prompt(first: FinetuneReport) -> None:
    pair = pairs_of(10)[7]
    assert first.nll_before_train[7] == pytest.approx(nll_by_hand(pair), rel=1e-4)
    assert first.nll_after_train[7] == pytest.approx(nll_by_hand(pair, first.adapter), rel=1e-4)
    assert first.training_ids[7] == pair.id
    assert len(first.nll_before_held_out) == len(first.nll_after_held_out) == len(first.held_out_ids) == 3


def test_the_adapter_is_one_that_peft_and_vllm_load(first: FinetuneReport) -> None:
    folder = Path(first.adapter)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "finetune.json",
    }
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 4, 32)
    assert FinetuneReport.load(folder) == first
    assert all(weights.dtype == torch.float32 for weights in weights_of(folder).values())


def test_the_same_seed_gives_the_same_adapter(first: FinetuneReport, tmp_path: Path) -> None:
    again = train(tmp_path / "0001")
    assert again.nll_after_train == first.nll_after_train
    for name, weights in weights_of(first.adapter).items():
        assert torch.equal(weights, weights_of(again.adapter)[name])


def test_continue_starts_from_the_previous_adapter_and_leaves_it_alone(first: FinetuneReport, tmp_path: Path) -> None:
    before = weights_of(first.adapter)
    second = train(tmp_path / "0002", previous=first.adapter)
    assert second.nll_before_train == pytest.approx(first.nll_after_train, rel=1e-5)
    assert sum(second.nll_after_train) < sum(first.nll_after_train)
    assert all(torch.equal(weights, before[name]) for name, weights in weights_of(first.adapter).items())


def test_fresh_starts_from_the_base_but_measures_from_the_previous_adapter(
    first: FinetuneReport, tmp_path: Path
) -> None:
    fresh = train(tmp_path / "0002", CONFIG.model_copy(update={"start": "fresh"}), previous=first.adapter)
    assert fresh.nll_before_train == pytest.approx(first.nll_after_train, rel=1e-5)
    assert fresh.nll_after_train == pytest.approx(first.nll_after_train, rel=1e-5)  # the same training as the first


def test_a_resumed_fine_tune_ends_like_one_that_was_not_cut_off(first: FinetuneReport, tmp_path: Path) -> None:
    def cut_off(epochs_done: int, loss: float, save: Callable[[Path], None]) -> None:
        save(tmp_path / "epoch")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "0001", on_epoch=cut_off)
    assert not (tmp_path / "0001").exists()
    resumed = train(tmp_path / "0001", resume=tmp_path / "epoch")
    assert resumed.resumed == (1,)
    assert resumed.losses == pytest.approx(first.losses, rel=1e-5)
    assert resumed.nll_before_train == first.nll_before_train
    for name, weights in weights_of(first.adapter).items():
        assert torch.allclose(weights, weights_of(resumed.adapter)[name], atol=1e-5)


def test_every_step_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    train(
        tmp_path / "0001",
        CONFIG.model_copy(update={"epochs": 1}),
        on_step=lambda done, steps, _: told.append((done, steps)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_epochs_loss_is_the_mean_over_its_tokens_whatever_the_batches(tmp_path: Path) -> None:
    report = train(tmp_path / "0001", CONFIG.model_copy(update={"lr": 1e-12, "batch_size": 3}))
    assert report.losses == pytest.approx([sum(report.nll_before_train) / report.tokens] * 2, rel=1e-4)


def test_dropout_is_off_while_measuring(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"dropout": 0.5, "epochs": 1})
    report = train(tmp_path / "0001", config)
    assert report.nll_after_train[0] == pytest.approx(nll_by_hand(pairs_of(10)[0], report.adapter), rel=1e-4)


def test_a_version_that_is_there_is_not_trained_over(first: FinetuneReport) -> None:
    with pytest.raises(FinetuneError, match="never overwritten"):
        train(Path(first.adapter))


def test_unknown_targets_are_told_with_those_that_the_model_has(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"c_attn.*has.*down_proj.*q_proj"):
        train(tmp_path / "0001", CONFIG.model_copy(update={"targets": ("c_attn",)}))


def test_an_adapter_of_another_rank_cannot_be_continued(first: FinetuneReport, tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"finetune\.rank"):
        train(tmp_path / "0002", CONFIG.model_copy(update={"rank": 8}), previous=first.adapter)


def test_an_adapter_of_other_targets_cannot_be_continued(first: FinetuneReport, tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"finetune\.targets"):
        train(tmp_path / "0002", CONFIG.model_copy(update={"targets": ("q_proj",)}), previous=first.adapter)


def test_a_folder_that_is_no_adapter_is_told(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="not an adapter"):
        train(tmp_path / "0002", previous=str(tmp_path))


def test_a_loss_that_is_not_finite_leaves_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"lower finetune\.lr"):
        train(tmp_path / "0001", CONFIG.model_copy(update={"lr": 1e30}))
    assert not (tmp_path / "0001").exists()


def test_programs_longer_than_the_context_are_left_out_and_named(tmp_path: Path) -> None:
    endless = replace(pairs_of(1)[0], id="endless", code="x = 1\n" * 2000)
    report = train(tmp_path / "0001", CONFIG.model_copy(update={"epochs": 1}), pairs=[*pairs_of(3), endless])
    assert report.too_long_ids == ("endless",)
    assert len(report.training_ids) == len(report.nll_after_train) == 3
    with pytest.raises(FinetuneError, match="none of the 1 pairs"):
        train(tmp_path / "0002", pairs=[endless])


def test_likelihood_does_not_depend_on_batch_mates_or_prompt_lengths() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    pairs = pairs_of(6)
    pairs[2] = replace(pairs[2], prompt=pairs[2].prompt * 5)
    programs, _ = encode_pairs(pairs, tokenizer, "auto", 512)
    together = measure_nll(model, programs, "cpu", World())
    alone = [measure_nll(model, [program], "cpu", World())[0] for program in programs]
    assert together == pytest.approx(alone, rel=1e-4)


def test_batches_hold_every_program_once_within_the_token_limit() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    programs, _ = encode_pairs(pairs_of(40), tokenizer, "auto", 512)
    batches = list(batch_by_tokens(range(40), programs, 300))
    assert sorted(place for batch in batches for place in batch) == list(range(40))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(programs[place].tokens) for place in batch) <= 300


def test_a_model_without_end_of_text_token_is_refused(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(FinetuneError, match="end-of-text"):
        train_adapter(str(tmp_path / "model"), pairs_of(2), [], CONFIG, "auto", None, tmp_path / "0001", 0, "cpu")
