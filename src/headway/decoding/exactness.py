"""Probe of a trunk: is decoding in ragged batches exact? Measured once per trunk, against the trunk's own forward.

A short ragged batch with right and wrong drafts goes through the cache; the logits must equal the logits of whole rows without a
cache. A model that derives masks from the length of the cache (GPT-Neo) differs, and decodes autoregressively.
"""

import re
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headway.decoding.generation_config import position_limit
from headway.decoding.kv_cache import RaggedKVCache
from headway.trunk import TrunkView, eval_mode
from headway.trunk.attention import use_decode_attention
from headway.trunk.quantization import trunk_is_quantized

# maximum difference of logits, as a share of the largest logit
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-6, torch.float16: 2e-2, torch.bfloat16: 6e-2}
TF32_TOLERANCE = 1e-2
LONGEST_WINDOW = 512  # attention windows up to this length are probed beyond their end
MASKED_WINDOW = "sliding_window"  # the one window that Headway's masks contain, and that needs no probe beyond its end
# names of windows in configs: sliding_window, window_size, attention_window_size, local_attn_window_size, attention_chunk_size, ...
WINDOW_NAME = re.compile(r"window|local_att|attention_chunk")
NO_WINDOW_NAME = re.compile(r"^(max_window_layers|num_|use_)|pattern|layers")

_probe_results: WeakKeyDictionary[PreTrainedModel, dict[tuple[Any, ...], str | None]] = WeakKeyDictionary()


def exactness_issue(trunk: PreTrainedModel) -> str | None:
    """The reason why ragged decoding is not exact; None for exact decoding. The result is kept as long as the trunk lives."""
    attention = trunk.config.get_text_config()._attn_implementation
    key = (trunk.dtype, trunk.device.type, attention, trunk_is_quantized(trunk))
    results = _probe_results.setdefault(trunk, {})
    if key not in results:
        results[key] = _probe(trunk)
    return results[key]


def length_issue(trunk: PreTrainedModel, length: int) -> str | None:
    """The reason why ragged batches are not known to be exact for sequences of this length; None for exact batches.

    Rotary angles may depend on the length of the whole input; a cache keeps the old angles. Long attention windows are not probed.
    """
    config = trunk.config.get_text_config()
    for name, window in attention_windows(config).items():
        if name != MASKED_WINDOW and LONGEST_WINDOW < window < length:
            return f"its attention window of {window} tokens ({name}) is too long to be probed"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type")} | {part.get("rope_type") for part in rope.values() if isinstance(part, dict)}
    for kind in kinds & {"dynamic", "longrope"}:
        name = "original_max_position_embeddings"
        bound = rope.get(name) or getattr(config, name, None) or config.max_position_embeddings
        if length > bound:
            return f"its {kind} positions change beyond {bound} tokens"
    return None


def attention_windows(config: Any) -> dict[str, int]:
    """Lengths of all attention windows in a config, by field name."""
    windows = {}
    for name, value in vars(config).items():
        lengths = [value] if isinstance(value, int) else value if isinstance(value, list | tuple) else []
        lengths = [n for n in lengths if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        if lengths and WINDOW_NAME.search(name) and not NO_WINDOW_NAME.search(name):
            windows[name] = max(lengths)
    return windows


def _probe(trunk: PreTrainedModel) -> str | None:
    try:
        with eval_mode(trunk):  # dropout must not decide a result that is kept
            difference = _difference(trunk, _probe_length(trunk))
    except Exception as error:  # a foreign model may raise any exception; all mean the same here
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    tolerance = TOLERANCE.get(trunk.dtype, min(TOLERANCE.values()))
    if trunk.device.type == "cuda" and trunk.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        tolerance = TF32_TOLERANCE
    return None if difference <= tolerance else f"its logits differ by {difference:.1e} of the largest"


def _probe_length(trunk: PreTrainedModel) -> int:
    """Number of tokens of the longer probe row: beyond all windows that are probed, within the trunk's positions."""
    windows = attention_windows(trunk.config.get_text_config()).values()
    length = max([4, *(window for window in windows if window <= LONGEST_WINDOW)]) + 14
    positions = position_limit(trunk)
    return length if positions is None else min(length, positions)


@torch.no_grad()
def _difference(trunk: PreTrainedModel, length: int) -> float:
    """Largest difference of logits between ragged steps with a cache and whole rows without, as a share of the largest logit.

    Args:
        length: tokens of the longer row. The other row is short: masks counted from the end of the cache would hide all of it.
    """
    view = TrunkView(trunk)
    device = trunk.device
    starts = torch.tensor([min(4, length - 6), length - 5], device=device).clamp(min=1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(view.config.vocab_size, (2, length), generator=generator).to(device)
    wrong = (ids + 1) % view.config.vocab_size
    whole = [trunk(input_ids=ids[r : r + 1]).logits[0] for r in range(2)]  # a row at a time, without padding or cache
    cache = RaggedKVCache(2, length)
    steps = torch.arange(3, device=device)
    prompt = torch.arange(int(starts.max()), device=device).expand(2, -1)
    second = starts[:, None] + steps
    worst = torch.zeros((), device=device)
    for positions, source, checked in (
        (torch.where(prompt < starts[:, None], prompt, -1), ids, None),
        (second, torch.where(torch.arange(length, device=device) == starts[:, None], ids, wrong), 1),  # two wrong drafts
        (second + 1, ids, None),  # over the slots of the wrong drafts
    ):
        logits = _step(view, cache, source, positions)
        for r in range(2):
            valid = positions[r] >= 0
            ours, theirs = logits[r][valid][:checked], whole[r][positions[r][valid]][:checked]
            worst = torch.maximum(worst, (ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
    return float(worst) if bool(torch.isfinite(worst)) else float("inf")


def _step(view: TrunkView, cache: RaggedKVCache, ids: Tensor, positions: Tensor) -> Tensor:
    kv_length = int(positions.max()) + 1
    cache.set_write_slots(positions, kv_length)
    tokens = positions.clamp(min=0)
    with use_decode_attention(view.config):
        hidden_states = view.run(ids.gather(1, tokens), tokens, view.causal_masks(positions, kv_length), cache)
    return view.unembedding.logits(hidden_states.last)
