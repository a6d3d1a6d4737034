"""Mask tokens share the forward of the drafts that they follow, and never need a forward of their own."""

import pytest
import torch

from headway.decoding import fallback_drafter, heads_drafter, ngram_drafter
from headway.decoding.engine import Engine
from tests.references import FREE, alone, check_heads, perturbed_gated_lora, repeating_model, short_prompts, submit


class Planned:
    """A controller with a given cycle of draft sizes."""

    def __init__(self, draft_sizes):
        self.draft_sizes, self.turn, self.recorded = draft_sizes, 0, []

    def can_skip(self, rows):
        return False

    def choose_draft_length(self, rows, most, remaining, catch_up_tokens, straggler_penalty):
        self.turn += 1
        return min(self.draft_sizes[(self.turn - 1) % len(self.draft_sizes)], most)

    def record_step(self, rows, drafts, accepted, took, catch_up_tokens):
        self.recorded.append((drafts, catch_up_tokens))


@pytest.mark.slow
@pytest.mark.parametrize("tree", ["chain", "dynamic"])
def test_mask_tokens_need_no_forward_of_their_own(tree):
    model = repeating_model("gated-lora", 3)
    calls = []
    Engine(model)  # runs the trunk once, to check exactness and to measure the cache
    handle = model.view.decoder.register_forward_hook(lambda *_: calls.append(1))
    out = model.generate(torch.tensor([[5, 9, 23, 4] * 3]), max_new_tokens=24, adaptive=False, drafter=heads_drafter(tree))
    handle.remove()
    assert out.stats.num_sequence_forwards == out.stats.num_steps == len(calls) < 16


@pytest.mark.parametrize("tree", ["chain", "dynamic"])
def test_a_step_after_a_step_without_drafts_has_none_and_the_next_step_has_drafts(tree):
    model = perturbed_gated_lora()
    engine = Engine(model, heads_drafter(tree), max_batch_size=3)
    engine.controller = controller = Planned([2, 0, 1, 3, 3, 0, 0, 7])
    rows = [submit(engine, prompt, max_new_tokens=40, **FREE) for prompt in short_prompts(3)]
    engine.run()
    assert [row.new_tokens for row in rows] == [alone(model, prompt, max_new_tokens=40) for prompt in short_prompts(3)]
    drafts, catch_up_tokens = zip(*controller.recorded[:8], strict=True)
    # prompts have mask tokens; step 2 has none; step 3 has one per token; the mask tokens missing in step 7 are counted in step 8
    assert drafts[:7] == (2, 0, 0, 1, 3, 0, 0) and drafts[7] == 0
    assert catch_up_tokens[:7] == (0, 0, 3, 6, 0, 0, 0) and catch_up_tokens[7] == 9


def test_sequences_that_join_a_running_batch_have_drafts_at_once():
    model = repeating_model("gated-lora", 3)
    engine = Engine(model, heads_drafter("chain"), max_batch_size=4, adaptive=False, prefill_chunk=3)
    texts = [[5, 9, 23, 4] * 3, [7, 31, 8, 44, 7, 31], [50, 12, 50], [20, 21] * 5]
    rows = [submit(engine, text, max_new_tokens=21, **FREE) for text in texts[:2]]
    for _ in range(6):
        engine.step()
    rows += [submit(engine, text, max_new_tokens=21, **FREE) for text in texts[2:]]
    engine.run()
    assert [row.new_tokens for row in rows] == [alone(model, text, max_new_tokens=21) for text in texts]
    stats = engine.stats()
    assert stats.num_drafts_per_pos[0] >= stats.num_sequence_forwards - 4 - 8  # prompts, and last steps of sequences


def test_ngram_drafts_before_mask_tokens_leave_the_text_unchanged():
    model = repeating_model("gated-lora", 3)
    both = fallback_drafter(ngram_drafter(shortest=2), heads_drafter("chain"))
    ids = torch.tensor([[5, 9, 23, 4] * 2, [50, 12, 7, 31, 8, 44, 7, 31]])
    out = model.generate(ids, max_new_tokens=25, drafter=both, adaptive=False, **FREE)
    assert out.sequences[:, 8:].tolist() == [alone(model, row.tolist(), max_new_tokens=25) for row in ids]


def test_mask_tokens_stay_within_learned_positions():
    model = perturbed_gated_lora("gpt2", count=4)
    context = model.view.context
    text = torch.randint(3, 60, (1, context - 9), generator=torch.Generator().manual_seed(0)).tolist()
    for tree in ("chain", "dynamic"):
        check_heads(model, text, tree=tree, max_new_tokens=9, eos_token_id=None)


def test_without_cache_slots_for_mask_tokens_sequences_decode_without_drafts(monkeypatch):
    model = perturbed_gated_lora()
    engine = Engine(model, heads_drafter("dynamic"), max_batch_size=2, adaptive=False)
    monkeypatch.setattr(engine.scheduler, "has_slots", lambda slots: False)
    rows = [submit(engine, prompt, max_new_tokens=12, **FREE) for prompt in short_prompts(2)]
    engine.run()
    assert engine.stats().num_draft_tokens == 0
    assert [row.new_tokens for row in rows] == [alone(model, prompt, max_new_tokens=12) for prompt in short_prompts(2)]
