"""`headway generate`: continue prompts, streaming to the terminal, with the speed at the end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headway.cli.console import note, print_json, read_stdin
from headway.config import at_least, field
from headway.decoding.drafters import AUTOREGRESSIVE
from headway.errors import ConfigError, DataError
from headway.evaluation.configs import DRAFTER_CHOICES, DTYPE_HELP, QUANTIZE_CHOICES, QUANTIZE_HELP, Dtype

PROMPTS, SAMPLING, DRAFTING, LOADING = "prompts", "length and sampling", "drafting", "model and device"


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `headway generate`, with the names and defaults of transformers' generate."""

    prompt: list[str] = field([], "text to continue; `-` reads standard input; several texts make a batch", group=PROMPTS)
    prompts: Path | None = field(None, "file with one prompt per line", group=PROMPTS)
    chat: bool = field(False, "wrap each prompt as a user message in the model's chat template", group=PROMPTS)
    json: bool = field(False, "print one JSON object with texts and statistics", group=PROMPTS)
    max_new_tokens: int = field(64, "maximum number of tokens to add", group=SAMPLING)
    stop: list[str] = field([], "strings that end a text", group=SAMPLING)
    do_sample: bool = field(False, "sample tokens; otherwise decode greedily", group=SAMPLING)
    temperature: float = field(1.0, "sampling temperature; lower is more predictable", group=SAMPLING)
    top_k: int = field(50, "sample from the k most probable tokens; 0 for all", group=SAMPLING)
    top_p: float = field(1.0, "sample from the most probable tokens with this total probability", group=SAMPLING)
    min_p: float | None = field(None, "minimum probability of a token, relative to the most probable token", group=SAMPLING)
    repetition_penalty: float = field(1.0, "above 1, tokens that already occur become less probable", group=SAMPLING)
    seed: int = field(0, "seed of the samples", group=SAMPLING)
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
    acceptance: Literal["coupled", "token", "block", "multi-candidate", "typical"] = field(
        "coupled", "verification rule for sampled tokens; all but `typical` keep the model's distribution", group=DRAFTING
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
    prompts = _prompts(config)
    import torch  # after --help has had its chance: these take seconds
    from transformers import TextStreamer

    from headway.model import load_model_and_tokenizer

    model, tokenizer = load_model_and_tokenizer(config.model, dtype=config.dtype, device=_device(config.device))
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _quantize(config, model, min(len(prompts), config.batch_size))
    inputs = _encode(tokenizer, prompts, config.chat).to(model.device)
    stream = len(prompts) == 1 and not config.json
    with torch.inference_mode():
        out = model.generate(
            **inputs,
            tokenizer=tokenizer,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
            speculative=config.speculative and config.drafter != AUTOREGRESSIVE,
            drafter=_drafter(config, model),
            compile=config.compile,
            max_batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
            stop_strings=config.stop or None,
            seed=config.seed,
            **_sampling(config),
        )
    texts = tokenizer.batch_decode(out.sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    if config.json:
        completions = [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]
        print_json({"completions": completions, "stats": _figures(out.stats)})
        return
    if not stream:
        print("\n".join(f"{prompt}{text}\n" for prompt, text in zip(prompts, texts, strict=True)), end="")
    note(summary(out.stats))


def summary(stats: Any) -> str:
    """One line: how many tokens, how fast, how many for each run of the model, and which drafts were kept."""
    line = f"{stats.tokens} tokens, {stats.tokens_per_second:.1f} a second, {stats.tokens_per_forward:.2f} a forward"
    kept = " ".join(f"{rate:.0%}" for rate in stats.acceptance)
    return line + (f", drafts kept by position: {kept}" if kept else "")


def _quantize(config: GenerateConfig, model: Any, rows: int) -> None:
    if config.quantize == "none":
        return
    scheme: str = config.quantize
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


def _sampling(config: GenerateConfig) -> dict[str, Any]:
    names = ("acceptance", "temperature", "top_k", "top_p", "min_p") if config.do_sample else ()
    return {name: getattr(config, name) for name in ("do_sample", "repetition_penalty", *names)}


def _drafter(config: GenerateConfig, model: Any) -> Any:
    """Factory of the drafter, or None for the default of `generate`: the heads, compiled with `--compile`."""
    from headway.decoding import assistant_drafter
    from headway.decoding.drafters import drafter_by_name
    from headway.model import load_trunk, named_dtype

    if config.assistant is not None:
        return assistant_drafter(load_trunk(config.assistant, named_dtype(config.dtype)).to(model.device).eval())
    return None if config.drafter == GenerateConfig.drafter else drafter_by_name(config.drafter, model)


def _encode(tokenizer: Any, prompts: list[str], chat: bool) -> Any:
    """Left-padded rows, (batch, seq)."""
    from headway.data import Chat, tokenize_prompt

    if chat and not tokenizer.chat_template:
        raise ConfigError("this model has no chat template; leave out --chat.")
    rows = [tokenize_prompt(Chat([{"role": "user", "content": prompt}]) if chat else prompt, tokenizer) for prompt in prompts]
    start = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
    if not all(rows) and start == [None]:
        raise ConfigError("a prompt is empty, and this model has no token to start from; write something.")
    return tokenizer.pad({"input_ids": [row or start for row in rows]}, return_tensors="pt")


def _device(name: str) -> Any:
    import torch

    from headway.model import best_device

    if name == "auto":
        return best_device()
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _figures(stats: Any) -> dict[str, Any]:
    names = ("tokens", "forwards", "tokens_per_forward", "tokens_per_second", "acceptance", "seconds")
    return {name: getattr(stats, name) for name in names}
