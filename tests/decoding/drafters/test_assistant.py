"""Drafts of an assistant are the assistant's own greedy continuation, and never change the text."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway import HeadwayModel
from headway.decoding import assistant_drafter
from headway.decoding.drafters import assistant
from headway.decoding.drafters.base import DrafterFactory, build_drafter
from headway.errors import ConfigError
from tests.references import check_batch_invariance, check_greedy, check_sampling, prompts, reference
from tests.tiny import tiny_trunk


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_trunk(tiny_trunk(), count=0)


def similar(trunk, noise=0.02):
    """A copy of a trunk with slightly changed weights: many drafts are accepted, not all."""
    other = type(trunk)(trunk.config).eval()
    other.load_state_dict(trunk.state_dict())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in other.parameters():
            weights += noise * torch.randn(weights.shape, generator=generator)
    return other


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_greedy_equals_transformers(model, batch):
    stats = check_greedy(model, prompts(batch), assistant_drafter(similar(model.trunk)), max_new_tokens=30)
    assert 0 < sum(stats.num_accepted_tokens_per_pos) < sum(stats.num_drafts_per_pos)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_trunk_as_its_own_assistant_has_every_draft_accepted(model, batch):
    stats = check_greedy(model, prompts(batch), assistant_drafter(model.trunk, depth=3), max_new_tokens=29)
    assert sum(stats.num_drafts_per_pos) > 0 and stats.num_accepted_tokens_per_pos == stats.num_drafts_per_pos
    ids, drafter = torch.tensor([[5, 9, 23]] * batch), assistant_drafter(model.trunk)
    stats = model.generate(
        ids, max_new_tokens=29, do_sample=True, seed=1, drafter=drafter, adaptive=False
    ).stats  # p / q is 1 up to rounding
    assert sum(stats.num_drafts_per_pos) > 0 and stats.num_accepted_tokens_per_pos == stats.num_drafts_per_pos


@pytest.mark.parametrize("architecture", ["gemma3_text", "gpt2", "gpt_neox"])
def test_an_assistant_may_be_of_another_architecture(model, architecture):
    check_greedy(model, prompts(3), assistant_drafter(tiny_trunk(architecture, num_hidden_layers=3)), max_new_tokens=15)


def test_length_limits_and_eos_inside_a_draft_end_the_sequence_there(model):
    rows = [[5, 9, 23, 4] * 3, [7, 31, 7, 31, 7]]
    for limit in range(1, 8):
        check_greedy(model, rows, assistant_drafter(model.trunk), max_new_tokens=limit)
    for eos in sorted(set(reference(model.trunk, rows, max_new_tokens=12)[1])):
        check_greedy(model, rows, assistant_drafter(model.trunk), max_new_tokens=12, eos_token_id=[eos, 60])


def check_own(helper, drafts):
    for text, drafted in drafts.items():
        if drafted:
            ids = torch.tensor([text])  # with a mask: a sampled token may equal the padding token
            found = helper.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=len(drafted), eos_token_id=None)
            assert drafted == found[0, len(text) :].tolist()


def recording(make, drafts):
    """The same drafter, with the drafts recorded by the text before the drafts."""

    def build(model, cache):
        drafter = build_drafter(make, model, cache)
        plain = drafter.draft

        def draft(batch, count):
            found = plain(batch, count)
            for r, row in enumerate(batch.rows):
                end = len(row.tokens)
                drafts[tuple(row.tokens)] = batch.tokens[r, end : end + min(count, row.max_accepted, found.lengths[r])].tolist()
            return found

        drafter.draft = draft
        return drafter

    return DrafterFactory(build)


def test_drafts_equal_the_assistants_own_continuation_after_rejections_and_batch_changes(model, monkeypatch):
    monkeypatch.setattr(assistant, "MAX_PREFILL_TOKENS", 3)  # prompts need several forwards
    helper, drafts = similar(model.trunk), {}
    rows = [*prompts(4), [5, 6, 5, 6], *prompts(2, seed=1)]
    stats = check_batch_invariance(model, rows, [20, 6, 25, 14, 1, 17, 11], recording(assistant_drafter(helper, depth=3), drafts))
    assert 0 < sum(stats.num_accepted_tokens_per_pos) < sum(stats.num_drafts_per_pos)
    check_own(helper, drafts)


def test_an_assistant_with_a_shorter_context_drafts_up_to_its_end(model):
    short = tiny_trunk("gpt2", max_position_embeddings=16, n_positions=16)
    drafts = {}
    check_greedy(model, prompts(4), recording(assistant_drafter(short), drafts), max_new_tokens=30, eos_token_id=None)
    lengths = {len(text): len(drafted) for text, drafted in drafts.items()}
    assert max(length + drafted for length, drafted in lengths.items() if drafted) == 17  # the last draft is never processed
    assert max(lengths) > 20
    check_own(short, drafts)


@pytest.mark.slow
def test_story_with_an_assistant_equals_the_trunks_greedy_text(shared):
    folder = shared / "models" / "stories260k"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = HeadwayModel.from_trunk(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), count=0)
    rows = [tokenizer(text)["input_ids"] for text in ("Once upon a time", "Lily and Tom went to the park. They", "The")]
    check_greedy(model, rows, assistant_drafter(tiny_trunk(vocab_size=512, num_hidden_layers=1)), max_new_tokens=30)
    stats = check_greedy(model, rows, assistant_drafter(model.trunk), max_new_tokens=60)
    assert stats.num_accepted_tokens_per_pos == stats.num_drafts_per_pos and stats.tokens_per_forward > 4


@pytest.mark.slow
def test_sampled_sequences_follow_the_enumerated_distribution():
    other = tiny_trunk(seed=1, vocab_size=5, bos_token_id=None, eos_token_id=None, pad_token_id=0, num_hidden_layers=1)
    check_sampling(assistant_drafter(other, depth=2), {"temperature": 1.3, "top_k": 4, "top_p": 0.9})


def test_an_assistant_that_does_not_fit_is_refused(model):
    def refused(helper, message):
        with pytest.raises(ConfigError, match=message):
            model.generate(torch.tensor([[5, 9]]), drafter=assistant_drafter(helper))

    refused(tiny_trunk(vocab_size=64), "among 64 tokens and the model among 61")
    refused(tiny_trunk().to("meta"), "is on meta and the model on cpu")
    refused(tiny_trunk().train(), "training mode")
    masks_inside = tiny_trunk(
        "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, intermediate_size=48
    )
    refused(masks_inside, "GPTNeoForCausalLM cannot be an assistant")
    with pytest.raises(ConfigError, match="depth of at least 1, got 0"):
        assistant_drafter(tiny_trunk(), depth=0)
