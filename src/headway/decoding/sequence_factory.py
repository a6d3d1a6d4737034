"""Requests to sequences: settings, limits, stop strings, samplers and seeds."""

import warnings
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from headway.decoding.batch import SequenceState
from headway.decoding.draftable import DraftableModel
from headway.decoding.exactness import length_issue
from headway.decoding.generation_config import context_issue, is_whole, new_token_limit, prompt_tokens, resolve, seed_number
from headway.decoding.requests import OnTokens, Request
from headway.decoding.sampler import Sampler, first_seed, new_generator
from headway.decoding.stopping import GeneratedTextMatcher, StoppingCriteria, check_stop_strings, eos_tokens
from headway.decoding.verify import acceptance_rules
from headway.errors import ConfigError

SAMPLER_CACHE_SIZE = 64  # number of distinct settings with a cached sampler


class SequenceFactory:
    """Builds the sequences of requests; requests with equal settings share a sampler.

    Args:
        tokenizer: needed for stop strings.
        seed: source of the seeds of requests without a seed.
    """

    def __init__(self, model: DraftableModel, tokenizer: Any, seed: int) -> None:
        self.model, self.tokenizer, self.seed = model, tokenizer, seed_number(seed)
        self._generator = torch.Generator(model.device).manual_seed(self.seed)
        self._samplers: dict[tuple[Any, ...], tuple[Sampler, StoppingCriteria]] = {}
        self._context_noted = False

    def sequences(self, request: Request, on_tokens: OnTokens | None = None) -> tuple[SequenceState, ...]:
        """The sequences of a request, in sample order.

        Raises:
            ConfigError: as `Engine.submit`.
        """
        if not isinstance(request, Request):
            raise ConfigError(f"submit takes a Request, got a {type(request).__name__}: give Request(prompt, SamplingParams(...)).")
        trunk, sampling = self.model.trunk, request.sampling
        config = resolve(trunk, sampling.generation_config, sampling.arguments, one_row=True)
        prompt = prompt_tokens(trunk, request.prompt)
        if not is_whole(request.n, 1):
            raise ConfigError(f"The number of samples n must be a whole number of at least 1, got {request.n!r}.")
        limit = len(prompt) + new_token_limit(trunk, config, len(prompt))
        if reason := length_issue(trunk, limit):
            raise ConfigError(f"A row of {limit} tokens cannot be decoded exactly: {reason}. Ask for fewer new tokens.")
        if (note := context_issue(self.model.view.context, len(prompt), sampling.strict_context)) and not self._context_noted:
            self._context_noted = True
            warnings.warn(note, UserWarning, stacklevel=3)
        strings = check_stop_strings(config.stop_strings, self.tokenizer)
        strings += check_stop_strings(sampling.stop_strings, self.tokenizer)
        sampler, stopping = self._sampler(config, len(prompt), sampling.acceptance, tuple(strings))
        group = object()
        return tuple(
            SequenceState(
                list(prompt),
                len(prompt),
                limit,
                sampler,
                stopping,
                seed,
                None if on_tokens is None else partial(on_tokens, number),
                tuple(strings),
                [] if sampling.logprobs else None,
                group,
            )
            for number, seed in enumerate(self._noise_seeds(sampling.seed, request.n))
        )

    def _sampler(
        self, config: GenerationConfig, prompt_length: int, acceptance: str, strings: tuple[str, ...]
    ) -> tuple[Sampler, StoppingCriteria]:
        """Sampler and stopping criteria of a generation config; the latest `SAMPLER_CACHE_SIZE` are kept."""
        config.min_new_tokens = config.min_new_tokens or max(0, (config.min_length or 0) - prompt_length) or None
        config.min_length = config.max_length = config.max_new_tokens = config.stop_strings = None
        rules = acceptance_rules(acceptance)
        key = (config.to_json_string(), acceptance, strings)
        if key not in self._samplers:
            sampler = Sampler(config, self.model.device, self._generator, *rules, vocabulary=self.model.view.unembedding.size)
            matcher = GeneratedTextMatcher(strings, self.tokenizer) if strings else None
            if len(self._samplers) == SAMPLER_CACHE_SIZE:
                del self._samplers[next(iter(self._samplers))]  # the oldest
            self._samplers[key] = (sampler, StoppingCriteria(eos_tokens(config), matcher))
        return self._samplers[key]

    def _noise_seeds(self, seed: int | None, n: int) -> list[int]:
        """Noise seeds of n samples: sample i has that of `generate(seed=seed + i)`, or the engine's next seed."""
        if seed is None:
            self.seed += n
            return [seed_number(self.seed - n + 1 + number) for number in range(n)]
        return [first_seed(new_generator(self.model.device, seed, number)) for number in range(n)]
