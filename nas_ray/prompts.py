"""The words in which a program is asked for: templates, prompts, and the tokens that a model really sees.

In: a template (plain, instruct, base, or the user's own file), the facts of the task and earlier elites. Out: a prompt
as text, and by `render_prompt` as token ids, the same for both engines and for the fine-tune.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from nas_ray.config import BudgetConfig, ModelConfig, ProtocolConfig, RunConfig
from nas_ray.deltas import DIVIDER, REPLACE, SEARCH, WANTED
from nas_ray.model_folder import choose_style, is_seed_model

BUILT_IN = ("plain", "instruct", "base")
MARK = "# ==== net_"  # heads each program where earlier ones are shown as code; a next one is no part of an answer
FACTS = (
    "dataset", "channels", "height", "width", "classes", "parameters",
    "epochs", "batch_size", "optimiser", "lr",
)  # fmt: skip
PLACEHOLDERS = (*FACTS, "examples", "programs")
EDIT_PLACEHOLDERS = (*FACTS, "parent", "accuracy", "parent_parameters", "wanted", "format")
FORMATS = {
    "search_replace": (
        "one or more blocks of exactly this form. Between the first two markers quote whole lines of the program, with "
        "their indentation, so many that they occur in it only once; after that the lines in their place:\n\n"
        f"{SEARCH}\nlines of the program\n{DIVIDER}\nnew lines\n{REPLACE}"
    ),
    "unified_diff": (
        "one unified diff in a code block. Each hunk begins with a line of @@ and holds lines that begin with a space "
        "(kept), a minus (taken out) or a plus (put in). Kept and taken-out lines are whole lines of the program, with "
        "their indentation, so many that they occur in it only once:\n\n"
        "```diff\n@@\n kept line\n-line taken out\n+line put in\n```"
    ),
}


class PromptError(ValueError):
    """A template that cannot be filled in, or a prompt that leaves no room for an answer."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a prompt says about the data set. Height and width in pixels, after any resizing."""

    dataset: str
    channels: int
    height: int
    width: int
    classes: int


@dataclass(frozen=True, slots=True)
class Example:
    """An earlier elite, shown to the model as something to learn from."""

    code: str
    accuracy: float  # share of the validation split, 0 .. 1


@dataclass(frozen=True, slots=True)
class Parent:
    """The program that is to be edited, and what was measured of it."""

    code: str
    accuracy: float  # share of the validation split, 0 .. 1
    parameters: int | None  # None: nobody has counted, as of a corpus's programs


def choose_template(name: str, model: ModelConfig) -> str:
    """What a template's name stands for: "auto" is instruct for chat models, plain for seed models, base for others."""
    if name != "auto":
        return name
    if choose_style(model) == "chat":
        return "instruct"
    return "plain" if is_seed_model(model.path) else "base"


def choose_stops(config: RunConfig) -> tuple[str, ...]:
    """Texts that end a completion: `generation.stop`, and with the template base the head of a next program."""
    chosen = choose_template(config.generation.template, config.model)
    return (*config.generation.stop, *((f"\n{MARK}",) if chosen == "base" else ()))


def load_template(name: str, model: ModelConfig, *, edits: bool = False) -> str:
    """The text of a template: "auto" (see `choose_template`), "plain", "instruct", "base", or a file.

    `edits` takes the one that asks for an edit (`delta.template`) in place of `generation.template`.

    Raises:
        PromptError: no such file, or a placeholder that is not in `PLACEHOLDERS` or `EDIT_PLACEHOLDERS`.
    """
    name = choose_template(name, model)
    key = "delta.template" if edits else "generation.template"
    if name in BUILT_IN:
        name = f"delta_{name.replace('base', 'instruct')}" if edits else name
        text = (resources.files("nas_ray") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PromptError(
                f"{key} {name!r} cannot be read ({type(error).__name__}: {error}); "
                f"it may be auto, {', '.join(BUILT_IN)}, or the path of a text file"
            ) from error
    _check_placeholders(name, text, EDIT_PLACEHOLDERS if edits else PLACEHOLDERS)
    return text


def shows_examples(template: str) -> bool:
    """True where the template has room for earlier elites."""
    return not {"examples", "programs"}.isdisjoint(Template(template).get_identifiers())


def build_prompt(
    template: str,
    facts: TaskFacts,
    budget: BudgetConfig,
    examples: Sequence[Example] = (),
    protocol: ProtocolConfig | None = None,
) -> str:
    """Fill in a template. `examples` are shown best first, as they come; a template without `${examples}` shows none.

    Raises:
        PromptError: the template holds a placeholder that is not in `PLACEHOLDERS`.
    """
    _check_placeholders("the template", template, PLACEHOLDERS)
    task = _write_facts(facts, budget, protocol or ProtocolConfig())
    return Template(template).substitute(task, examples=_write_examples(examples), programs=_write_programs(examples))


def build_edit_prompt(
    template: str,
    facts: TaskFacts,
    budget: BudgetConfig,
    parent: Parent,
    wanted: str,
    form: str,
    protocol: ProtocolConfig | None = None,
) -> str:
    """Fill in a template that asks for an edit of `parent`.

    Args:
        wanted: a word of `DeltaConfig.wanted`.
        form: the format of the answer, a word of `DeltaConfig.format`.

    Raises:
        PromptError: the template holds a placeholder that is not in `EDIT_PLACEHOLDERS`.
    """
    _check_placeholders("the template", template, EDIT_PLACEHOLDERS)
    return Template(template).substitute(
        _write_facts(facts, budget, protocol or ProtocolConfig()),
        parent=parent.code.strip(),
        accuracy=round(100 * parent.accuracy),
        parent_parameters="an unknown number of" if parent.parameters is None else parent.parameters,
        wanted=WANTED[wanted],
        format=FORMATS[form],
    )


def _write_facts(facts: TaskFacts, budget: BudgetConfig, protocol: ProtocolConfig) -> dict[str, object]:
    """The values of `FACTS`."""
    return {
        **asdict(facts),
        "parameters": budget.parameters,
        "epochs": protocol.epochs,
        "batch_size": protocol.batch_size,
        "optimiser": protocol.optimiser,
        "lr": protocol.lr,
    }


def render_prompt(tokenizer: Any, prompt: str, style: str) -> list[int]:
    """The token ids that the model reads: the prompt as a user's message in the model's chat template, or as it is.

    `tokenizer` is a transformers tokenizer; `style` is "chat", "plain", or "auto": chat where it has a chat template.
    A plain prompt gets what the tokenizer itself adds (a begin-of-text token, if any) and nothing else.

    Raises:
        PromptError: style "chat" for a tokenizer without a chat template.
    """
    if style == "plain" or (style == "auto" and not tokenizer.chat_template):
        return [int(token) for token in tokenizer.encode(prompt)]
    if not tokenizer.chat_template:
        raise PromptError("model.style is chat, but the model's tokenizer has no chat template; use auto or plain")
    message = [{"role": "user", "content": prompt}]
    tokens = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=False)
    return [int(token) for token in tokens]


def check_length(prompt_tokens: int, max_tokens: int, context_tokens: int) -> None:
    """Refuse a prompt after which a completion of `max_tokens` does not fit into the model's context.

    Raises:
        PromptError: with the three numbers and what to change.
    """
    if prompt_tokens + max_tokens > context_tokens:
        raise PromptError(
            f"a prompt of {prompt_tokens} tokens and a completion of up to {max_tokens} (generation.max_tokens) do not "
            f"fit into {context_tokens} (model.context_tokens): shorten the template, show fewer generation.examples, "
            f"lower generation.max_tokens, or raise model.context_tokens to {prompt_tokens + max_tokens} if the model "
            "allows it"
        )


def fit_prompt(
    tokenizer: Any,
    template: str,
    facts: TaskFacts,
    budget: BudgetConfig,
    examples: Sequence[Example],
    protocol: ProtocolConfig,
    *,
    style: str,
    max_tokens: int,
    context_tokens: int,
) -> str:
    """The prompt with as many of the first `examples` as leave room for a completion of `max_tokens`.

    Raises:
        PromptError: it does not fit even without examples.
    """
    shown = len(examples) if shows_examples(template) else 0
    while True:
        prompt = build_prompt(template, facts, budget, examples[:shown], protocol)
        tokens = len(render_prompt(tokenizer, prompt, style))
        if shown == 0:
            check_length(tokens, max_tokens, context_tokens)
        if tokens + max_tokens <= context_tokens:
            return prompt
        shown -= 1


def _write_examples(examples: Sequence[Example]) -> str:
    """Earlier elites as prose and code blocks; nothing without any, so that the first cycle's prompt reads well."""
    if not examples:
        return ""
    blocks = [
        f"Accuracy {100 * example.accuracy:.1f} %:\n```python\n{example.code.strip()}\n```\n" for example in examples
    ]
    return "\nNetworks that did well before:\n\n" + "\n".join(blocks)


def _write_programs(examples: Sequence[Example]) -> str:
    """Earlier elites as Python alone, each under a comment, for a model that continues a file."""
    blocks = [
        f"\n{MARK}{number}.py, accuracy {100 * example.accuracy:.1f} % ====\n{example.code.strip()}\n"
        for number, example in enumerate(examples, start=1)
    ]
    return "\n".join(blocks)


def _check_placeholders(name: str, text: str, known: Sequence[str]) -> None:
    template = Template(text)
    allowed = ", ".join(f"${{{placeholder}}}" for placeholder in known)
    if not template.is_valid():
        raise PromptError(f"{name} holds a $ that begins no placeholder; write $$ for it. Placeholders: {allowed}")
    unknown = [f"${{{found}}}" for found in template.get_identifiers() if found not in known]
    if unknown:
        raise PromptError(f"{name} holds unknown placeholders: {', '.join(unknown)}. Allowed: {allowed}")
