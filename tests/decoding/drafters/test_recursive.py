"""Drafts of chained and recursive heads, from caches and along trees, equal the heads' predictions for the whole text."""

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import heads_drafter
from headway.decoding.drafters.recursive import RecursiveDrafter
from headway.errors import ConfigError
from headway.heads import FAMILIES as CLASSES
from tests.references import padded, prompts
from tests.tiny import FAMILIES, tiny_trunk

RECURSIVE = [(family, options) for family, options in FAMILIES if CLASSES[family].drafting != "parallel"]


def model_of(family, options, architecture="llama", count=3):
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), family=family, count=count, **options).eval()
    g = torch.Generator().manual_seed(1)
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=g)
    return model


def drafted_trees(model, tree, rows, count=None, **kwargs):
    """(committed tokens, {path of tokens from the root}) of every step of a decoding."""
    seen = []
    plain = RecursiveDrafter.draft

    def record(self, batch, num_draft_tokens):
        draft = plain(self, batch, num_draft_tokens if count is None else count)
        for r, row in enumerate(batch.rows):
            if draft.parents is None:
                tokens = batch.draft_tokens(draft.lengths[r])[r].tolist()
                paths = [tuple(tokens[: n + 1]) for n in range(len(tokens))]
            else:
                tokens = batch.draft_tokens(draft.parents.shape[1])[r].tolist()
                paths = [()]
                for token, parent in zip(tokens, draft.parents[r].tolist(), strict=True):
                    paths.append((*paths[parent], token))
            if max(map(len, paths), default=0) <= row.max_accepted:  # drafts beyond the limit of a sequence are arbitrary
                seen.append((list(row.tokens), [path for path in paths if path]))
        return draft

    ids, mask = padded(rows, "left")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecursiveDrafter, "draft", record)
        model.generate(ids, attention_mask=mask, adaptive=False, eos_token_id=None, drafter=heads_drafter(tree), **kwargs)
    return seen


@torch.no_grad()
def said(model, tokens, path):
    """Log-probabilities of the token after `path`, from a forward over the whole text."""
    k = len(path)
    state = model(torch.tensor([[*tokens, *path]])).hidden_states[1 + k][0, len(tokens) - 2]
    return model.unembeddings[1 + k].logits(state).log_softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), RECURSIVE)
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_chains_equal_the_predictions_for_the_whole_text(family, options, architecture):
    model = model_of(family, options, architecture)
    seen = drafted_trees(model, "chain", prompts(3), max_new_tokens=20)
    assert len(seen) > 12
    for tokens, paths in seen[::3]:
        for path in paths:
            assert path[-1] == int(said(model, tokens, path[:-1]).argmax())


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), RECURSIVE)
@pytest.mark.parametrize(("count", "architecture"), [(7, "mistral"), (23, "llama")])
def test_trees_hold_the_most_probable_paths_by_enumeration(family, options, count, architecture):
    """The most probable extensions of the ten most probable paths per depth; the chain of most probable tokens comes first."""
    model = model_of(family, options, architecture)
    width = min(10, -(-count // 2))
    seen = drafted_trees(model, "dynamic", [[7], *prompts(2)], count, max_new_tokens=9)
    for tokens, paths in seen[::4]:
        deepest = max(map(len, paths))
        frontier, found, chain = {(): 0.0}, {}, ()
        for _ in range(deepest):
            bonus_token = {}
            for path, score in frontier.items():
                top = said(model, tokens, path).topk(width)
                bonus_token |= {(*path, i): score + v for v, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)}
            found |= bonus_token
            chain = (*chain, int(said(model, tokens, chain).argmax()))
            ranked = sorted(bonus_token, key=bonus_token.__getitem__, reverse=True)[:width]
            frontier = {path: bonus_token[path] for path in ({*ranked} if chain in ranked else {chain, *ranked[:-1]})}
        chains = [chain[: n + 1] for n in range(deepest)]
        others = sorted(set(found) - set(chains), key=found.__getitem__, reverse=True)
        assert paths[:deepest] == chains
        assert set(paths) == {*chains, *others[: len(paths) - deepest]}


@pytest.mark.parametrize(("family", "options"), RECURSIVE)
def test_a_static_tree_is_refused(family, options):
    with pytest.raises(ConfigError, match=r"tree is dynamic or chain, not \[\(0,\)\]"):
        model_of(family, options).generate(torch.tensor([[5, 6]]), drafter=heads_drafter([(0,)]), max_new_tokens=2)
