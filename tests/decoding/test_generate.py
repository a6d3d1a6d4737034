"""Greedy output is the trunk's own, token for token, whatever drafts and however ragged the rows are."""

import functools
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway import HeadwayModel
from headway.decoding import assistant_drafter, fallback_drafter, heads_drafter, ngram_drafter
from headway.decoding.generate import _controllers
from headway.errors import ConfigError
from tests.references import check_heads, prompts, reference, repeating_model
from tests.tiny import ARCHITECTURES, FAMILIES, MORE_ARCHITECTURES, tiny_trunk

TREES = [
    ("parallel", "dynamic"),
    ("parallel", "chain"),
    ("sequential", "dynamic"),
    ("sequential", "chain"),
    ("medusa", "dynamic"),
    ("medusa", "chain"),
    ("hydra", "dynamic"),
    ("hydra", "chain"),
    ("redrafter", "dynamic"),
    ("eagle", "dynamic"),
    ("eagle3", "dynamic"),
    ("eagle3", "chain"),
    ("gated-lora", "dynamic"),
    ("gated-lora", "chain"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "count"), [*((each, 4) for each in ARCHITECTURES), ("llama", 1)])
@pytest.mark.parametrize(("family", "options"), FAMILIES)
def test_greedy_equals_transformers_on_every_architecture(architecture, family, options, count):
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), family=family, count=count, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a fall-back would hide that nothing was tested
        stats = check_heads(model, prompts(4), max_new_tokens=23)
    assert len(stats.acceptance) == count


@pytest.mark.slow
@pytest.mark.parametrize("architecture", MORE_ARCHITECTURES)
@pytest.mark.parametrize("family", ["parallel", "sequential", "eagle3"])
def test_greedy_equals_transformers_on_unusual_architectures(architecture, family):
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), family=family, count=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_heads(model, prompts(3), max_new_tokens=15)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_greedy_equals_transformers_on_ragged_batches(batch, side, count):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=count)
    fixed = [path for path in [(0,), (1,), (0, 0), (2,), (0, 1), (0, 0, 0), (1, 0), (0, 0, 0, 2)] if len(path) <= count]
    for tree in ("dynamic", "chain", fixed):
        check_heads(model, prompts(batch), side, tree, max_new_tokens=17)
    check_heads(model, prompts(batch), side, adaptive=True, max_new_tokens=17)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), FAMILIES)
@pytest.mark.parametrize("tree", ["dynamic", "chain"])
def test_greedy_equals_transformers_whatever_the_vocabulary_of_the_heads(family, options, tree, tmp_path):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3, **options)
    model.heads.set_draft_vocab(torch.tensor([40, 3, 17, 5, 23, 9, 2, 58]))
    check_heads(model, prompts(3), tree=tree, max_new_tokens=17)
    model.save_pretrained(tmp_path / "m")
    loaded = HeadwayModel.from_pretrained(tmp_path / "m")
    assert loaded.heads.draft_tokens.tolist() == [2, 3, 5, 9, 17, 23, 40, 58]
    check_heads(loaded, prompts(3), tree=tree, max_new_tokens=17)
    ids = torch.tensor([[5, 9, 23, 4, 17, 8]])
    for ours, theirs in zip(model(ids).hidden_states, loaded(ids).hidden_states, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
@functools.cache
@pytest.mark.parametrize(("family", "tree"), TREES)
def test_accepted_drafts_save_forwards_and_change_nothing(family, tree):
    model = repeating_model(family, 3)
    rows = [[5, 9, 23, 4] * 3, [7, 31, 8, 44, 7, 31], [50, 12, 50]]
    stats = check_heads(model, rows, tree=tree, max_new_tokens=29)
    assert stats.tokens_per_forward > (1.6 if tree == "dynamic" else 1.3)
    for limit in range(1, 9):  # the limit falls inside a draft somewhere
        assert check_heads(model, rows, tree=tree, max_new_tokens=limit).tokens == 3 * limit


@pytest.mark.slow
@pytest.mark.parametrize(("family", "tree"), TREES)
def test_an_eos_inside_a_draft_ends_the_row_there(family, tree):
    model = repeating_model(family, 3)
    rows = [[5, 9, 23, 4] * 3, [7, 31, 8, 44, 7, 31]]
    for eos in sorted(set(reference(model.trunk, rows, max_new_tokens=20)[0])):
        check_heads(model, rows, tree=tree, max_new_tokens=20, eos_token_id=[eos, 2], pad_token_id=0)


def test_context_end_inside_a_draft_is_respected():
    model = HeadwayModel.from_trunk(tiny_trunk("gpt2", max_position_embeddings=24, n_positions=24), count=4)
    out = model.generate(torch.tensor(prompts(1)), max_new_tokens=100, eos_token_id=None)
    assert out.sequences.shape[1] == 25


def test_repetition_penalty_and_ngram_ban_equal_transformers():
    model = repeating_model("parallel", 3)
    check_heads(model, prompts(3), max_new_tokens=19, repetition_penalty=1.4)
    check_heads(model, prompts(3), max_new_tokens=19, no_repeat_ngram_size=2)
    check_heads(model, prompts(3), max_new_tokens=19, min_new_tokens=12, eos_token_id=list(range(3, 40)), pad_token_id=0)


def test_eager_attention_is_served_as_well():
    trunk = tiny_trunk()
    trunk.set_attn_implementation("eager")
    check_heads(HeadwayModel.from_trunk(trunk, count=2), prompts(3), max_new_tokens=15)


def test_gpt_neo_is_detected_and_decodes_plainly_with_a_warning():
    trunk = tiny_trunk(
        "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, intermediate_size=48
    )
    model = HeadwayModel.from_trunk(trunk, count=1)
    with pytest.warns(UserWarning, match="decodes autoregressively"):
        check_heads(model, prompts(1), max_new_tokens=9)


def test_columns_of_padding_alone_take_no_positions_of_gpt_neo():
    trunk = tiny_trunk(
        "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, intermediate_size=48
    )
    positions = trunk.config.max_position_embeddings
    row = torch.randint(3, 61, (1, positions - 9))
    ids = torch.cat([torch.zeros(1, 2, dtype=torch.long), row], dim=1)
    model = HeadwayModel.from_trunk(trunk, count=1)
    with pytest.warns(UserWarning, match="decodes autoregressively"):
        output = model.generate(ids, attention_mask=(ids > 0).long(), max_new_tokens=9)
    assert output.sequences[:, ids.shape[1] :].tolist() == reference(trunk, row.tolist(), max_new_tokens=9)


@pytest.mark.slow
def test_real_model_decodes_its_own_story(shared):
    folder = shared / "models" / "stories260k"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(text)["input_ids"] for text in ("Once upon a time", "Lily and Tom went to the park. They", "The")]
    for family in ("parallel", "sequential"):
        model = HeadwayModel.from_trunk(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), family=family, count=3)
        check_heads(model, rows, max_new_tokens=60, pad_token_id=0)


def test_plain_decoding_is_one_token_a_forward():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    out = model.generate(torch.tensor(prompts(1)), max_new_tokens=12, eos_token_id=None, speculative=False)
    assert out.stats.tokens_per_forward == 1.0
    assert out.stats.acceptance == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_token": 3}, "Did you mean 'max_new_tokens'"),
        ({"num_beams": 2}, "num_beams"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"stop_strings": ["x"]}, "tokenizer"),
        ({"do_sample": True, "temperature": -1.0}, "temperature"),
    ],
)
def test_bad_arguments_are_clear_errors(arguments, message):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=1)
    with pytest.raises(ConfigError, match=message):
        model.generate(torch.tensor(prompts(1)), **arguments)


def test_a_prompt_longer_than_the_context_is_a_clear_error():
    model = HeadwayModel.from_trunk(tiny_trunk("gpt2", max_position_embeddings=8, n_positions=8), count=1)
    with pytest.raises(ConfigError, match="reads at most 8"):
        model.generate(torch.tensor(prompts(1)))


def test_what_one_drafter_taught_is_not_told_to_another_of_its_class():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    ids = torch.tensor([[5, 6, 7]])
    small, smaller = tiny_trunk(seed=3), tiny_trunk(num_hidden_layers=1)
    found = []
    for drafter in (
        *(ngram_drafter(), ngram_drafter(), ngram_drafter(shortest=3)),
        *(assistant_drafter(small), assistant_drafter(small), assistant_drafter(smaller)),
        *(heads_drafter([(0,), (1,)]), heads_drafter([(0,), (1,)]), heads_drafter([(0,), (0, 0)])),
        *(
            fallback_drafter(ngram_drafter(depth=2), heads_drafter("chain")),
            fallback_drafter(ngram_drafter(depth=2, longest=2), heads_drafter("chain")),
        ),
    ):
        model.generate(ids, max_new_tokens=3, drafter=drafter)
        found.append(len(_controllers[model]))
    assert found == [1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 8]
