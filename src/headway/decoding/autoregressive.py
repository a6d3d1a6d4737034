"""The trunk on its own, by transformers' `generate`: what drafting is compared with and what it falls back to."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from headway.decoding.stats import DecodeStats, StatsCollector
from headway.decoding.stopping import StoppingCriteria


def decode_autoregressive(
    trunk: PreTrainedModel,
    block: Tensor,
    mask: Tensor,
    config: GenerationConfig,
    limit: int,
    stops: StoppingCriteria,
    streamer: Any = None,
    tokenizer: Any = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, DecodeStats]:
    """New tokens (batch, new), padded on the right, for left-padded prompts (batch, width)."""
    config = copy.deepcopy(config)
    config.max_new_tokens, config.max_length, config.num_return_sequences = limit, None, 1
    if not config.do_sample:  # transformers warns about settings that only sampling reads
        config.temperature = config.top_k = config.top_p = config.min_p = None
    width = block.shape[1]
    stats_collector = StatsCollector(0)
    devices = [trunk.device] if trunk.device.type == "cuda" else []
    # transformers draws from the global generator: lend it a seed of ours, and put it back as it was
    with stats_collector.timed("decode"), torch.random.fork_rng(devices, enabled=bool(config.do_sample)):
        if config.do_sample:
            torch.manual_seed(_seed(generator))
        generate: Any = trunk.generate
        output = generate(block, attention_mask=mask.long(), generation_config=config, streamer=streamer, tokenizer=tokenizer)
    new = output[:, width:]
    lengths = [stops.cut(row[:width], row[width:])[0] for row in output.tolist()]
    stats_collector.tokens = stats_collector.forwards = sum(lengths)  # each forward of a row gives one token
    stats_collector.batches = new.shape[1]
    return new, stats_collector.stats()


def _seed(generator: torch.Generator | None) -> int:
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**62, (), generator=generator, device=device))
