"""lm-eval's model interface: log-likelihoods of its `hf` model, and generation through the engine.

Use: `lm_eval.simple_evaluate(model=HeadwayLM("folder"), tasks=[...])`, or `headway eval --task lm-eval:gsm8k,piqa`.
"""

import time
import warnings
from collections.abc import Sequence
from typing import Any

from headway.decoding import DecodeStats, Request, SamplingParams, complete, exactness_issue
from headway.decoding.drafters import drafter_by_name
from headway.decoding.generation_config import resolve
from headway.errors import ConfigError
from headway.model import HeadwayModel, load_model_and_tokenizer

try:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
    from tqdm import tqdm
except ImportError as error:
    raise ConfigError(
        f"Tasks of lm-eval need the extra headway[lm-eval] ({error}): pip install 'headway[lm-eval]' installs it."
    ) from error


class HeadwayLM(HFLM):
    """lm-eval's `hf` model with speculative generation: all requests go through an engine with continuous batching.

    Args:
        pretrained: folder, hub id, `embedded`, or a model.
        tokenizer: tokenizer of the model; required for a model that is already loaded.
        batch_size: number of sequences decoded, or scored, at the same time.
        drafter: a name of `DRAFTERS`.
        speculative: draft and verify; otherwise decode autoregressively.
        adaptive: choose the number of drafts by speed; otherwise draft as many tokens as the drafter can.
        seed: seed of the samples in tasks that sample.
        kwargs: arguments of lm-eval's HFLM, for example max_length or add_bos_token.
    Raises:
        CheckpointError: the model cannot be loaded.
    """

    def __init__(
        self,
        pretrained: str | HeadwayModel,
        tokenizer: Any = None,
        batch_size: int = 16,
        drafter: str = "heads",
        speculative: bool = True,
        adaptive: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if isinstance(pretrained, str):
            pretrained, loaded = load_model_and_tokenizer(pretrained)
            tokenizer = tokenizer if tokenizer is not None else loaded
        super().__init__(pretrained=pretrained.trunk, tokenizer=tokenizer, batch_size=batch_size, **kwargs)
        self.headway, self.adaptive = pretrained, adaptive
        self.drafter = drafter_by_name(drafter, pretrained, speculative)
        self.seed, self.completion_stats, self.seconds = seed, list[DecodeStats](), 0.0

    @property
    def stats(self) -> DecodeStats:
        """Statistics of all generation until now. The wall-clock time is `seconds`."""
        return DecodeStats.merge(self.completion_stats)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to their stop strings. lm-eval's own `hf` decodes requests beyond the engine, for example beam search."""
        began = time.monotonic()
        supported: dict[int, tuple[Request, list[str]]] = {}  # number of the request -> request, stop strings
        if exactness_issue(self.headway.trunk) is None and self.mixed_precision_dtype is None:
            for number, request in enumerate(requests):
                context, arguments = request.args
                try:
                    supported[number] = self._request(context, arguments, number)
                except ConfigError as error:
                    warnings.warn(f"{error} lm-eval's own model decodes these requests.", stacklevel=2)
        texts: dict[int, str] = {}
        numbers = list(supported)
        completions = complete(
            self.headway,
            self.tokenizer,
            [supported[number][0] for number in numbers],
            drafter=self.drafter,
            max_batch_size=self.batch_size if isinstance(self.batch_size, int) else 16,
            adaptive=self.adaptive,
        )
        with tqdm(total=len(numbers), disable=disable_tqdm or not numbers, desc="Running generate_until requests") as bar:
            for completion in completions:
                number = numbers[completion.request_index]
                texts[number] = self._text(list(completion.token_ids), supported[number][1])
                self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
                self.completion_stats.append(completion.stats)
                bar.update(1)
        self.seconds += time.monotonic() - began
        if unsupported := [number for number in range(len(requests)) if number not in supported]:
            own = super().generate_until([requests[number] for number in unsupported], disable_tqdm)
            texts |= dict(zip(unsupported, own, strict=True))
        return [texts[number] for number in range(len(requests))]

    def _request(self, context: str, arguments: dict[str, Any], number: int) -> tuple[Request, list[str]]:
        """The request that `hf` would send to transformers, and the stop strings.

        Raises:
            ConfigError: the engine does not support a setting.
        """
        settings: dict[str, Any] = dict(normalize_gen_kwargs(arguments, self.max_gen_toks))
        stops = handle_stop_sequences(
            settings.pop("until", None), eos=self.tok_decode([self.eot_token_id], skip_special_tokens=False)
        )
        new = settings.pop("max_gen_toks")
        if new >= self.max_length:
            raise ConfigError(f"{new} tokens to generate leave no room for a prompt in a context of {self.max_length}.")
        ids, _ = self.tok_batch_encode([context], left_truncate_len=self.max_length - new, truncation=self.truncation)
        prompt = ids[0].tolist()
        settings["max_new_tokens"] = settings.pop("max_length", len(prompt) + new) - len(prompt)
        if not settings.get("do_sample") and not settings.get("temperature"):
            settings.pop("temperature", None)
        resolve(self.headway.trunk, None, settings)
        seed = (self.seed << 32) + number
        return Request(prompt, SamplingParams(stop_strings=tuple(stops), seed=seed, options=settings)), stops

    def _text(self, tokens: list[int], stops: list[str]) -> str:
        """Text of generated tokens, processed as in `hf`: without reasoning, cut at the stop strings."""
        think_end = self.think_end_token
        if isinstance(think_end, int) and think_end in tokens:
            tokens = tokens[len(tokens) - tokens[::-1].index(think_end) :]
        text = self.tok_decode(tokens)
        text = text.lstrip() if isinstance(think_end, int) else text
        return postprocess_generated_text(text, stops, think_end if isinstance(think_end, str) else None)
