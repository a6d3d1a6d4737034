"""lm-eval's model interface: log-likelihoods exactly as its `hf` model computes them, generation through the engine.

Use it as `lm_eval.simple_evaluate(model=HeadwayLM("folder"), tasks=[...])`, or `headway eval --task lm-eval:gsm8k,piqa`.
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
    """`hf` with another way to generate: all requests go through one engine, rows join as others end, drafts save forwards.

    Args:
        pretrained: folder, hub id, `embedded`, or a model; then with its tokenizer.
        batch_size: rows decoded, or scored, at once.
        drafter: a name of `DRAFTERS`. plain: decode without drafts.
        adaptive: draft as much as pays on this machine, otherwise always as much as the drafter can.
        seed: of what is drawn where a task samples.
        kwargs: those of lm-eval's HFLM, such as max_length or add_bos_token.
    Raises: ConfigError without lm-eval; CheckpointError for a model that cannot be loaded.
    """

    def __init__(
        self,
        pretrained: str | HeadwayModel,
        tokenizer: Any = None,
        batch_size: int = 16,
        drafter: str = "heads",
        plain: bool = False,
        adaptive: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if isinstance(pretrained, str):
            pretrained, loaded = load_model_and_tokenizer(pretrained)
            tokenizer = tokenizer if tokenizer is not None else loaded
        super().__init__(pretrained=pretrained.trunk, tokenizer=tokenizer, batch_size=batch_size, **kwargs)
        self.headway, self.adaptive = pretrained, adaptive
        self.drafter = drafter_by_name(drafter, pretrained, speculative=not plain)
        self.seed, self.decoded, self.seconds = seed, list[DecodeStats](), 0.0

    @property
    def stats(self) -> DecodeStats:
        """What all generation so far took; `seconds` is the time of it on the clock."""
        return DecodeStats.merge(self.decoded)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to their stop strings. What the engine cannot do, such as beam search, `hf` does."""
        began = time.monotonic()
        ours: dict[int, tuple[Request, list[str]]] = {}
        if exactness_issue(self.headway.trunk) is None and self.mixed_precision_dtype is None:
            for number, request in enumerate(requests):
                context, arguments = request.args
                try:
                    ours[number] = self._request(context, arguments, number)
                except ConfigError as error:
                    warnings.warn(f"{error} These requests are decoded plainly.", stacklevel=2)
        theirs = [number for number in range(len(requests)) if number not in ours]
        texts: dict[int, str] = {}
        numbers = list(ours)
        bar = tqdm(total=len(numbers), disable=disable_tqdm or not numbers, desc="Running generate_until requests")

        rows = self.batch_size if isinstance(self.batch_size, int) else 16
        asked = [ours[number][0] for number in numbers]
        how: dict[str, Any] = {"drafter": self.drafter, "max_batch_size": rows, "adaptive": self.adaptive}
        for completion in complete(self.headway, self.tokenizer, asked, **how):
            number = numbers[completion.request_index]
            texts[number] = self._text(list(completion.token_ids), ours[number][1])
            self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
            self.decoded.append(completion.stats)
            bar.update(1)
        bar.close()
        self.seconds += time.monotonic() - began
        if theirs:
            plainly = super().generate_until([requests[number] for number in theirs], disable_tqdm)
            texts |= dict(zip(theirs, plainly, strict=True))
        return [texts[number] for number in range(len(requests))]

    def _request(self, context: str, arguments: dict[str, Any], number: int) -> tuple[Request, list[str]]:
        """What `hf` would ask of transformers. Raises ConfigError where the engine does not know a setting."""
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
        thinks = self.think_end_token
        if isinstance(thinks, int) and thinks in tokens:
            tokens = tokens[len(tokens) - tokens[::-1].index(thinks) :]
        text = self.tok_decode(tokens)
        text = text.lstrip() if isinstance(thinks, int) else text
        return postprocess_generated_text(text, stops, thinks if isinstance(thinks, str) else None)
