"""Logits processors and sampling of the sequences that share settings.

Sampling is Gumbel-coupled by default: the noise depends on the seed of a sequence and the position alone. The seed decides the
text, whatever is drafted and whatever else is in the batch.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, RepetitionPenaltyLogitsProcessor
from transformers.generation import logits_process as processors

from headway.decoding.generation_config import seed_number
from headway.decoding.stopping import eos_tokens
from headway.errors import ConfigError, first_line
from headway.ops.draft_tree import AcceptedPath
from headway.ops.noise import gumbel
from headway.ops.sampling import apply_temperature_top_k_top_p
from headway.ops.verification.rule import Accepted

# settings that depend on the prompt length or on the maximum length
LENGTH_DEPENDENT = (
    "min_length",
    "min_new_tokens",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "begin_suppress_tokens",
)
PROCESSOR_CACHE_SIZE = 64  # pairs of prompt length and maximum length that have their processors cached


class Sampler:
    """Processors, truncation and sampling noise for one set of settings.

    Args:
        generator: source of randomness of the acceptance rules, on the model's device.
        rule: acceptance rule of sampled chains; None samples trunk and drafter with the same Gumbel noise.
        tree_rule: acceptance rule of sampled trees.
        vocabulary: number of tokens; if given, all settings are tried at once.
    Raises:
        ConfigError: for a setting that transformers refuses.
    """

    def __init__(
        self,
        config: GenerationConfig,
        device: torch.device,
        generator: torch.Generator | None = None,
        rule: Callable[..., Accepted] | None = None,
        tree_rule: Callable[..., AcceptedPath] | None = None,
        vocabulary: int | None = None,
    ) -> None:
        self.config = config
        self.sampled = bool(config.do_sample)
        self.rule = rule if self.sampled else None
        self.tree_rule = tree_rule if self.sampled else None
        self.generator = generator
        if vocabulary is not None:
            validate_processors(config, vocabulary)
        self._length_dependent = any(getattr(config, name) is not None for name in LENGTH_DEPENDENT)
        build = lru_cache(PROCESSOR_CACHE_SIZE)
        self._processors = build(lambda prompt, limit: list(logits_processors(config, prompt, limit, device).values()))
        self.has_no_processors = not self._processors(1, 2)

    @property
    def temperature(self) -> float:
        """Sampling temperature; 1 for greedy decoding."""
        return float(self.config.temperature) if self.sampled else 1.0

    def process_logits(self, logits: Tensor, prefix: Tensor, prompt_length: int, limit: int) -> Tensor:
        """Logits in float32 after the processors, (vocab,).

        Args:
            logits: predictions after `prefix`, (vocab,).
            prefix: prompt and committed tokens, (length,).
            prompt_length, limit: number of prompt tokens and maximum number of tokens of the sequence.
        """
        processed = logits.float()[None]
        for processor in self._processors(prompt_length, limit) if self._length_dependent else self._processors(1, 2):
            processed = processor(prefix[None], processed)
        return processed[0]

    def probabilities(self, processed: Tensor) -> Tensor:
        """Distribution to sample from, after temperature and truncation; same shape as the processed logits."""
        config = self.config
        return apply_temperature_top_k_top_p(processed, config.temperature, config.top_k, config.top_p, config.min_p)

    def perturbed_logits(self, processed: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
        """Scores with the next token as argmax: the logits, or log-probabilities plus Gumbel noise when sampling.

        Args:
            processed: logits after the processors, (rows, n, vocab).
            seeds: (rows,).
            positions: positions of the next tokens, (rows, n).
        """
        if not self.sampled:
            return processed
        return self.probabilities(processed).log() + gumbel(seeds, positions, processed.shape[2])


def new_generator(device: torch.device, seed: int | None, sample: int = 0) -> torch.Generator:
    """A generator with the seed of a sample, `seed + sample`; without a seed, a random one.

    Raises:
        ConfigError: for a seed that is no whole number.
    """
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(seed_number(seed_number(seed) + sample))


def first_seed(generator: torch.Generator) -> int:
    """Noise seed of the first sequence of a `generate` call with this generator; further sequences count up from the seed."""
    return int(torch.randint(2**48, (), generator=generator, device=generator.device))


def validate_processors(config: GenerationConfig, vocabulary: int) -> None:
    """Run every processor once.

    Raises:
        ConfigError: for a setting that fails in use, for example a token beyond the vocabulary.
    """
    cpu = torch.device("cpu")  # an accelerator may not be usable after an index out of range
    for name, processor in logits_processors(config, 1, 2, cpu).items():
        value = getattr(config, name)
        try:
            length = int(value[0]) + 2 if name == "exponential_decay_length_penalty" else 1  # it starts after so many tokens
            processor(torch.zeros(1, 1, dtype=torch.long).expand(1, max(1, length)), torch.zeros(1, vocabulary))
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ConfigError(f"{name}={value!r} cannot be used with {vocabulary} tokens: {first_line(error)}") from error


def logits_processors(config: GenerationConfig, width: int, limit: int, device: torch.device) -> dict[str, LogitsProcessor]:
    """Logits processors of transformers' generate, in transformers' order, by the name of the setting; without sampling warpers.

    Args:
        width: number of prompt tokens.
        limit: maximum number of tokens.
    Raises:
        ConfigError: for a value that transformers refuses.
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
