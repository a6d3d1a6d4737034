"""Arguments mean what they mean to transformers' `generate`, and one that cannot is refused by name."""

import warnings

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from headway import HeadwayModel
from headway.decoding import why_not_exact
from headway.errors import ConfigError
from tests.tiny import tiny_trunk

IDS = torch.randint(3, 61, (3, 9), generator=torch.Generator().manual_seed(0))
IDS[0, :4] = IDS[1, :2] = 0  # padding
MANY_EOS = list(range(3, 30))


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_trunk(tiny_trunk(), count=3)


def check(model, ids=IDS, **kwargs):
    expected = model.trunk.generate(ids, do_sample=False, **kwargs)
    assert torch.equal(model.generate(ids, **kwargs).sequences, expected)
    return expected


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_length": 20},
        {"max_length": 31},
        {"generation_config": GenerationConfig(max_new_tokens=40)},
        {"max_new_tokens": 20, "bad_words_ids": [[5], [7, 9]]},
        {"max_new_tokens": 20, "suppress_tokens": [5, 6]},
        {"max_new_tokens": 20, "begin_suppress_tokens": [58, 5]},
        {"max_new_tokens": 20, "forced_eos_token_id": 2},
        {"max_new_tokens": 20, "min_length": 20, "eos_token_id": MANY_EOS},
        {"max_new_tokens": 20, "min_new_tokens": 8, "eos_token_id": MANY_EOS, "pad_token_id": 0},
        {"max_new_tokens": 20, "exponential_decay_length_penalty": (3, 1.5)},
        {"max_new_tokens": 20, "sequence_bias": [[[5], 3.0]]},
        {"max_new_tokens": 20, "repetition_penalty": 1.3},
        {"max_new_tokens": 20, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 12},
    ],
    ids=lambda arguments: "-".join(arguments) or "none",
)
def test_arguments_give_the_tokens_that_transformers_gives(model, arguments):
    check(model, **arguments)


def test_rotary_models_go_on_past_their_context_as_in_transformers():
    assert check(HeadwayModel.from_trunk(tiny_trunk(max_position_embeddings=24), count=3), max_new_tokens=40).shape[1] == 49


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_change_with_the_length_decode_plainly_beyond_it(kind):
    rope = {"rope_type": kind, "rope_theta": 10000.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [8.0, 2.0, 3.0, 5.0], "original_max_position_embeddings": 32}
        trunk = tiny_trunk("phi3", original_max_position_embeddings=32, rope_parameters=rope)
    else:
        trunk = tiny_trunk(max_position_embeddings=32, rope_parameters={**rope, "factor": 4.0})
    model = HeadwayModel.from_trunk(trunk, count=3)
    with pytest.warns(UserWarning, match="positions change beyond 32 tokens"):
        check(model, max_new_tokens=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check(model, max_new_tokens=20)


def test_a_plain_fallback_serves_right_padded_rows_too():
    trunk = tiny_trunk(
        "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, intermediate_size=48
    )
    assert why_not_exact(trunk) is not None
    model = HeadwayModel.from_trunk(trunk, count=1)
    right = torch.tensor([[5, 9, 23, 4], [7, 31, 0, 0]])
    with pytest.warns(UserWarning, match="decodes plainly"):
        out = model.generate(right, attention_mask=(right != 0).long(), max_new_tokens=7, eos_token_id=None)
    for row, found in zip(([5, 9, 23, 4], [7, 31]), out.sequences, strict=True):
        alone = trunk.generate(torch.tensor([row]), max_new_tokens=7, do_sample=False, eos_token_id=None)
        assert found[4:].tolist() == alone[0, len(row) :].tolist()
    assert (out.stats.tokens, out.stats.forwards, out.stats.acceptance) == (14, 14, ())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_token": 3}, "Did you mean 'max_new_tokens'"),
        ({"sead": 3}, "Did you mean 'seed'"),
        ({"max_time": 0.1}, "max_time"),
        ({"top_h": 0.4}, "top_h"),
        ({"typical_p": 0.4}, "typical_p"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate"),
        ({"output_scores": True}, "output_scores"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
        ({"logits_processor": [1]}, "logits_processor"),
        ({"repetition_penalty": -1.0}, "strictly positive"),
        ({"do_sample": True, "top_p": 1.5}, "top_p"),
        ({"do_sample": True, "top_k": -1}, "top_k"),
        ({"num_return_sequences": 2}, "do_sample"),
        ({"max_length": 5}, "max_new_tokens must be at least 1"),
        ({"attention_mask": torch.ones(3, 4)}, "attention_mask is"),
        ({"attention_mask": torch.zeros(3, 9)}, "Row 0"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_named(model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        model.generate(IDS, **arguments)


def test_stop_strings_end_rows_where_transformers_ends_them(shared):
    folder = shared / "models" / "stories260k"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = HeadwayModel.from_trunk(str(folder), count=3)
    ids = tokenizer("Once upon a time", return_tensors="pt")["input_ids"]
    stops = {"stop_strings": ["named L", "play with"], "tokenizer": tokenizer}
    assert check(model, ids, max_new_tokens=80, **stops).shape[1] < ids.shape[1] + 80


class Listener:
    def __init__(self):
        self.heard, self.ended = [], False

    def put(self, tokens):
        self.heard.append(tokens.tolist())

    def end(self):
        self.ended = True


@pytest.mark.parametrize("plain", [False, True])
def test_a_streamer_hears_the_prompt_and_then_every_token_once(model, plain):
    listener = Listener()
    out = model.generate(IDS[2:], max_new_tokens=12, eos_token_id=None, streamer=listener, plain=plain)
    assert listener.heard[0] == IDS[2:].tolist() and listener.ended
    assert [token for (token,) in listener.heard[1:]] == out.sequences[0, 9:].tolist()
    with pytest.raises(ConfigError, match="one row"):
        model.generate(IDS, streamer=listener)


def test_sampling_leaves_the_global_generator_alone_with_and_without_a_seed(model):
    before = torch.get_rng_state()
    for source in ({}, {"seed": 3}, {"generator": torch.Generator().manual_seed(3)}, {"seed": 3, "plain": True}):
        model.generate(IDS, do_sample=True, max_new_tokens=5, **source)
        assert torch.equal(before, torch.get_rng_state())
    drawn = [model.generate(IDS, do_sample=True, max_new_tokens=9, seed=3).sequences for _ in range(2)]
    assert torch.equal(*drawn)
    several = model.generate(IDS, do_sample=True, max_new_tokens=9, seed=3, num_return_sequences=2).sequences
    assert several.shape == (6, 18) and torch.equal(several[::2, :9], several[1::2, :9])


def test_each_module_is_left_in_the_mode_it_was_in(model):
    model.train()
    model.trunk.eval()
    model.generate(IDS, max_new_tokens=3)
    assert (model.training, model.trunk.training, model.heads.training) == (True, False, True)
    model.eval()


def test_figures_add_up(model):
    stats = model.generate(IDS, max_new_tokens=12, eos_token_id=None, adaptive=False).stats
    assert stats.tokens == 36
    assert stats.tokens == stats.forwards + sum(stats.accepted)  # each forward of a row gives one token and what it kept
    assert all(a <= r for a, r in zip(stats.accepted, stats.reached, strict=True))
    assert set(stats.seconds) == {"prefill", "draft", "verify", "accept"}
