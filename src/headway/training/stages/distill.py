"""On-policy samples: the model continues prompts, and heads learn from the samples (`headway heads distill`).

The trunk accepts drafts that agree with the trunk's output. On-policy samples therefore teach heads more than foreign text: Medusa
(arXiv 2401.10774, section 2.3.2), DistillSpec (2310.08461), FastMTP (2509.18362, +0.19 tokens per forward at 3 drafts). Samples are
text. Distributions are not kept: `objective: distillation` computes distributions during training.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headway.data import Chat, Example, PromptCompletion, Text, load_examples, row_of_example, tokenize_prompt
from headway.decoding import DecodeStats, Request, SamplingParams, complete
from headway.decoding.drafters import drafter_by_name
from headway.decoding.generation_config import resolve
from headway.decoding.stopping import eos_tokens
from headway.errors import DataError
from headway.model import HeadwayModel, load_model_and_tokenizer
from headway.training.configs import DistillConfig
from headway.training.samples_file import Samples
from headway.trunk.quantization import is_quantized

# settings that a resumed run may change: no sample depends on them
RESUME_OVERRIDABLE = ("output_file", "batch_size", "resume", "quiet")


@dataclass(frozen=True)
class Prompt:
    """A prompt to sample from.

    Args:
        number: index among all examples of the data.
        example: example without a completion.
        tokens: token ids.
    """

    number: int
    example: PromptCompletion | Chat
    tokens: list[int]


@dataclass(frozen=True)
class Distilled:
    """Contents of a file of samples, and figures of the run that completed it.

    Args:
        path: the file.
        samples: number of samples in the file.
        tokens: number of tokens of all samples.
        cut_off: samples that ended at max_new_tokens.
        left_out: prompts that are empty or too long.
        drawn: tokens sampled in this run.
        seconds: time of this run.
        tokens_per_forward: of this run.
    """

    path: Path
    samples: int
    tokens: int
    cut_off: int
    left_out: int
    drawn: int
    seconds: float
    tokens_per_forward: float

    def __str__(self) -> str:
        ended = 1 - self.cut_off / self.samples
        text = f"{self.path} has {self.samples:,} samples of {self.tokens:,} tokens; {ended:.0%} ended by themselves"
        if self.left_out:
            text += f"; prompts left out, empty or too long: {self.left_out:,}"
        if not self.drawn:
            return f"{text}. Nothing was left to draw."
        rate = self.drawn / self.seconds
        return f"{text}. {self.drawn:,} tokens drawn, {rate:,.0f} a second, {self.tokens_per_forward:.2f} a forward."


def distill(config: DistillConfig) -> Distilled:
    """Write on-policy samples to `config.output_file`, a line for every sample, in the order of the prompts.

    A line has the columns that `load_examples` reads, prompt and completion or messages. Further columns: number, index of the
    prompt; sample, index among the samples of the prompt; seed, with which `generate` samples the same text; tokens, number of
    tokens; finish_reason, `stop` or `length`.

    Raises:
        CheckpointError: the model cannot be loaded, or its tokenizer does not fit.
        DataError: the data cannot be read, or no prompt fits into the context.
        ConfigError: the file has samples of different settings.
    """
    model, tokenizer = load_model_and_tokenizer(config.model, dtype=torch.float32 if config.float32 else None)
    prompts, left_out = prompts_of(config, tokenizer, model.view.context)
    settings = {name: value for name, value in asdict(config).items() if name not in RESUME_OVERRIDABLE}
    settings |= {"data": config.sources, "prompts": _digest(prompts), "weights": _weights(model.trunk)}
    samples = Samples(config.output_file, settings, config.resume)
    before, began = samples.tokens, time.monotonic()
    try:
        per_forward = 0.0 if samples.complete else _draw(config, model, tokenizer, prompts, samples)
        samples.finish()
    finally:
        samples.close()
    drawn, seconds = samples.tokens - before, time.monotonic() - began
    return Distilled(config.output_file, len(samples), samples.tokens, samples.cut_off, left_out, drawn, seconds, per_forward)


def prompts_of(config: DistillConfig, tokenizer: PreTrainedTokenizerBase, context: int | None) -> tuple[list[Prompt], int]:
    """Prompts of the data, and the number of prompts that are empty or too long.

    The last answer of a conversation is dropped. The first tokens of a text become a prompt.

    Args:
        config: settings.
        tokenizer: tokenizer of the model.
        context: number of tokens that the model reads; None: unlimited.
    Raises:
        DataError: no prompt is left.
    """
    longest = config.max_prompt_tokens
    if context is not None:
        longest = context - config.max_new_tokens if longest is None else min(longest, context - 1)
    prompts: list[Prompt] = []
    left_out = number = 0
    for source in config.sources:
        for example in load_examples(source, config.split, config.limit, config.columns):
            prompt = _without_answer(example, tokenizer, config.prompt_tokens)
            tokens = tokenize_prompt(prompt, tokenizer) if prompt is not None else []
            if prompt is not None and tokens and (longest is None or len(tokens) <= longest):
                prompts.append(Prompt(number, prompt, tokens))
            else:
                left_out += 1
            number += 1
    if not prompts:
        raise DataError(
            f"{', '.join(config.sources)}: all {left_out} prompts are empty or have more than {longest} tokens. "
            "Raise max_prompt_tokens, or lower max_new_tokens: both share the model's context."
        )
    return prompts, left_out


def seed_of(seed: int, number: int, sample: int) -> int:
    """Seed of a sample."""
    return int.from_bytes(hashlib.sha256(f"{seed}-{number}-{sample}".encode()).digest()[:6], "big")


def _without_answer(example: Example, tokenizer: Any, prompt_tokens: int) -> PromptCompletion | Chat | None:
    """The example without its answer, or None if nothing is left."""
    if isinstance(example, Chat):
        messages = example.messages
        while messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        return replace(example, messages=messages, cut_off=False) if messages else None
    if isinstance(example, Text):
        tokens = tokenize_prompt(example, tokenizer)[:prompt_tokens]
        # the last token may end within a character
        return PromptCompletion(tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd"))
    if isinstance(example, PromptCompletion):
        return PromptCompletion(example.prompt)
    raise DataError(f"{example.location}: a preference pair is no prompt to continue.")


def _draw(
    config: DistillConfig, model: HeadwayModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt], samples: Samples
) -> float:
    """Draw the missing samples. Returns tokens per forward."""
    missing = [(prompt, sample) for prompt in prompts for sample in range(config.samples) if (prompt.number, sample) not in samples]
    settings: dict[str, Any] = {"max_new_tokens": config.max_new_tokens, "do_sample": config.temperature > 0}
    if config.temperature:
        settings |= {"temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
    base = None if config.generation_config == "model" else config.generation_config
    ends = set(eos_tokens(resolve(model.trunk, base, settings)))
    seeds = [seed_of(config.seed, prompt.number, sample) for prompt, sample in missing]
    requests = [
        Request(prompt.tokens, SamplingParams(seed=seed, generation_config=base, options=settings))
        for (prompt, _), seed in zip(missing, seeds, strict=True)
    ]
    if not requests:
        return 0.0
    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=config.quiet) as progress:
        bar = progress.add_task("", total=len(prompts) * config.samples, completed=len(samples))
        before, began = samples.tokens, time.monotonic()
        stats = []
        drafter = drafter_by_name("heads", model)
        for completion in complete(model, tokenizer, requests, drafter=drafter, max_batch_size=config.batch_size):
            prompt, sample = missing[completion.request_index]
            new = list(completion.token_ids)
            stopped = new[-1] in ends
            text = text_of(tokenizer, prompt.tokens, new[: len(new) - stopped])
            samples.add(
                _answered(prompt.example, text)
                | {"number": prompt.number, "sample": sample, "seed": seeds[completion.request_index], "tokens": len(new)}
                | {"finish_reason": completion.finish_reason.value}
            )
            rate = (samples.tokens - before) / (time.monotonic() - began)
            progress.update(bar, advance=1, description=f"{rate:,.0f} tokens/s")
            stats.append(completion.stats)
    return DecodeStats.merge(stats).tokens_per_forward


def text_of(tokenizer: Any, prompt: list[int], new: list[int]) -> str:
    """Text of the new tokens, if possible a text that encodes to the same tokens.

    Some tokenizers drop the space before the first decoded word and add a space before the first encoded word.
    """
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    after_prompt = tokenizer.decode([*prompt, *new], skip_special_tokens=True).removeprefix(before)
    alone = tokenizer.decode(new, skip_special_tokens=True)
    candidates = (after_prompt, alone)
    return next(
        (text for text in candidates if tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] == new), alone
    )


def _answered(example: PromptCompletion | Chat, text: str) -> dict[str, Any]:
    """Row of the prompt with its completion."""
    if isinstance(example, Chat):
        return row_of_example(replace(example, messages=[*example.messages, {"role": "assistant", "content": text}]))
    return row_of_example(replace(example, completion=text))


def _digest(prompts: list[Prompt]) -> str:
    return hashlib.sha256(json.dumps([(prompt.number, prompt.tokens) for prompt in prompts]).encode()).hexdigest()[:16]


def _weights(trunk: PreTrainedModel) -> str:
    """Digest of the first values of every tensor, the same wherever the model is stored."""
    parts = hashlib.sha256()
    for name, parameter in trunk.named_parameters():
        if not is_quantized(parameter):
            parts.update(name.encode())
            parts.update(parameter.detach().flatten()[:64].to("cpu", torch.float32).numpy().tobytes())
    return parts.hexdigest()[:16]
