"""Logits as they are chosen from: transformers' own processors, each position with its own prefix.

Sampling is `coupled` unless asked otherwise: each place of each row has its own noise, so that a row's seed decides its text,
whatever drafts or whatever else is in the batch.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, RepetitionPenaltyLogitsProcessor
from transformers.generation import logits_process as processors

from headway.decoding.stopping import eos_tokens
from headway.errors import ConfigError, first_line
from headway.ops.draft_tree import AcceptedPath
from headway.ops.noise import gumbel
from headway.ops.sampling import apply_temperature_top_k_top_p
from headway.ops.verification.block import accept_block
from headway.ops.verification.multi_candidate import accept_candidates
from headway.ops.verification.rejection import accept_sampled
from headway.ops.verification.rule import Accepted
from headway.ops.verification.typical import accept_typical

# for chains that were drawn; each takes target, proposal, tokens, generator, limit (see `headway.ops.verification.rejection`)
RULES: dict[str, Callable[..., Accepted]] = {
    "token": accept_sampled,
    "block": accept_block,
    "multi-candidate": accept_sampled,  # what it is where each token has one candidate
    "typical": accept_typical,
}
# for trees that were drawn; rows with another of `RULES` take chains
TREE_RULES: dict[str, Callable[..., AcceptedPath]] = {"multi-candidate": accept_candidates}
# settings that count from the end of the prompt or up to the limit
COUNTING = (
    "min_length",
    "min_new_tokens",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "begin_suppress_tokens",
)
LENGTHS = 64  # of prompts, with their limits, whose processors are kept


class Sampler:
    """How the rows that share these settings choose their tokens.

    Args:
        generator: where tokens come from that are drawn for the rules of `RULES`, on the model's device.
        acceptance: of drafts when sampling: `coupled`, or one of `RULES`.
        vocabulary: how many tokens there are to choose among; where it is told, settings are tried out at once.
    Raises: ConfigError for a setting that transformers refuses, or an unknown rule.
    """

    def __init__(
        self,
        config: GenerationConfig,
        device: torch.device,
        generator: torch.Generator | None = None,
        acceptance: str = "coupled",
        vocabulary: int | None = None,
    ) -> None:
        if acceptance not in ("coupled", *RULES):
            raise ConfigError(f"There is no acceptance rule {acceptance!r}; there are: coupled, {', '.join(RULES)}.")
        self.config = config
        self.sampled = bool(config.do_sample)
        self.rule = RULES.get(acceptance) if self.sampled else None
        self.tree_rule = TREE_RULES.get(acceptance) if self.sampled else None
        self.generator = generator
        if vocabulary is not None:
            try_out(config, vocabulary)
        self._counting = any(getattr(config, name) is not None for name in COUNTING)
        self._processors = lru_cache(LENGTHS)(lambda prompt, limit: list(logits_processors(config, prompt, limit, device).values()))
        self.plain = not self._processors(1, 2)

    def processed(self, logits: Tensor, prefix: Tensor, prompt: int, limit: int) -> Tensor:
        """Scores (vocab,) in float32 of what follows `prefix` (length,), in a row of `prompt` tokens and up to `limit`."""
        found = logits.float()[None]
        for processor in self._processors(prompt, limit) if self._counting else self._processors(1, 2):
            found = processor(prefix[None], found)
        return found[0]

    def probabilities(self, scores: Tensor) -> Tensor:
        config = self.config
        return apply_temperature_top_k_top_p(scores, config.temperature, config.top_k, config.top_p, config.min_p)

    def preferences(self, scores: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
        """What the chosen token is the largest of: the scores themselves, or, when sampling, log-probabilities with the noise of
        the place; scores (rows, n, vocab), seeds (rows,), positions (rows, n) of the tokens that are chosen."""
        if not self.sampled:
            return scores
        return self.probabilities(scores).log() + gumbel(seeds, positions, scores.shape[2])


def try_out(config: GenerationConfig, vocabulary: int) -> None:
    """Raises ConfigError for a setting that fails once it is used, for a token beyond the vocabulary for instance."""
    cpu = torch.device("cpu")  # an accelerator may not be usable after an index out of range
    for name, processor in logits_processors(config, 1, 2, cpu).items():
        value = getattr(config, name)
        try:
            length = int(value[0]) + 2 if name == "exponential_decay_length_penalty" else 1  # it starts after so many tokens
            processor(torch.zeros(1, 1, dtype=torch.long).expand(1, max(1, length)), torch.zeros(1, vocabulary))
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ConfigError(f"{name}={value!r} cannot be used with {vocabulary} tokens: {first_line(error)}") from error


def logits_processors(config: GenerationConfig, width: int, limit: int, device: torch.device) -> dict[str, LogitsProcessor]:
    """Those that transformers' generate would build, in its order, by the setting that asks for each; without the warpers that
    only sampling has.

    Raises: ConfigError where transformers refuses a value.
    """
    try:
        return _processors(config, width, limit, device)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ConfigError(f"generate: {first_line(error)}") from error


def _processors(config: GenerationConfig, width: int, limit: int, device: torch.device) -> dict[str, LogitsProcessor]:
    eos = eos_tokens(config)
    eos_tensor = torch.tensor(eos, device=device) if eos else None
    found: dict[str, LogitsProcessor] = {}
    if config.sequence_bias is not None:
        found["sequence_bias"] = processors.SequenceBiasLogitsProcessor(sequence_bias=config.sequence_bias)
    if config.repetition_penalty not in (None, 1.0):
        found["repetition_penalty"] = RepetitionPenaltyLogitsProcessor(config.repetition_penalty)
    if config.no_repeat_ngram_size:
        found["no_repeat_ngram_size"] = processors.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)
    if config.bad_words_ids is not None:
        found["bad_words_ids"] = processors.NoBadWordsLogitsProcessor(config.bad_words_ids, eos_tensor)
    if eos_tensor is not None and config.min_length and config.min_new_tokens is None:
        found["min_length"] = processors.MinLengthLogitsProcessor(config.min_length, eos_tensor, device=str(device))
    if eos_tensor is not None and (least := config.min_new_tokens):
        found["min_new_tokens"] = processors.MinNewTokensLengthLogitsProcessor(width, least, eos_tensor, device=str(device))
    if config.forced_bos_token_id is not None:
        found["forced_bos_token_id"] = processors.ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id)
    if config.forced_eos_token_id is not None:
        last = processors.ForcedEOSTokenLogitsProcessor(limit, config.forced_eos_token_id, device=str(device))
        found["forced_eos_token_id"] = last
    if config.remove_invalid_values:
        found["remove_invalid_values"] = processors.InfNanRemoveLogitsProcessor()
    if (decay := config.exponential_decay_length_penalty) is not None and eos_tensor is not None:
        found["exponential_decay_length_penalty"] = processors.ExponentialDecayLengthPenalty(decay, eos_tensor, width)
    if (tokens := config.suppress_tokens) is not None:
        found["suppress_tokens"] = processors.SuppressTokensLogitsProcessor(tokens, device=str(device))
    if (tokens := config.begin_suppress_tokens) is not None:
        begin = width if width > 1 or config.forced_bos_token_id is None else width + 1
        at_first = processors.SuppressTokensAtBeginLogitsProcessor(tokens, begin, device=str(device))
        found["begin_suppress_tokens"] = at_first
    return found
