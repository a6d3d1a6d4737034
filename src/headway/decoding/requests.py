"""A request to continue a prompt, the completion, and the handle of a request that an engine is decoding.

Stop strings are searched in the generated text alone. A completion's `token_ids` end with the token that completes the stop string;
the completion's `text` is cut before the string.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from headway.decoding.batch import SequenceState
from headway.decoding.stats import DecodeStats
from headway.decoding.stopping import FinishReason, completion_text

OnTokens = Callable[[int, list[int]], None]  # sample index, new tokens
GENERATE_ARGUMENTS = (
    *("max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "eos_token_id"),
)


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Settings of a request, with the names of transformers' `generate`.

    None means: the model's generation config decides, then transformers' default.

    Args:
        max_new_tokens, min_new_tokens, do_sample, temperature, top_k, top_p, min_p, repetition_penalty, no_repeat_ngram_size,
            eos_token_id: as arguments of `generate`.
        ignore_eos: continue after end-of-sequence tokens.
        stop_strings: strings that end the text, in addition to the stop strings of the generation config.
        keep_stop_string: leave the stop string in the text.
        seed: seed of the first sample; sample i has `seed + i`. `generate` with the same seed samples the same tokens.
            Default: a seed of the engine.
        logprobs: return the log-probabilities of the tokens: the model's own, log_softmax(logits / temperature) before
            processors and truncation; the temperature is 1 without sampling.
        acceptance: acceptance rule of drafts when sampling, as the argument of `generate`.
        strict_context: refuse a prompt with more tokens than the context that the model was trained for.
        generation_config: base of the settings instead of the model's own; "none" keeps only the model's special tokens.
        options: further arguments of `generate`, for example `bad_words_ids`; None switches a setting off.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    ignore_eos: bool = False
    stop_strings: Sequence[str] = ()
    keep_stop_string: bool = False
    seed: int | None = None
    logprobs: bool = False
    acceptance: str = "coupled"
    strict_context: bool = False
    generation_config: GenerationConfig | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `generate` that differ from the generation config."""
        given = {name: value for name in GENERATE_ARGUMENTS if (value := getattr(self, name)) is not None}
        if self.ignore_eos:
            given["eos_token_id"] = None
        return given | dict(self.options)


@dataclass(frozen=True)
class Request:
    """A prompt to continue.

    Args:
        prompt: tokens of the prompt.
        sampling: settings of the continuation.
        n: number of samples; samples that are admitted together share one prefill.
    """

    prompt: Sequence[int] | Tensor
    sampling: SamplingParams = field(default_factory=SamplingParams)
    n: int = 1


@dataclass(frozen=True)
class Completion:
    """One sample of a request.

    Args:
        request_index: number of the request, in the order given to `complete`.
        sample_index: number of the sample in the request.
        token_ids: generated tokens, through the token that ended the sample.
        text: generated text without special tokens, cut at the first stop string; empty without a tokenizer.
        logprobs: log-probabilities of `token_ids`, if requested.
        finish_reason: reason for the end.
        stats: cost of this sample; the time of a step is shared equally among the sequences of the step.
    """

    request_index: int
    sample_index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...] | None
    finish_reason: FinishReason
    stats: DecodeStats


@dataclass(frozen=True, eq=False)
class Handle:
    """A submitted request, with the samples that an engine decodes.

    Args:
        request: the request as submitted.
        samples: the sequences, in sample order.
    """

    request: Request
    samples: tuple[SequenceState, ...]
    tokenizer: Any = None

    def cancel(self) -> None:
        """Remove all samples before the next step; their tokens stay."""
        for sample in self.samples:
            sample.cancel()

    @property
    def finished(self) -> bool:
        """True if all samples have left the engine."""
        return all(sample.finished for sample in self.samples)

    @property
    def error(self) -> Exception | None:
        """The first exception that ended a sample."""
        return next((sample.error for sample in self.samples if sample.error is not None), None)

    @property
    def token_ids(self) -> list[int]:
        """Generated tokens of the first sample."""
        return self.samples[0].new_tokens

    def completion(self, sample_index: int = 0, request_index: int = 0) -> Completion:
        """The completion of a finished sample."""
        sample, sampling = self.samples[sample_index], self.request.sampling
        assert sample.finish_reason is not None, "the sample is not finished"
        tokens = sample.new_tokens
        return Completion(
            request_index,
            sample_index,
            tuple(tokens),
            completion_text(self.tokenizer, tokens, sample.stop_strings, sampling.keep_stop_string),
            tuple(sample.logprobs) if sample.logprobs is not None else None,
            sample.finish_reason,
            sample.stats,
        )
