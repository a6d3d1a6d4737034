"""`headway generate`: continue prompts. A single prompt streams to the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.cli.console import note, print_json, read_stdin
from headway.config import at_least, field
from headway.errors import ConfigError, DataError
from headway.evaluation.configs import DRAFTER_CHOICES, DTYPE_HELP, QUANTIZE_CHOICES, QUANTIZE_HELP, Dtype
from headway.training.configs import GENERATION_CONFIG_HELP, GenerationConfigChoice

PROMPTS, SAMPLING, DRAFTING, LOADING = "prompts", "length and sampling", "drafting", "model and device"
STATISTICS = ("tokens", "num_sequence_forwards", "tokens_per_forward", "tokens_per_second", "acceptance", "seconds")
ACCEPTANCE_RULES = ("coupled", "token", "block", "multi-candidate", "typical")  # `headway.decoding.verify.RULES`, without torch


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `headway generate`, with the names and defaults of transformers' generate."""

    prompt: list[str] = field([], "text to continue; `-` reads standard input; several texts make a batch", group=PROMPTS)
    prompts: Path | None = field(None, "file with one prompt per line", group=PROMPTS)
    chat: bool = field(False, "wrap each prompt as a user message in the model's chat template", group=PROMPTS)
    strict_context: bool = field(False, "refuse prompts longer than the model's context; otherwise a note warns", group=PROMPTS)
    json: bool = field(False, "print one JSON object with texts and statistics", group=PROMPTS)
    max_new_tokens: int = field(64, "maximum number of tokens to add", group=SAMPLING)
    stop: list[str] = field([], "strings that end a text", group=SAMPLING)
    do_sample: bool = field(False, "sample tokens; otherwise decode greedily", group=SAMPLING)
    temperature: float = field(1.0, "sampling temperature; lower is more predictable", group=SAMPLING)
    top_k: int = field(50, "sample from the k most probable tokens; 0 for all", group=SAMPLING)
    top_p: float = field(1.0, "sample from the most probable tokens with this total probability", group=SAMPLING)
    min_p: float | None = field(None, "minimum probability of a token, relative to the most probable token", group=SAMPLING)
    repetition_penalty: float = field(1.0, "above 1, tokens that already occur become less probable", group=SAMPLING)
    generation_config: GenerationConfigChoice = field("model", GENERATION_CONFIG_HELP, group=SAMPLING)
    seed: int = field(0, "seed of the first prompt's sample; later prompts count on from this seed", group=SAMPLING)
    speculative: bool = field(True, "draft and verify; otherwise decode one token at a time", group=DRAFTING)
    drafter: str = field(
        "heads",
        "source of drafts: the model's heads, n-grams of the text, or none, which decodes one token at a time",
        group=DRAFTING,
        choices=DRAFTER_CHOICES,
    )
    assistant: str | None = field(
        None, "folder or hub id of a smaller model with the same vocabulary, as the source of drafts", group=DRAFTING
    )
    acceptance: str = field(
        "coupled",
        "verification rule for sampled tokens; all but `typical` keep the model's distribution",
        group=DRAFTING,
        choices=ACCEPTANCE_RULES,
    )
    batch_size: int = field(16, "maximum number of prompts decoded at the same time", group=DRAFTING)
    compile: bool = field(False, "compile the decode step; takes seconds, pays for small models and many texts", group=DRAFTING)
    model: str = field("embedded", "folder or hub id; `embedded` is the model that ships with Headway", group=LOADING)
    dtype: Dtype = field("saved", DTYPE_HELP, group=LOADING)
    quantize: str = field("none", QUANTIZE_HELP, group=LOADING, choices=QUANTIZE_CHOICES)
    device: str = field("auto", "cpu, cuda or mps; auto is the accelerator, or the CPU without one", group=LOADING)

    def __post_init__(self) -> None:
        at_least(self, 1, "max_new_tokens", "batch_size")
        if (self.drafter != "heads") + (self.assistant is not None) + (not self.speculative) > 1:
            raise ConfigError(f"--drafter {self.drafter}, --assistant and --no-speculative exclude each other; give one of them.")


def run(config: GenerateConfig) -> None:
    """Continue the prompts, print texts on stdout and the speed on stderr. Raises HeadwayError."""
    prompts = _prompts(config)
    from headway.decoding.completing import complete  # torch and transformers take seconds to import
    from headway.decoding.requests import Request
    from headway.decoding.stats import DecodeStats
    from headway.model import load_model_and_tokenizer

    model, tokenizer = load_model_and_tokenizer(config.model, dtype=config.dtype, device=_device(config.device))
    _quantize(config, model, min(len(prompts), config.batch_size))
    encoded = _encode(tokenizer, prompts, config.chat)
    requests = [Request(tokens, _sampling(config, index)) for index, tokens in enumerate(encoded)]
    stream = TerminalStream(tokenizer) if len(prompts) == 1 and not config.json else None
    finished = complete(
        model,
        tokenizer,
        requests,
        drafter=_drafter(config, model),
        max_batch_size=config.batch_size,
        compile=config.compile,
        on_tokens=stream,
    )
    completions = sorted(finished, key=lambda completion: completion.request_index)
    stats = DecodeStats.merge([completion.stats for completion in completions])
    if config.json:
        texts = [
            {"prompt": prompt, "text": completion.text, "finish_reason": completion.finish_reason}
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        print_json({"completions": texts, "stats": {name: getattr(stats, name) for name in STATISTICS}})
        return
    if stream is not None:
        stream.end()
    else:
        print("".join(f"{prompt}{completion.text}\n" for prompt, completion in zip(prompts, completions, strict=True)), end="")
    note(summary(stats))


def summary(stats: Any) -> str:
    """Number of tokens, speed, tokens per forward, and the acceptance rates of drafts, in a line."""
    line = f"{stats.tokens} tokens, {stats.tokens_per_second:.1f} per second, {stats.tokens_per_forward:.2f} per forward"
    rates = " ".join(f"{rate:.0%}" for rate in stats.acceptance)
    return line + (f"; acceptance by draft position: {rates}" if rates else "")


class TerminalStream:
    """Prints the text of a prompt's new tokens as soon as whole words are complete."""

    def __init__(self, tokenizer: Any) -> None:
        from transformers import TextStreamer

        self.streamer = TextStreamer(tokenizer, skip_special_tokens=True)

    def __call__(self, request_index: int, sample_index: int, tokens: Sequence[int]) -> None:
        import torch

        self.streamer.put(torch.tensor(tokens))

    def end(self) -> None:
        """Print the rest and a line break."""
        self.streamer.end()


def _quantize(config: GenerateConfig, model: Any, rows: int) -> None:
    if config.quantize == "none":
        return
    scheme = config.quantize
    if scheme == "auto":
        from headway.trunk.roofline import choose

        choice = choose(model.trunk, rows * (1 + model.count if config.speculative else 1))
        note(f"quantize auto chose {choice.why}")
        scheme = choice.scheme
    if scheme != "none":
        model.quantize(scheme)


def _prompts(config: GenerateConfig) -> list[str]:
    """Prompts of the command line, standard input and the file. Raises ConfigError for no prompt, DataError for unreadable text."""
    prompts = [read_stdin().rstrip("\n") if prompt == "-" else prompt for prompt in config.prompt]
    if config.prompts is not None:
        try:
            prompts += [line for line in config.prompts.read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"the prompts in {config.prompts} cannot be read: {reason}.") from error
    if not prompts:
        raise ConfigError("there is no prompt; give --prompt TEXT, --prompt - for standard input, or --prompts FILE.")
    for prompt in prompts:
        if any("\ud800" <= character <= "\udfff" for character in prompt):  # Python's stand-in for bytes it cannot decode
            raise DataError(f"the prompt {prompt!r} holds bytes that are not text in the encoding of this terminal.")
    return prompts


def _sampling(config: GenerateConfig, index: int) -> Any:
    """Settings of the request for a prompt: its seed, and the names of transformers' generate."""
    from headway.decoding.requests import SamplingParams

    sampled: dict[str, Any] = {}
    if config.do_sample:
        sampled = {name: getattr(config, name) for name in ("acceptance", "temperature", "top_k", "top_p")}
        sampled["options"] = {"min_p": config.min_p}  # None switches off the setting of the generation config
    return SamplingParams(
        max_new_tokens=config.max_new_tokens,
        do_sample=config.do_sample,
        repetition_penalty=config.repetition_penalty,
        stop_strings=tuple(config.stop),
        keep_stop_string=True,
        seed=config.seed + index,
        strict_context=config.strict_context,
        generation_config=None if config.generation_config == "model" else config.generation_config,
        **sampled,
    )


def _drafter(config: GenerateConfig, model: Any) -> Any:
    """Factory of the drafter, or None for autoregressive decoding."""
    from headway.decoding import assistant_drafter, heads_drafter
    from headway.decoding.drafters import drafter_by_name
    from headway.model import load_trunk, named_dtype

    if config.assistant is not None:
        return assistant_drafter(load_trunk(config.assistant, named_dtype(config.dtype)).to(model.device).eval())
    drafter = drafter_by_name(config.drafter, model, config.speculative)
    return heads_drafter(compile=True) if config.compile and config.drafter == "heads" and drafter is not None else drafter


def _encode(tokenizer: Any, prompts: list[str], chat: bool) -> list[list[int]]:
    """Tokens of each prompt. Raises ConfigError for a missing chat template, or an empty prompt without a token to start from."""
    from headway.data import Chat, tokenize_prompt

    if chat and not tokenizer.chat_template:
        raise ConfigError("this model has no chat template; leave out --chat.")
    encoded = [tokenize_prompt(Chat([{"role": "user", "content": prompt}]) if chat else prompt, tokenizer) for prompt in prompts]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not all(encoded) and start is None:
        raise ConfigError("a prompt is empty, and this model has no token to start from; write something.")
    return [tokens or [start] for tokens in encoded]


def _device(name: str) -> Any:
    """Device by name; None for the default. Raises ConfigError for a device that is absent."""
    import torch

    if name == "auto":
        return None
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
