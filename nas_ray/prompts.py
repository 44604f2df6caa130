"""The words in which a program is asked for: templates, prompts, and the tokens that a model really sees.

In: a template (plain, instruct, or the user's own file), the facts of the task and earlier elites. Out: a prompt as
text, and by `render_prompt` as token ids, the same for both engines and for the fine-tune.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from nas_ray.config import BudgetConfig, ModelConfig, ProtocolConfig
from nas_ray.model_folder import choose_style

BUILT_IN = ("plain", "instruct")
PLACEHOLDERS = (
    "dataset", "channels", "height", "width", "classes", "parameters",
    "epochs", "batch_size", "optimiser", "lr", "examples",
)  # fmt: skip


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


def load_template(name: str, model: ModelConfig) -> str:
    """The text of `generation.template`: "auto" (instruct for chat models, else plain), "plain", "instruct", or a file.

    Raises:
        PromptError: no such file, or a placeholder that is not in `PLACEHOLDERS`.
    """
    if name == "auto":
        name = "instruct" if choose_style(model) == "chat" else "plain"
    if name in BUILT_IN:
        text = (resources.files("nas_ray") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PromptError(
                f"generation.template {name!r} cannot be read ({type(error).__name__}: {error}); "
                f"it may be auto, {', '.join(BUILT_IN)}, or the path of a text file"
            ) from error
    _check_placeholders(name, text)
    return text


def shows_examples(template: str) -> bool:
    """True where the template has room for earlier elites."""
    return "examples" in Template(template).get_identifiers()


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
    _check_placeholders("the template", template)
    protocol = protocol or ProtocolConfig()
    return Template(template).substitute(
        dataset=facts.dataset,
        channels=facts.channels,
        height=facts.height,
        width=facts.width,
        classes=facts.classes,
        parameters=budget.parameters,
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        optimiser=protocol.optimiser,
        lr=protocol.lr,
        examples=_write_examples(examples),
    )


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


def _check_placeholders(name: str, text: str) -> None:
    template = Template(text)
    allowed = ", ".join(f"${{{placeholder}}}" for placeholder in PLACEHOLDERS)
    if not template.is_valid():
        raise PromptError(f"{name} holds a $ that begins no placeholder; write $$ for it. Placeholders: {allowed}")
    unknown = [f"${{{found}}}" for found in template.get_identifiers() if found not in PLACEHOLDERS]
    if unknown:
        raise PromptError(f"{name} holds unknown placeholders: {', '.join(unknown)}. Allowed: {allowed}")
