"""Trees have at most the given number of drafts, for every drafter."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import RaggedKVCache, fallback_drafter, heads_drafter, limit_draft_tokens, ngram_drafter, proposes_trees
from headway.decoding.drafters.base import build_drafter
from headway.errors import ConfigError
from tests.tiny import tiny_trunk

IDS = torch.tensor([[5, 6, 7]])
TREE = [(0,), (1,), (2,), (0, 0), (0, 0, 0)]


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_trunk(tiny_trunk(), count=3).eval()


def build(factory, model):
    return build_drafter(factory, model, RaggedKVCache(0, 0, len(model.view.layers) + model.count))


@pytest.mark.parametrize("tree", ["dynamic", TREE], ids=str)
@pytest.mark.parametrize("drafts", [0, 1, 2, 4])
@pytest.mark.parametrize("adaptive", [True, False])
def test_no_step_has_more_drafts_than_the_limit_and_the_text_is_the_same(model, tree, drafts, adaptive):
    settings = {"max_new_tokens": 12, "eos_token_id": None}
    out = model.generate(IDS, drafter=limit_draft_tokens(drafts, heads_drafter(tree)), adaptive=adaptive, **settings)
    assert out.stats.num_draft_tokens <= drafts * (out.stats.num_sequence_forwards - 1)
    assert adaptive or (out.stats.num_draft_tokens > 0) == (drafts > 0)
    assert torch.equal(out.sequences, model.generate(IDS, speculative=False, **settings).sequences)


def test_a_static_tree_is_cut_to_its_first_drafts(model):
    drafter = build(limit_draft_tokens(2, heads_drafter(TREE)), model)
    assert (drafter.paths, drafter.parents, drafter.draft_sizes) == ([[0], [1]], [0, 0], (0, 2))


def test_siblings_make_a_tree_and_a_path_does_not(model):
    """Even with fewer drafts than heads."""
    assert proposes_trees(build(heads_drafter([(0,), (1,)]), model))
    assert not proposes_trees(build(heads_drafter([(0,), (0, 0)]), model))
    with pytest.raises(ConfigError, match="Only drafters of chains"):
        build(fallback_drafter(ngram_drafter(), heads_drafter([(0,), (1,)])), model)


@pytest.mark.parametrize("drafts", [-1, 1.5, "2", None])
def test_a_limit_that_is_no_number_of_drafts_is_refused(drafts):
    with pytest.raises(ConfigError, match="limit_draft_tokens needs a number of drafts"):
        limit_draft_tokens(drafts, heads_drafter())
