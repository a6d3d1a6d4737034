"""Autoregressive decoding by transformers' `generate`: the baseline, and the fallback for trunks without exact ragged batches."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers import StoppingCriteria as TransformersStoppingCriteria

from headway.decoding.padding import left_block, token_lists
from headway.decoding.stats import DecodeStats, SequenceCounts, StepClock
from headway.decoding.stopping import StoppingCriteria, pad_token


@dataclass(frozen=True)
class Continuation:
    """New tokens of one row.

    Args:
        stopped: the last token is, or completes, a stop.
        logprobs: log-probabilities of the tokens, empty if not requested.
    """

    tokens: list[int]
    stopped: bool
    logprobs: list[float]
    stats: DecodeStats


def decode_autoregressive(
    trunk: PreTrainedModel,
    block: Tensor,
    mask: Tensor,
    config: GenerationConfig,
    limits: Sequence[int],
    stopping: StoppingCriteria,
    *,
    batch_size: int,
    streamer: Any = None,
    generator: torch.Generator | None = None,
    logprobs: bool = False,
) -> tuple[list[Continuation], DecodeStats]:
    """Continue left-padded prompts, `batch_size` rows at a time; rows with different limits in batches of their own.

    Args:
        block, mask: prompts padded on the left, and the attention mask as bool; (batch, width).
        limits: maximum numbers of new tokens, (rows,).
    """
    found: dict[int, Continuation] = {}
    parts: list[DecodeStats] = []
    for limit in sorted(set(limits)):
        rows = [row for row, own in enumerate(limits) if own == limit]
        for start in range(0, len(rows), batch_size):
            members = rows[start : start + batch_size]
            # columns of padding alone would take positions that the trunk does not have
            part, part_mask = left_block(token_lists(block[members], mask[members]), pad_token(config), block.device)
            continuations, stats = _decode(trunk, part, part_mask, config, limit, stopping, streamer, generator, logprobs)
            found |= dict(zip(members, continuations, strict=True))
            parts.append(stats)
    return [found[row] for row in range(len(limits))], DecodeStats.merge(parts)


def _decode(
    trunk: PreTrainedModel,
    block: Tensor,
    mask: Tensor,
    config: GenerationConfig,
    limit: int,
    stopping: StoppingCriteria,
    streamer: Any,
    generator: torch.Generator | None,
    logprobs: bool,
) -> tuple[list[Continuation], DecodeStats]:
    config = copy.deepcopy(config)
    config.max_new_tokens, config.max_length, config.num_return_sequences = limit, None, 1
    config.stop_strings = None  # `stopping` searches them
    temperature = float(config.temperature) if config.do_sample else 1.0
    if not config.do_sample:  # transformers warns about settings that only sampling reads
        config.temperature = config.top_k = config.top_p = config.min_p = None
    width, prompts, clock = block.shape[1], token_lists(block, mask), StepClock()
    devices = [trunk.device] if trunk.device.type == "cuda" else []
    generate: Any = trunk.generate
    # transformers samples from the global generator: fork it, and seed the fork
    with clock.timed("decode"), torch.random.fork_rng(devices, enabled=bool(config.do_sample)):
        if config.do_sample:
            torch.manual_seed(_seed(generator))
        output = generate(
            block,
            attention_mask=mask.long(),
            generation_config=config,
            streamer=streamer,
            stopping_criteria=[_Stops(stopping, prompts, width)] if stopping.matcher is not None else None,
            return_dict_in_generate=True,
            output_logits=logprobs,
        )
    new = output.sequences[:, width:].tolist()
    ends = [stopping.truncate_at_stop(prompt, len(prompt), row) for prompt, row in zip(prompts, new, strict=True)]
    shares = {phase: seconds / len(new) for phase, seconds in clock.seconds.items()}
    scores = _logprobs(output.logits, output.sequences[:, width:], temperature) if logprobs else [[] for _ in new]
    total = SequenceCounts()
    continuations = []
    for row, own, (count, stopped) in zip(new, scores, ends, strict=True):
        counts = SequenceCounts()
        counts.tokens = counts.num_sequence_forwards = count  # each forward of a sequence gives one token
        total.add(counts)
        continuations.append(Continuation(row[:count], stopped, own[:count], counts.stats(count, shares)))
    return continuations, total.stats(output.sequences.shape[1] - width, clock.seconds)


class _Stops(TransformersStoppingCriteria):
    """Headway's stopping criteria in transformers' interface, for a left-padded block."""

    def __init__(self, stopping: StoppingCriteria, prompts: list[list[int]], width: int) -> None:
        self.stopping, self.prompts, self.width = stopping, prompts, width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        rows = input_ids[:, self.width :].tolist()
        done = [
            self.stopping.truncate_at_stop([*prompt, *row[:-1]], len(prompt), row[-1:])[1]
            for prompt, row in zip(self.prompts, rows, strict=True)
        ]
        return torch.tensor(done, device=input_ids.device)


def _logprobs(logits: Sequence[Tensor], tokens: Tensor, temperature: float) -> list[list[float]]:
    """Log-probabilities of tokens (rows, n), from n tensors of logits (rows, vocab)."""
    steps = [(step.float() / temperature).log_softmax(-1).gather(1, tokens[:, [n]]) for n, step in enumerate(logits)]
    rows: list[list[float]] = torch.cat(steps, dim=1).tolist()
    return rows


def _seed(generator: torch.Generator | None) -> int:
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**62, (), generator=generator, device=device))
