"""Can this trunk be decoded exactly with ragged rows? Ask it once, and compare with its own plain forward.

A short ragged batch with drafts, some of them wrong, goes through the cache; the logits must be those of the whole rows
without a cache. A model that builds its own masks inside (GPT-Neo) differs, and is then decoded plainly.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headway.decoding.kv_cache import RaggedKVCache
from headway.trunk import TrunkView, eval_mode
from headway.trunk.attention import use_decode_attention
from headway.trunk.quantization import trunk_is_quantized

# largest difference of logits, as a share of the largest logit
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-6, torch.float16: 2e-2, torch.bfloat16: 6e-2}
TF32_TOLERANCE = 1e-2
LONGEST_WINDOW = 512  # a sliding window up to this long is tried out beyond its length

_probe_results: WeakKeyDictionary[PreTrainedModel, dict[tuple[Any, ...], str | None]] = WeakKeyDictionary()


def exactness_issue(trunk: PreTrainedModel) -> str | None:
    """None where ragged decoding is exact, else the reason. The answer is kept for as long as the model lives."""
    attention = trunk.config.get_text_config()._attn_implementation
    key = (trunk.dtype, trunk.device.type, attention, trunk_is_quantized(trunk))
    answers = _probe_results.setdefault(trunk, {})
    if key not in answers:
        answers[key] = _probe(trunk)
    return answers[key]


def length_issue(trunk: PreTrainedModel, length: int) -> str | None:
    """Rotary angles that change with the length of the whole input would disagree with what the cache holds."""
    config = trunk.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type")} | {part.get("rope_type") for part in rope.values() if isinstance(part, dict)}
    for kind in kinds & {"dynamic", "longrope"}:
        name = "original_max_position_embeddings"
        bound = rope.get(name) or getattr(config, name, None) or config.max_position_embeddings
        if length > bound:
            return f"its {kind} positions change beyond {bound} tokens"
    return None


def _probe(trunk: PreTrainedModel) -> str | None:
    try:
        with eval_mode(trunk):  # the answer is kept: dropout must not decide it
            difference = _difference(trunk)
    except Exception as error:  # a foreign model may fail in any way at all; each means the same here
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    tolerance = TOLERANCE.get(trunk.dtype, min(TOLERANCE.values()))
    if trunk.device.type == "cuda" and trunk.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        tolerance = TF32_TOLERANCE
    return None if difference <= tolerance else f"its logits differ by {difference:.1e} of the largest"


@torch.no_grad()
def _difference(trunk: PreTrainedModel) -> float:
    view = TrunkView(trunk)
    window = getattr(view.config, "sliding_window", None) or 0
    shortest = window + 2 if window <= LONGEST_WINDOW else 4
    starts = torch.tensor([shortest, shortest + 5])
    total = shortest + 12
    context = view.context
    if context is not None and context < total:  # a toy: stay within its positions
        starts, total = torch.tensor([1, 2]), min(total, max(context, 7))
    device = trunk.device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(view.config.vocab_size, (2, total), generator=generator).to(device)
    starts = starts.to(device)
    wrong = (ids + 1) % view.config.vocab_size
    plain = [trunk(input_ids=ids[r : r + 1]).logits[0] for r in range(2)]  # a row at a time, without padding or cache
    cache = RaggedKVCache(2, total)
    steps = torch.arange(3, device=device)
    prompt = torch.arange(int(starts.max()), device=device).expand(2, -1)
    second = starts[:, None] + steps
    worst = torch.zeros((), device=device)
    for positions, source, checked in (
        (torch.where(prompt < starts[:, None], prompt, -1), ids, None),
        (second, torch.where(torch.arange(total, device=device) == starts[:, None], ids, wrong), 1),  # two wrong drafts
        (second + 1, ids, None),  # over the slots of the wrong drafts
    ):
        logits = _step(view, cache, source, positions)
        for r in range(2):
            seen = positions[r] >= 0
            ours, theirs = logits[r][seen][:checked], plain[r][positions[r][seen]][:checked]
            worst = torch.maximum(worst, (ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
    return float(worst) if bool(torch.isfinite(worst)) else float("inf")


def _step(view: TrunkView, cache: RaggedKVCache, ids: Tensor, positions: Tensor) -> Tensor:
    visible = int(positions.max()) + 1
    cache.set_write_slots(positions, visible)
    inside = positions.clamp(min=0)
    with use_decode_attention(view.config):
        hidden_states = view.run(ids.gather(1, inside), inside, view.causal_masks(positions, visible), cache)
    return view.unembedding.logits(hidden_states.last)
