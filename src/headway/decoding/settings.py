"""The arguments of transformers' `generate` that apply, with its defaults, and the processors they stand for."""

import copy
import difflib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    StopStringCriteria,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from headway.errors import ConfigError

# settings that would change the output and are not served: value that means "off"
REFUSED = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "guidance_scale": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
}
REFUSED |= {
    "eta_cutoff": 0.0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}
REFUSED |= {
    "exponential_decay_length_penalty": None,
    "begin_suppress_tokens": None,
    "min_length": 0,
    "watermarking_config": None,
}
REFUSED |= {"dola_layers": None, "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}


@dataclass(frozen=True)
class Settings:
    """How one call decodes."""

    do_sample: bool
    max_new_tokens: int
    min_new_tokens: int
    eos: tuple[int, ...]
    pad: int
    returned: int  # sequences a prompt
    history: Any  # LogitsProcessorList of what depends on the tokens before: penalties
    warpers: Any  # LogitsProcessorList of what does not: temperature and truncation
    stop: StopStringCriteria | None

    @classmethod
    def resolve(
        cls,
        trunk: PreTrainedModel,
        width: int,
        base: GenerationConfig | None,
        tokenizer: Any,
        arguments: dict[str, Any],
    ) -> "Settings":
        """Merge the trunk's generation config with the arguments; `width` is that of the prompt block.

        Raises: ConfigError for an argument that is unknown (the nearest is named), not served, or out of range.
        """
        config = copy.deepcopy(base or trunk.generation_config)
        known = set(GenerationConfig().to_dict()) | set(vars(config))
        for name in arguments:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise ConfigError(f"generate has no argument {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        try:
            config.update(**arguments)
        except ValueError as error:
            raise ConfigError(f"generate: {str(error).splitlines()[0]}") from error
        for name, off in REFUSED.items():
            if (value := getattr(config, name, None)) not in (None, off):
                raise ConfigError(f"generate with {name}={value!r} is not served; leave it out.")
        sample = bool(config.do_sample)
        new = config.max_new_tokens
        if new is None:
            new = config.max_length - width if config.max_length not in (None, 20) else 20
        if new < 1:
            raise ConfigError(f"max_new_tokens leaves {new} tokens to generate; ask for at least 1.")
        limit = getattr(trunk.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and width > limit:
            raise ConfigError(f"The prompt has {width} tokens, but this model reads at most {limit}. Shorten the prompt.")
        if limit is not None:
            new = min(new, limit - width + 1)  # the last token is never read
        eos = config.eos_token_id
        eos = () if eos is None else tuple(eos) if isinstance(eos, list | tuple) else (int(eos),)
        pad = config.pad_token_id
        stop = None
        if config.stop_strings:
            if tokenizer is None:
                raise ConfigError("stop_strings needs the tokenizer: pass tokenizer=...")
            strings = [config.stop_strings] if isinstance(config.stop_strings, str) else list(config.stop_strings)
            stop = StopStringCriteria(tokenizer, strings)
        return cls(
            do_sample=sample,
            max_new_tokens=new,
            min_new_tokens=config.min_new_tokens or 0,
            eos=eos,
            pad=pad if pad is not None else (eos[0] if eos else 0),
            returned=config.num_return_sequences or 1,
            history=_history(config),
            warpers=_warpers(config) if sample else LogitsProcessorList(),
            stop=stop,
        )

    def scores(self, logits: Tensor, rows: list[list[int]], prompts: list[int], drafts: Tensor) -> Tensor:
        """The trunk's logits as transformers' processors leave them.

        Args:
            logits: (batch, depth + 1, vocab); the one at j follows the row and its first j drafts.
            rows: tokens of each row so far; prompts: how many of them are prompt; drafts: (batch, depth).
        Returns: same shape, float32.
        """
        scores = logits.float()
        if len(self.history) or self.min_new_tokens:
            for r, row in enumerate(rows):
                for j in range(scores.shape[1]):
                    prefix = torch.tensor([row + drafts[r, :j].tolist()], device=logits.device)
                    scores[r, j] = self.history(prefix, scores[r, j : j + 1].clone())[0]
                    if self.eos and len(row) - prompts[r] + j < self.min_new_tokens:
                        scores[r, j, list(self.eos)] = -torch.inf
        return self.warp(scores)

    def warp(self, scores: Tensor) -> Tensor:
        """Temperature and truncation, (..., vocab)."""
        if not len(self.warpers):
            return scores
        flat = scores.reshape(-1, scores.shape[-1])
        return self.warpers(flat.new_zeros(len(flat), 0, dtype=torch.long), flat).reshape(scores.shape)


def _history(config: GenerationConfig) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty)))
    if config.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.suppress_tokens:
        processors.append(SuppressTokensLogitsProcessor(config.suppress_tokens))
    return processors


def _warpers(config: GenerationConfig) -> LogitsProcessorList:
    """In the order, and with the defaults, of transformers' own `generate`."""
    warpers = LogitsProcessorList()
    try:
        if config.temperature not in (None, 1.0):
            warpers.append(TemperatureLogitsWarper(config.temperature))
        if (top_k := 50 if config.top_k is None else config.top_k) != 0:
            warpers.append(TopKLogitsWarper(top_k))
        if config.top_p is not None and config.top_p < 1.0:
            warpers.append(TopPLogitsWarper(config.top_p))
        if config.min_p is not None:
            warpers.append(MinPLogitsWarper(config.min_p))
    except ValueError as error:
        raise ConfigError(str(error).split("\n")[0]) from error
    return warpers
