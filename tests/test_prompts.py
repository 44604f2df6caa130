"""Templates, prompts and their tokens, with real tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nas_ray import grammar
from nas_ray.config import BudgetConfig, ModelConfig, ProtocolConfig
from nas_ray.prompts import (
    PLACEHOLDERS,
    Example,
    PromptError,
    TaskFacts,
    build_prompt,
    check_length,
    fit_prompt,
    load_template,
    render_prompt,
    shows_examples,
)

DIGITS = TaskFacts("digits", 1, 8, 8, 10)
PLAIN = ModelConfig(style="plain")
CHAT = ModelConfig(style="chat")
EXAMPLES = [Example(f"class Net{number}: pass", 0.5 + number / 100) for number in range(3)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    words = {word: place for place, word in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(words, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.fixture(scope="module")
def chat_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    chat.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return chat


def test_plain_prompt_is_the_line_that_the_seed_model_was_trained_on() -> None:
    prompt = build_prompt(load_template("auto", PLAIN), DIGITS, BudgetConfig(parameters=500_000))
    assert prompt == "# 1x8x8 -> 10 classes, at most 500000 parameters\n"
    assert prompt == grammar.prompt((1, 8, 8), 10, 500_000)


def test_instruct_prompt_names_all_facts_and_shows_the_examples() -> None:
    template = load_template("auto", CHAT)
    facts = TaskFacts("cifar10", 3, 32, 48, 17)
    prompt = build_prompt(template, facts, BudgetConfig(parameters=123_456), EXAMPLES, ProtocolConfig(lr=0.037))
    for expected in ("cifar10", "(N, 3, 32, 48)", "17 classes", "123456", "0.037", "in_shape, out_shape, prm, device"):
        assert expected in prompt
    assert all(example.code in prompt for example in EXAMPLES)
    assert "Accuracy 52.0 %" in prompt
    assert "$" not in prompt


def test_instruct_prompt_without_examples_does_not_speak_of_them() -> None:
    prompt = build_prompt(load_template("instruct", CHAT), DIGITS, BudgetConfig())
    assert "did well before" not in prompt
    assert "```" not in prompt


def test_every_placeholder_can_be_filled_in(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(" ".join(f"<${{{name}}}>" for name in PLACEHOLDERS) + " costs $$5 {braces: stay}")
    prompt = build_prompt(load_template(str(file), PLAIN), DIGITS, BudgetConfig(), EXAMPLES)
    assert prompt.startswith("<digits> <1> <8> <8> <10> <500000> <1> <32> <sgd> <0.01>")
    assert prompt.endswith("costs $5 {braces: stay}")


@pytest.mark.parametrize(("text", "named"), [("at most ${paramters}", "paramters"), ("5 $ a day", r"\$\$")])
def test_wrong_placeholder_is_an_error_that_lists_the_allowed_ones(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text)
    with pytest.raises(PromptError, match=named) as raised:
        load_template(str(file), PLAIN)
    assert all(f"${{{name}}}" in str(raised.value) for name in PLACEHOLDERS)


def test_missing_template_is_an_error_that_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"nowhere\.txt.*auto, plain, instruct"):
        load_template(str(tmp_path / "nowhere.txt"), PLAIN)


def test_auto_style_follows_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    assert tokenizer.decode(render_prompt(tokenizer, "# hi", "auto")).replace(" ", "") == "#Ġhi"
    assert len(render_prompt(tokenizer, "# hi", "auto")) == 4
    chat = render_prompt(chat_tokenizer, "hi", "auto")
    assert chat == render_prompt(tokenizer, "<user>hi</user><assistant>", "plain")
    assert render_prompt(chat_tokenizer, "hi", "plain") == render_prompt(tokenizer, "hi", "plain")


def test_chat_style_without_a_chat_template_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PromptError, match="no chat template"):
        render_prompt(tokenizer, "hi", "chat")


def test_as_many_examples_are_shown_as_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    template = load_template("instruct", CHAT)
    lengths = [len(build_prompt(template, DIGITS, BudgetConfig(), EXAMPLES[:count])) for count in range(4)]

    def fit(context: int) -> str:
        return fit_prompt(
            tokenizer, template, DIGITS, BudgetConfig(), EXAMPLES, ProtocolConfig(),
            style="plain", max_tokens=100, context_tokens=context,
        )  # fmt: skip

    assert [len(fit(length + 100)) for length in lengths] == lengths
    assert len(fit(lengths[2] + 99)) == lengths[1]
    with pytest.raises(PromptError, match=f"{lengths[0]} tokens.*100.*{lengths[0] + 99}"):
        fit(lengths[0] + 99)


def test_templates_say_whether_they_have_room_for_examples() -> None:
    assert shows_examples(load_template("instruct", CHAT))
    assert not shows_examples(load_template("plain", PLAIN))


def test_a_prompt_and_completion_that_just_fit_are_accepted() -> None:
    check_length(192, 320, 512)
    with pytest.raises(PromptError, match=r"193.*320.*512.*513"):
        check_length(193, 320, 512)
