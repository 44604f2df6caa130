"""The making of a small language model: a tokenizer that swallows whole lines, a tiny Llama, and one pass of training.

In: an iterator of (prompt, program) documents. Out: a folder that transformers, PEFT and vLLM load like any other
model. Symbols: B documents in a batch, T tokens of the longest of them, V words in the vocabulary.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Document = tuple[str, str]  # prompt, program

END = "<|end|>"
PAD = "<|pad|>"
CONTEXT = 512  # tokens
# A channel count is a piece of its own, so that the 32 one layer gives is the same token as the 32 the next one takes.
CHANNEL_COUNT = r"(?<=\(|, |\[)(?:[468]|[1-9][0-9]+)(?=,|\)| \*|\])"
# Batches whose documents are sorted by length together, so that little is padded; their order is shuffled again.
POOL = 128


@dataclass(frozen=True)
class Size:
    """Shape of the Llama; the head size stays 64, the smallest that vLLM's CPU attention takes."""

    layers: int = 4
    hidden: int = 192
    intermediate: int = 512
    vocabulary: int = 1536
    head: int = 64


@dataclass(frozen=True)
class Recipe:
    """How to train: `steps` batches of `batch` documents; the rate rises for `warmup` steps, then falls to a tenth."""

    steps: int
    batch: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup: int = 100
    clip: float = 1.0
    max_tokens: int = 200  # longer documents are left out
    seed: int = 0


def build_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges span a whole line but no line end within; any text can be encoded and decoded
    without loss.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "merged_with_previous"),
            pre_tokenizers.Split(Regex(CHANNEL_COUNT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A freshly drawn Llama with tied embeddings, in float32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // size.head,
        num_key_value_heads=size.hidden // size.head,
        head_dim=size.head,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def add_words(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> int:
    """Make each of `words` one token, with an embedding to be learned; returns how many are new."""
    new = tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    if new:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return int(new)


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model in float32, ready to be trained on, and its tokenizer."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a loadable folder: float16 safetensors, configs and tokenizer. The model in memory stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half = half.to(torch.float16)
    half.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, max_new_tokens=384
    )
    half.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves it readable by its owner only
    tokenizer.save_pretrained(folder)


def batches(
    documents: Iterator[Document], tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (tokens, labels), both (B, T) int64; labels are -100 on the prompt and the padding."""
    rng = random.Random(recipe.seed)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    while True:
        drawn = list(islice(documents, recipe.batch * POOL))
        prompts = [one.ids for one in encode([prompt for prompt, _ in drawn])]
        programs = [one.ids for one in encode([program for _, program in drawn])]
        rows = [(prompt, [*program, end]) for prompt, program in zip(prompts, programs, strict=True)]
        rows = sorted(
            (row for row in rows if len(row[0]) + len(row[1]) <= recipe.max_tokens),
            key=lambda row: len(row[0]) + len(row[1]),
        )
        cuts = [rows[start : start + recipe.batch] for start in range(0, len(rows), recipe.batch)]
        rng.shuffle(cuts)
        for cut in cuts:
            length = max(len(prompt) + len(program) for prompt, program in cut)
            tokens = torch.full((len(cut), length), pad)
            labels = torch.full((len(cut), length), -100)
            for row, (prompt, program) in enumerate(cut):
                whole = torch.tensor(prompt + program)
                tokens[row, : len(whole)] = whole
                labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
            yield tokens, labels


def train(
    model: LlamaForCausalLM,
    stream: Iterator[tuple[Tensor, Tensor]],
    recipe: Recipe,
    *,
    every: Callable[[int, float], None] = lambda step, loss: None,
    report_seconds: float = 15.0,
) -> float:
    """Train in place and return the mean loss (nats per token) of the last 50 steps; `every(step, loss)` is called
    after each step.

    Padding comes last in every row and attention is causal, so no mask is needed. The result depends on the recipe,
    the stream and the number of threads, and on nothing else.
    """
    decayed = [one for one in model.parameters() if one.dim() > 1]
    plain = [one for one in model.parameters() if one.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), foreach=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe))
    model.train()
    losses: list[float] = []
    started = reported = time.monotonic()
    tokens_seen = 0
    for step, (tokens, labels) in enumerate(islice(stream, recipe.steps), 1):
        logits = model(tokens).logits[:, :-1]  # (B, T - 1, V)
        loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        tokens_seen += int((labels >= 0).sum())
        now = time.monotonic()
        if now - reported >= report_seconds or step == recipe.steps:
            reported, mean = now, sum(losses[-50:]) / len(losses[-50:])
            left = (now - started) / step * (recipe.steps - step)
            speed = tokens_seen / (now - started)
            line = f"step {step}/{recipe.steps}  loss {mean:.4f}  {speed:,.0f} tokens/s  {left / 60:.1f} min left"
            print(line, flush=True)
        every(step, losses[-1])
    return sum(losses[-50:]) / max(1, len(losses[-50:]))


def _rate(step: int, recipe: Recipe) -> float:
    """Factor on the learning rate."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.inference_mode()
def sample(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    count: int,
    *,
    seed: int,
    temperature: float = 1.0,
    max_new_tokens: int = 384,
) -> list[str]:
    """Draw `count` completions of one prompt, without the end mark, from the whole distribution (top-p 1)."""
    torch.manual_seed(seed)
    model.eval()
    texts: list[str] = []
    encoded = tokenizer(prompt, return_tensors="pt")
    while len(texts) < count:
        size = min(64, count - len(texts))
        out = model.generate(
            encoded["input_ids"].repeat(size, 1),
            attention_mask=encoded["attention_mask"].repeat(size, 1),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_new_tokens,
        )
        texts += tokenizer.batch_decode(out[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts
