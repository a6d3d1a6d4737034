"""Whether a trunk can be decoded exactly is asked once, and the answer kept: it must not depend on when."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import Request, SamplingParams, complete, ngram_drafter
from headway.decoding.exactness import attention_windows, exactness_issue, length_issue
from tests.references import FREE, padded, reference
from tests.tiny import tiny_trunk


def test_a_trunk_that_is_asked_while_it_trains_decodes_with_drafts_later() -> None:
    trunk = tiny_trunk("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    trunk.train()
    assert exactness_issue(trunk) is None
    assert trunk.training and trunk.transformer.drop.training
    out = HeadwayModel.from_trunk(trunk, count=2).eval().generate(torch.tensor([[5, 6, 7]]), max_new_tokens=12, adaptive=False)
    assert out.stats.num_draft_tokens


@pytest.mark.parametrize(("window", "positions"), [(8, 128), (64, 256), (256, 1024), (120, 128)])
def test_a_trunk_with_windows_of_its_own_is_detected_however_long_they_are(window, positions):
    types = [[["global", "local"], 1]]
    trunk = tiny_trunk("gpt_neo", num_hidden_layers=2, attention_types=types, window_size=window, max_position_embeddings=positions)
    assert "logits differ" in exactness_issue(trunk)
    model, lengths = HeadwayModel.from_trunk(trunk, count=0).eval(), (3, min(window + 20, positions - 12))
    rows = [torch.randint(3, 61, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in lengths]
    ids, mask = padded(rows)
    with pytest.warns(UserWarning, match="decodes autoregressively"):
        found = model.generate(ids, attention_mask=mask, max_new_tokens=10, drafter=ngram_drafter(), **FREE)
    assert found.sequences[:, ids.shape[1] :].tolist() == reference(trunk, rows, max_new_tokens=10, **FREE)


def test_windows_of_masks_that_headway_makes_are_exact_at_any_length():
    for window in (7, 100, 4096):
        assert exactness_issue(tiny_trunk("mistral", sliding_window=window)) is None


@pytest.mark.parametrize(
    "name", ["window_size", "attention_window_size", "local_attn_window_size", "attention_chunk_size", "local_attention"]
)
def test_a_window_too_long_to_be_probed_is_named_for_texts_beyond_it_alone(name):
    trunk = tiny_trunk()
    setattr(trunk.config, name, 700)
    assert attention_windows(trunk.config) == {name: 700} and exactness_issue(trunk) is None
    assert length_issue(trunk, 700) is None and f"700 tokens ({name}) is too long to be probed" in length_issue(trunk, 701)


def test_requests_too_long_for_exact_batches_are_decoded_beside_those_that_fit():
    trunk = tiny_trunk(max_position_embeddings=32, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0})
    model = HeadwayModel.from_trunk(trunk, count=2).eval()
    prompts = [[5, 9, 23], [7, 31] * 10, [8]]
    requests = [Request(p, SamplingParams(max_new_tokens=20, ignore_eos=True)) for p in prompts]
    found = {c.request_index: list(c.token_ids) for c in complete(model, None, requests)}
    assert [found[n] for n in range(3)] == reference(trunk, prompts, max_new_tokens=20, **FREE)


@pytest.mark.parametrize("architecture", ["afmoe", "doge"])
def test_trunks_with_unusual_attention_calls_are_served(architecture):
    """Views of the attention output (afmoe), and masks with a head dimension (doge)."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_shared_experts": 1, "head_dim": 8}
    assert exactness_issue(tiny_trunk(architecture, **(experts if architecture == "afmoe" else {}))) is None
