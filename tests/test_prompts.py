"""Templates, prompts and their tokens, with real tokenizers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nas_ray import grammar, seed_model
from nas_ray.build import build_program
from nas_ray.candidate import Build, Program
from nas_ray.config import BudgetConfig, GenerationConfig, ModelConfig, ProtocolConfig, RunConfig
from nas_ray.contract import check_contract
from nas_ray.program import parse_completion
from nas_ray.prompts import (
    EDIT_PLACEHOLDERS,
    MARK,
    PLACEHOLDERS,
    Example,
    Parent,
    PromptError,
    TaskFacts,
    build_edit_prompt,
    build_prompt,
    check_length,
    choose_stops,
    choose_template,
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


def test_plain_edit_prompt_is_the_one_that_the_seed_model_was_trained_on() -> None:
    template = load_template("auto", PLAIN, edits=True)
    parent = Parent("class Net:\n    pass\n", 0.634, 4321)
    prompt = build_edit_prompt(template, DIGITS, BudgetConfig(), parent, "smaller", "search_replace")
    assert prompt == grammar.edit_prompt((1, 8, 8), 10, 500_000, parent.code, 0.634, 4321, "smaller")
    assert "accuracy 63 %, 4321 parameters; wanted: fewer parameters\nclass Net:\n    pass\n" in prompt


@pytest.mark.parametrize("form", ["search_replace", "unified_diff"])
def test_instruct_edit_prompt_shows_the_parent_what_was_measured_what_is_wanted_and_the_format(form: str) -> None:
    template = load_template("auto", CHAT, edits=True)
    parent = Parent("class Net:\n    pass\n", 0.634, 4321)
    prompt = build_edit_prompt(template, DIGITS, BudgetConfig(parameters=777), parent, "different", form)
    for expected in (parent.code, "63 %", "4321", "another idea", "777", "(N, 1, 8, 8)"):
        assert expected in prompt
    assert ("<<<<<<< SEARCH" in prompt) == (form == "search_replace")
    assert ("```diff" in prompt) == (form == "unified_diff")
    assert "$" not in prompt


def test_edit_template_of_ones_own_knows_its_own_placeholders(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(" ".join(f"<${{{name}}}>" for name in EDIT_PLACEHOLDERS))
    parent = Parent("class Net: pass", 0.5, 9)
    template = load_template(str(file), PLAIN, edits=True)
    assert "<class Net: pass> <50> <9> <higher accuracy>" in build_edit_prompt(
        template, DIGITS, BudgetConfig(), parent, "accuracy", "search_replace"
    )
    with pytest.raises(PromptError, match=r"unknown placeholders: \$\{parent\}"):
        load_template(str(file), PLAIN)
    with pytest.raises(PromptError, match=r"delta\.template 'nowhere\.txt' cannot be read"):
        load_template("nowhere.txt", PLAIN, edits=True)


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


def test_auto_is_base_for_a_model_that_is_neither_a_chat_model_nor_a_seed_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    model = ModelConfig(path=str(tmp_path))
    assert choose_template("auto", model) == "base"
    assert choose_template("auto", ModelConfig(path="seed")) == "plain"
    assert choose_template("auto", ModelConfig(path=str(seed_model.folder()))) == "plain"
    assert choose_template("auto", CHAT) == "instruct"
    assert choose_template("plain", model) == "plain"


def test_base_prompt_is_python_that_a_model_can_continue() -> None:
    template = load_template("base", PLAIN)
    facts = TaskFacts("cifar10", 3, 32, 48, 17)
    examples = [Example(f"class Net:\n    width = {width}", 0.5) for width in (1, 2)]
    prompt = build_prompt(template, facts, BudgetConfig(parameters=123_456), examples, ProtocolConfig(lr=0.037))
    for expected in ("cifar10", "(N, 3, 32, 48)", "17 classes", "123456", "0.037", "in_shape, out_shape, prm, device"):
        assert expected in prompt
    for number, example in enumerate(examples, start=1):
        assert f"# ==== net_{number}.py, accuracy 50.0 % ====\n{example.code}\n" in prompt
    tree = ast.parse(prompt)
    assert sum(isinstance(node, ast.ClassDef) for node in tree.body) == 4
    assert prompt.endswith(" ====\n")
    assert shows_examples(template)


def test_the_small_networks_in_the_built_in_prompts_keep_the_contract() -> None:
    base = build_prompt(load_template("base", PLAIN), DIGITS, BudgetConfig()).split(f"\n{MARK}")[1:-1]
    shown = [file.partition("\n")[2] for file in base]
    instruct = build_prompt(load_template("instruct", CHAT), DIGITS, BudgetConfig())
    shown.append(instruct[instruct.index("import torch\n") : instruct.index("Rules\n")])
    assert len(shown) == 3
    for text in shown:
        program = parse_completion(text)
        assert isinstance(program, Program)
        assert check_contract(program, screens=True) is None
        assert isinstance(build_program(program.code, (1, 1, 8, 8), (10,), {}, BudgetConfig()), Build)


def test_a_completion_of_the_base_prompt_ends_where_a_next_program_would_begin() -> None:
    config = RunConfig(generation=GenerationConfig(template="base", stop=("END",)))
    assert choose_stops(config) == ("END", f"\n{MARK}")
    assert f"\n{MARK}" in load_template("base", PLAIN)
    assert choose_stops(RunConfig()) == ()


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
