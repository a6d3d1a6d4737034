"""Logits as they are chosen from: transformers' own processors, each position with its own prefix."""

from functools import cache

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, RepetitionPenaltyLogitsProcessor
from transformers.generation import logits_process as processors

from headway.decoding.stopping import eos_tokens
from headway.errors import ConfigError
from headway.ops.distributions import draw, truncate


class Scores:
    """How the rows that share these settings choose their tokens.

    Args: generator: where drawn tokens come from, on the model's device.
    Raises: ConfigError for a setting that transformers refuses.
    """

    def __init__(self, config: GenerationConfig, device: torch.device, generator: torch.Generator | None = None) -> None:
        self.config = config
        self.sampled = bool(config.do_sample)
        self.generator = generator
        # some processors count from the end of the prompt or up to the limit
        self._processors = cache(lambda prompt, limit: logits_processors(config, prompt, limit, device))
        self.plain = not self._processors(1, 2)

    def processed(self, logits: Tensor, prefix: Tensor, prompt: int, limit: int) -> Tensor:
        """Scores (vocab,) in float32 of what follows `prefix` (length,), in a row of `prompt` tokens and up to `limit`."""
        found = logits.float()[None]
        for processor in self._processors(prompt, limit):
            found = processor(prefix[None], found)
        return found[0]

    def probabilities(self, scores: Tensor) -> Tensor:
        config = self.config
        return truncate(scores, config.temperature, config.top_k, config.top_p, config.min_p)

    def choose(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """A token for each row, and the distribution it was drawn from (None when greedy); scores (rows, vocab)."""
        if not self.sampled:
            return scores.argmax(-1), None
        probabilities = self.probabilities(scores)
        return draw(probabilities, self.generator), probabilities


def logits_processors(config: GenerationConfig, width: int, limit: int, device: torch.device) -> list[LogitsProcessor]:
    """Those that transformers' generate would build, in its order, without the warpers that only sampling has.

    Raises: ConfigError where transformers refuses a value.
    """
    try:
        return _processors(config, width, limit, device)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"generate: {str(error).splitlines()[0]}") from error


def _processors(config: GenerationConfig, width: int, limit: int, device: torch.device) -> list[LogitsProcessor]:
    eos = eos_tokens(config)
    eos_tensor = torch.tensor(eos, device=device) if eos else None
    found: list[LogitsProcessor] = []
    if config.sequence_bias is not None:
        found.append(processors.SequenceBiasLogitsProcessor(sequence_bias=config.sequence_bias))
    if config.repetition_penalty not in (None, 1.0):
        found.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        found.append(processors.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.bad_words_ids is not None:
        found.append(processors.NoBadWordsLogitsProcessor(config.bad_words_ids, eos_tensor))
    if eos_tensor is not None and config.min_length and config.min_new_tokens is None:
        found.append(processors.MinLengthLogitsProcessor(config.min_length, eos_tensor, device=str(device)))
    if eos_tensor is not None and config.min_new_tokens:
        found.append(processors.MinNewTokensLengthLogitsProcessor(width, config.min_new_tokens, eos_tensor, device=str(device)))
    if config.forced_bos_token_id is not None:
        found.append(processors.ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id))
    if config.forced_eos_token_id is not None:
        found.append(processors.ForcedEOSTokenLogitsProcessor(limit, config.forced_eos_token_id, device=str(device)))
    if config.remove_invalid_values:
        found.append(processors.InfNanRemoveLogitsProcessor())
    if config.exponential_decay_length_penalty is not None and eos_tensor is not None:
        decay = config.exponential_decay_length_penalty
        found.append(processors.ExponentialDecayLengthPenalty(decay, eos_tensor, width))
    if config.suppress_tokens is not None:
        found.append(processors.SuppressTokensLogitsProcessor(config.suppress_tokens, device=str(device)))
    if config.begin_suppress_tokens is not None:
        begin = width if width > 1 or config.forced_bos_token_id is None else width + 1
        found.append(processors.SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, begin, device=str(device)))
    return found
