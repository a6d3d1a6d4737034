"""Whether a trunk can be served exactly with several tokens a step on ragged rows: tried once, before it first decodes.

Some models build masks or positions of their own inside (GPT-Neo does) and would be wrong without a word.
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from headway.decoding.cache import RaggedCache
from headway.errors import UnsupportedModelError
from headway.trunk import TrunkView

_results: WeakKeyDictionary[nn.Module, dict[tuple, bool]] = WeakKeyDictionary()
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the logits' spread; half precision gets 0.1


def can_be_served(view: TrunkView) -> bool:
    """Run a short ragged prefill, a step with wrong drafts and one more, and compare with plain passes without a cache."""
    key = (view.config._attn_implementation, view.model.dtype, str(view.model.device))
    known = _results.setdefault(view.model, {})
    if key not in known:
        try:
            known[key] = _agrees(view)
        except (UnsupportedModelError, TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            # whatever a foreign model raises when it meets a mask or cache it did not expect: it is not served
            known[key] = False
    return known[key]


@torch.no_grad()
def _agrees(view: TrunkView) -> bool:
    device, vocabulary = view.model.device, view.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    lengths, total = (11, 6), 20
    tokens = torch.randint(0, vocabulary, (2, total), generator=generator).to(device)
    wrong = torch.randint(0, vocabulary, (2, 3), generator=generator).to(device)
    cache = RaggedCache(2, total)
    first = torch.tensor(lengths, device=device)[:, None]
    found = [_step(view, cache, tokens[:, : lengths[0]], torch.arange(lengths[0], device=device).expand(2, -1))]
    steps = torch.arange(3, device=device)
    _step(view, cache, torch.cat([tokens.gather(1, first), wrong[:, 1:]], 1), first + steps)
    found.append(_step(view, cache, tokens.gather(1, first + steps), first + steps))
    for r, length in enumerate(lengths):
        expected = view.model(input_ids=tokens[r : r + 1, : length + 3], use_cache=False).logits[0].float()
        ours = torch.cat([found[0][r, :length], found[1][r]]).float()
        bound = TOLERANCE.get(view.model.dtype, 0.1) * expected.std().clamp(min=1e-6)
        if not bool(((ours - expected).abs() <= bound + 1e-5).all()):
            return False
    return True


def _step(view: TrunkView, cache: RaggedCache, ids: Tensor, positions: Tensor) -> Tensor:
    keys = cache.place(positions, int(positions.max()) + 1)
    return view.unembedding.logits(view.run(ids, positions, view.masks(positions, keys), cache).last)
