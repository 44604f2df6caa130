"""Properties of the tokenizer, the tiny Llama and its training, at settings that take seconds."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from jobs.pretrain import documents, measure, pretrain
from nas_ray import language_model as lm
from nas_ray.deltas import DIVIDER, REPLACE, SEARCH
from nas_ray.grammar import prompt, sample_document, sample_edit_document

TINY = lm.Size(layers=1, hidden=64, intermediate=64, vocabulary=700)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    rng = random.Random(0)
    texts = ("".join(sample_document(rng)) for _ in range(500))
    return lm.build_tokenizer(texts, TINY.vocabulary)


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("".join(sample_document(random.Random(1))), "naïve\r\n\ttext 🙂  with  spaces \n\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_whole_lines_become_one_token_and_channel_counts_stay_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer("import torch.nn as nn\n")["input_ids"]) == 1
    line = "        self.conv1 = nn.Conv2d(16, 32, 3, padding=1)\n"
    pieces = [tokenizer.decode([one]) for one in tokenizer(line)["input_ids"]]
    assert "16" in pieces
    assert "32" in pieces


def test_nothing_is_put_before_a_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("")["input_ids"] == []
    assert tokenizer.eos_token == lm.END
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_labels_hide_the_prompt_and_the_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = lm.Recipe(steps=1, batch=4)
    tokens, labels = next(lm.batches(documents(0, 0.2), tokenizer, recipe))
    for row, label in zip(tokens, labels, strict=True):
        text = tokenizer.decode(row[label >= 0])
        assert text.startswith("import torch\n")
        assert text.endswith(lm.END)
        hidden = tokenizer.decode(row[label < 0], skip_special_tokens=True)
        assert hidden.startswith("# ")
        assert hidden.endswith("parameters\n")


def test_long_documents_are_left_out(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = lm.Recipe(steps=1, batch=4, max_tokens=120)
    assert max(tokens.shape[1] for tokens, _ in islice(lm.batches(documents(0, 0.2), tokenizer, recipe), 200)) <= 120


def test_same_seed_and_steps_train_the_same_model(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = lm.Recipe(steps=3, batch=4, warmup=1)
    weights = []
    for _ in range(2):
        model = lm.build_model(TINY, tokenizer, seed=0)
        lm.train(model, lm.batches(documents(0, 0.2), tokenizer, recipe), recipe)
        weights.append(torch.cat([one.flatten() for one in model.parameters()]))
    assert torch.equal(weights[0], weights[1])


def test_training_lowers_the_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    losses: list[float] = []
    recipe = lm.Recipe(steps=40, batch=8, warmup=2, learning_rate=1e-2)
    model = lm.build_model(TINY, tokenizer, seed=0)
    lm.train(model, lm.batches(documents(0, 0.2), tokenizer, recipe), recipe, every=lambda _, loss: losses.append(loss))
    assert len(losses) == 40
    assert losses[-1] < 0.6 * losses[0]


def test_pretraining_leaves_a_folder_that_loads_anywhere(tmp_path: Path) -> None:
    folder = pretrain(
        tmp_path / "model", steps=2, threads=1, checkpoint_minutes=0.0, size=TINY, tokenizer_documents=300
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float16
    assert model.config.head_dim == 64
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert '"steps": 2' in (folder / "pretraining.json").read_text()
    texts = lm.sample(model.float(), tokenizer, prompt((1, 8, 8), 10, 500_000), 3, seed=0, max_new_tokens=8)
    assert len(texts) == 3
    further = pretrain(tmp_path / "further", steps=1, threads=1, seed=1, start=folder)
    assert AutoTokenizer.from_pretrained(further).get_vocab() == tokenizer.get_vocab()
    assert json.loads((further / "pretraining.json").read_text())["start"]["recipe"]["steps"] == 2


def test_measuring_an_empty_folder_says_how_to_make_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"jobs\.pretrain --out"):
        measure(tmp_path)


def test_documents_come_in_the_shares_that_were_asked_for() -> None:
    drawn = list(islice(documents(0, 0.0, deltas=0.3, drills=0.2), 1000))
    edits = sum("# edit this" in asked for asked, _ in drawn)
    drills = sum(answer.endswith(f"\n{DIVIDER}\n{REPLACE}\n") and "\n\n\n" not in asked for asked, answer in drawn)
    assert 450 < edits < 550
    assert 170 < drills < 230
    for asked, answer in drawn:
        if "# edit this" not in asked:
            assert answer.startswith("import torch\n")
            continue
        lines = asked.split("\n", 2)[2]
        quoted = answer.split(f"\n{DIVIDER}\n")[0].removeprefix(f"{SEARCH}\n")
        assert all(line in lines or line.strip() in lines for line in quoted.split("\n"))


def test_going_on_with_edits_makes_their_markers_one_token_each_and_keeps_the_others(tmp_path: Path) -> None:
    first = pretrain(tmp_path / "first", steps=1, threads=1, size=TINY, tokenizer_documents=300)
    then = pretrain(tmp_path / "then", steps=1, threads=1, seed=1, deltas=0.5, start=first)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (first, then))
    _, answer = sample_edit_document(random.Random(0))
    tokens = after(answer)["input_ids"]
    assert after.decode(tokens, skip_special_tokens=True) == answer
    for marker in (SEARCH, DIVIDER, REPLACE):
        assert after.convert_tokens_to_ids(f"{marker}\n") in tokens
    assert before.get_vocab().items() <= after.get_vocab().items()
    assert AutoModelForCausalLM.from_pretrained(then).config.vocab_size == len(after)
    third = pretrain(tmp_path / "third", steps=1, threads=1, seed=2, deltas=0.5, start=then)
    assert AutoTokenizer.from_pretrained(third).get_vocab() == after.get_vocab()
