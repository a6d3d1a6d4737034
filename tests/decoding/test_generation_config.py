"""Arguments mean what they mean to transformers' `generate`, and one that cannot is refused by name."""

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from headway import HeadwayModel
from headway.decoding import (
    Request,
    SamplingParams,
    assistant_drafter,
    complete,
    exactness_issue,
    fallback_drafter,
    heads_drafter,
    ngram_drafter,
)
from headway.decoding.engine import Engine
from headway.decoding.generation_config import position_limit, resolve
from headway.decoding.sequence_factory import SAMPLER_CACHE_SIZE
from headway.errors import ConfigError
from tests.references import FREE, padded, reference, submit
from tests.tiny import tiny_trunk

IDS = torch.randint(3, 61, (3, 9), generator=torch.Generator().manual_seed(0))
IDS[0, :4] = IDS[1, :2] = 0  # padding
MANY_EOS = list(range(3, 30))


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_trunk(tiny_trunk(), count=3)


def named(value):
    """A name that is the same in every process: without addresses."""
    return re.sub(r" at 0x\w+", "", str(value))


def check(model, ids=IDS, **kwargs):
    expected = model.trunk.generate(ids, do_sample=False, **kwargs)
    assert torch.equal(model.generate(ids, **kwargs).sequences, expected)
    return expected


@pytest.mark.slow
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
        {"max_new_tokens": 20, "eos_token_id": torch.tensor(MANY_EOS), "pad_token_id": 0},
        {"max_new_tokens": 20, "eos_token_id": torch.tensor(5)},
        {"max_new_tokens": 20, "suppress_tokens": torch.tensor([5, 6])},
        {"max_new_tokens": 20, "repetition_penalty": None, "no_repeat_ngram_size": None},
        {"max_new_tokens": 20, "stopping_criteria": [], "logits_processor": []},
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
    assert exactness_issue(trunk) is not None
    model = HeadwayModel.from_trunk(trunk, count=1)
    right = torch.tensor([[5, 9, 23, 4], [7, 31, 0, 0]])
    with pytest.warns(UserWarning, match="decodes autoregressively"):
        out = model.generate(right, attention_mask=(right != 0).long(), max_new_tokens=7, eos_token_id=None)
    for row, found in zip(([5, 9, 23, 4], [7, 31]), out.sequences, strict=True):
        alone = trunk.generate(torch.tensor([row]), max_new_tokens=7, do_sample=False, eos_token_id=None)
        assert found[4:].tolist() == alone[0, len(row) :].tolist()
    assert (out.stats.tokens, out.stats.num_sequence_forwards, out.stats.acceptance) == (14, 14, ())


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
        ({"attention_mask": IDS.tolist()}, "attention_mask must be a tensor"),
        ({"max_new_tokens": "5"}, "max_new_tokens must be a whole number, got '5'"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number, got 2.5"),
        ({"min_length": "5"}, "min_length must be a whole number"),
        ({"eos_token_id": "x"}, "eos_token_id must be a token or several"),
        ({"eos_token_id": [2, 3.5]}, "eos_token_id must be a token or several"),
        ({"eos_token_id": torch.tensor([2.5])}, "eos_token_id must be a token or several"),
        ({"do_sample": True, "temperature": "x"}, "temperature must be a number above 0, got 'x'"),
        ({"do_sample": True, "temperature": float("inf")}, "temperature must be a number above 0"),
        ({"do_sample": True, "min_p": 2}, "min_p must be from 0 to 1"),
        ({"sequence_bias": {(999,): 1.0}}, "sequence_bias=.* cannot be used with 61 tokens"),
        ({"bad_words_ids": [[999]]}, "bad_words_ids=.* cannot be used with 61 tokens"),
        ({"forced_eos_token_id": 999}, "forced_eos_token_id=999 cannot be used with 61 tokens"),
        ({"generation_config": {"max_new_tokens": 3}}, "generation_config must be a GenerationConfig"),
        ({"stop_strings": "a", "tokenizer": 3}, "stop_strings needs the tokenizer"),
        (
            {"stop_strings": ["a", ""], "tokenizer": SimpleNamespace(get_vocab=dict)},
            "stop_strings must be texts, none of them empty",
        ),
        ({"acceptance": ["coupled"]}, "no acceptance rule"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": 1, "generator": torch.Generator()}, "seed and generator exclude each other"),
        ({"max_batch_size": 0}, "max_batch_size must be a whole number of at least 1"),
        ({"drafter": "ngram"}, "drafter must be a factory such as ngram_drafter.*got 'ngram'"),
        ({"drafter": ngram_drafter}, "drafter=ngram_drafter is not called yet"),
        ({"drafter": heads_drafter}, "drafter=heads_drafter is not called yet"),
        ({"drafter": fallback_drafter(ngram_drafter(), heads_drafter)}, "drafter=heads_drafter is not called yet"),
    ],
    ids=named,
)
def test_what_cannot_be_served_is_named(model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        model.generate(IDS, **arguments)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[5, 9]], "input_ids must be a tensor"),
        (torch.tensor([5, 9]), r"one row is input_ids\[None\]"),
        (torch.tensor([[5.0, 9.0]]), "input_ids must be whole numbers"),
        (torch.tensor([[5, 99]]), "the token 99, but this model knows 0 to 60"),
        (torch.tensor([[5, -3]]), "the token -3, but this model knows 0 to 60"),
    ],
    ids=named,
)
def test_prompts_that_the_model_cannot_read_are_refused(model, ids, message):
    with pytest.raises(ConfigError, match=message):
        model.generate(ids, max_new_tokens=3)


def test_padding_may_be_a_token_that_the_model_does_not_know(model):
    masked = torch.where(IDS == 0, -100, IDS)
    found = model.generate(masked, attention_mask=IDS != 0, max_new_tokens=5).sequences
    assert torch.equal(found[:, 9:], model.generate(IDS, max_new_tokens=5).sequences[:, 9:])


def test_none_switches_off_what_it_switches_off_in_transformers(model):
    arguments = dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "num_return_sequences", "do_sample"))
    theirs, _ = model.trunk._prepare_generation_config(None, **arguments)
    ours = resolve(model.trunk, None, arguments)
    assert (theirs.temperature, theirs.top_p, theirs.top_k, theirs.min_p) == (None,) * 4
    assert (ours.temperature, ours.top_p, ours.top_k, ours.min_p) == (1.0, 1.0, 0, None)
    assert (ours.num_return_sequences, ours.do_sample) == (1, False)
    off = {"do_sample": True, "seed": 3, "max_new_tokens": 9}
    none = model.generate(IDS, temperature=None, top_p=None, top_k=None, **off).sequences
    assert torch.equal(none, model.generate(IDS, temperature=1.0, top_p=1.0, top_k=0, **off).sequences)


def test_seeds_may_be_whole_numbers_of_any_size(model):
    def drawn(seed):
        return model.generate(IDS, do_sample=True, max_new_tokens=9, seed=seed).sequences

    assert torch.equal(drawn(2**64 + 3), drawn(3)) and not torch.equal(drawn(2**64 + 3), drawn(2**64 + 4))


def test_the_coldest_temperature_is_greedy(model):
    greedy = model.generate(IDS, max_new_tokens=9).sequences
    assert torch.equal(model.generate(IDS, do_sample=True, temperature=1e-40, max_new_tokens=9, seed=1).sequences, greedy)


@pytest.mark.parametrize("how", [{}, {"do_sample": True, "seed": 4}], ids=named)
def test_rows_say_the_same_however_many_are_decoded_together(model, how):
    whole = model.generate(IDS, max_new_tokens=9, eos_token_id=[5, 9, 20], pad_token_id=0, **how).sequences
    for rows in (1, 2, 7):
        found = model.generate(IDS, max_new_tokens=9, eos_token_id=[5, 9, 20], pad_token_id=0, max_batch_size=rows, **how)
        assert torch.equal(found.sequences, whole)


def test_a_plain_fallback_decodes_as_many_rows_together_as_it_may():
    trunk = tiny_trunk("gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4)
    model = HeadwayModel.from_trunk(trunk, count=0)
    settings = {"max_new_tokens": 6, "eos_token_id": list(range(20, 40)), "pad_token_id": 0}
    whole, parts = (model.generate(IDS, max_batch_size=rows, **settings) for rows in (None, 2))
    assert torch.equal(whole.sequences, parts.sequences)
    assert parts.stats.tokens == whole.stats.tokens and parts.stats.num_steps > whole.stats.num_steps


@pytest.mark.parametrize("tree", [[], [()], [(0, 0)], [(0,), (0,)], [(-1,)], [(0.5,)], 3, [3]], ids=named)
def test_paths_that_make_no_tree_are_refused(tree):
    with pytest.raises(ConfigError, match="tree must be dynamic, chain, or paths"):
        heads_drafter(tree)


def test_an_assistant_may_be_a_model_with_heads_and_must_be_a_model(model):
    settings = {"max_new_tokens": 9, "eos_token_id": None}
    expected = model.generate(IDS, speculative=False, **settings).sequences
    assert torch.equal(model.generate(IDS, drafter=assistant_drafter(model), **settings).sequences, expected)
    with pytest.raises(ConfigError, match="An assistant is a loaded model, got 'embedded'"):
        assistant_drafter("embedded")
    with pytest.raises(ConfigError, match="depth of at least 1, got '3'"):
        assistant_drafter(model, "3")


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ([5, 999], {}, "the token 999, but this model knows 0 to 60"),
        ([5, -1], {}, "the token -1"),
        ([[5], [6]], {}, "whole numbers, the tokens of one row"),
        ([5.5, 6], {}, "whole numbers, the tokens of one row"),
        ("hello", {}, "give tokenizer"),
        (torch.tensor([[5, 6]]), {}, "submit each row on its own"),
        (torch.tensor([5.0, 6.0]), {}, "whole numbers"),
        (torch.tensor([], dtype=torch.long), {}, "no token"),
        (5, {}, "whole numbers, the tokens of one row"),
        ([5], {"seed": "x"}, "seed must be a whole number"),
        ([5], {"seed": 1.5}, "seed must be a whole number"),
        ([5], {"sequence_bias": {(999,): 1.0}}, "sequence_bias"),
        ([5], {"bad_words_ids": [[999]]}, "bad_words_ids"),
        ([5], {"forced_eos_token_id": 999}, "forced_eos_token_id"),
        ([5], {"num_return_sequences": 3, "do_sample": True}, "give n= to the Request"),
        ([5], {"streamer": print}, "on_tokens= takes a function"),
        ([5], {"generator": torch.Generator()}, "seed= takes a number"),
        ([5], {"speculative": False}, "an Engine without drafter="),
        ([5], {"plain": True}, "speculative=False"),
        ([5], {"drafter": None}, "an argument of Engine"),
        ([5], {"attention_mask": None}, "prompts come without padding"),
        ([5], {"acceptance": ["coupled"]}, "no acceptance rule"),
    ],
    ids=named,
)
def test_an_engine_refuses_at_once_what_would_fail_later(model, prompt, arguments, message):
    engine = Engine(model)
    with pytest.raises(ConfigError, match=message):
        submit(engine, prompt, **{"max_new_tokens": 4, **arguments})
    assert engine.idle


def test_an_engine_takes_tensors_and_seeds_of_any_size(model):
    engine = Engine(model, seed=2**70 + 1)
    settings = {"max_new_tokens": 9, "eos_token_id": torch.tensor([60, 2]), "do_sample": True}
    rows = [
        submit(engine, p, seed=s, **settings) for p, s in [(IDS[2], 3), (IDS[2].int(), 2**64 + 3), (IDS[2].tolist(), -(2**65) + 3)]
    ]
    submit(engine, [5], max_new_tokens=3, do_sample=True)
    engine.run()
    assert rows[0].new_tokens == rows[1].new_tokens == rows[2].new_tokens and rows[0].tokens[:9] == IDS[2].tolist()


def test_an_engine_forgets_the_oldest_of_many_settings(model):
    engine = Engine(model)
    for number in range(SAMPLER_CACHE_SIZE + 20):
        submit(engine, [5], max_new_tokens=1, do_sample=True, temperature=1 + number / 100)
    assert len(engine._factory._samplers) == SAMPLER_CACHE_SIZE
    engine.run()


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


@pytest.mark.parametrize("speculative", [True, False])
def test_a_streamer_hears_the_prompt_and_then_every_token_once(model, speculative):
    listener = Listener()
    out = model.generate(IDS[2:], max_new_tokens=12, eos_token_id=None, streamer=listener, speculative=speculative)
    assert listener.heard[0] == IDS[2:].tolist() and listener.ended
    assert [token for (token,) in listener.heard[1:]] == out.sequences[0, 9:].tolist()
    with pytest.raises(ConfigError, match="one row"):
        model.generate(IDS, streamer=listener)


def test_sampling_leaves_the_global_generator_alone_with_and_without_a_seed(model):
    before = torch.get_rng_state()
    for source in ({}, {"seed": 3}, {"generator": torch.Generator().manual_seed(3)}, {"seed": 3, "speculative": False}):
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
    assert stats.tokens == stats.num_sequence_forwards + sum(
        stats.num_accepted_tokens_per_pos
    )  # each forward of a row gives one token and what it kept
    assert all(a <= r for a, r in zip(stats.num_accepted_tokens_per_pos, stats.num_drafts_per_pos, strict=True))
    assert set(stats.seconds) == {"prefill", "draft", "verify", "accept"}


LEARNED = {
    "gpt2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "biogpt": {},
    "gpt_bigcode": {"multi_query": True},
    "gpt_neo": {"attention_types": [[["global"], 3]]},
}


@pytest.mark.parametrize("architecture", LEARNED)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("speculative", [True, False])
def test_rows_of_learned_positions_have_limits_of_their_own(architecture, side, speculative):
    trunk = tiny_trunk(architecture, max_position_embeddings=160, **LEARNED[architecture])
    model = HeadwayModel.from_trunk(trunk, count=2)
    rows = [torch.randint(3, 61, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 155, 60)]
    ids, mask = padded(rows, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=40, speculative=speculative, pad_token_id=0, **FREE)
    expected = reference(trunk, rows[:1], max_new_tokens=40, **FREE) + reference(trunk, rows[1:2], max_new_tokens=6, **FREE)
    expected += reference(trunk, rows[2:], max_new_tokens=40, **FREE)
    assert out.sequences[:, ids.shape[1] :].tolist() == [row + [0] * (40 - len(row)) for row in expected]
    assert out.stats.tokens == 86
    if exactness_issue(trunk) is None:
        engine = Engine(model)
        assert [submit(engine, row, max_new_tokens=40).limit for row in rows] == [45, 161, 100]


def test_positions_that_grow_have_no_end():
    sizes = {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "scale_embedding": False}
    trunk = tiny_trunk("xglm", max_position_embeddings=24, **sizes)
    assert position_limit(trunk) is None
    model = HeadwayModel.from_trunk(trunk, count=0)
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=40, **FREE).sequences.shape[1] == 43


def test_a_prompt_beyond_the_context_is_noted_before_the_work_and_refused_if_strict():
    model = HeadwayModel.from_trunk(tiny_trunk(max_position_embeddings=24), count=1).eval()
    ids = torch.full((1, 30), 5)
    with pytest.warns(
        UserWarning, match="The prompt has 30 tokens, but this model was made for 24; the output is likely meaningless"
    ):
        model.generate(ids, max_new_tokens=3)
    with pytest.raises(ConfigError, match=r"made for 24.*strict_context"):
        model.generate(ids, max_new_tokens=3, strict_context=True)
    with pytest.raises(ConfigError, match=r"made for 24.*strict_context"):
        Engine(model).submit(Request(ids[0], SamplingParams(max_new_tokens=3, strict_context=True)))
    with pytest.warns(UserWarning, match="30 tokens") as noted:
        list(complete(model, None, [Request(ids[0], SamplingParams(max_new_tokens=3))] * 3))
    assert len(noted) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.generate(ids[:, :24], max_new_tokens=3, strict_context=True)


@pytest.mark.parametrize(
    "tokens",
    [
        {3, 4},
        frozenset([3, 4]),
        (3, 4),
        [np.int64(3), 4],
        np.array([3, 4]),
        torch.tensor([3, 4]),
        [torch.tensor(3), 4],
        range(3, 5),
    ],
    ids=named,
)
def test_end_tokens_may_be_of_any_type_that_holds_whole_numbers(model, tokens):
    expected = model.generate(IDS, max_new_tokens=9, eos_token_id=[3, 4], pad_token_id=0).sequences
    assert torch.equal(model.generate(IDS, max_new_tokens=9, eos_token_id=tokens, pad_token_id=0).sequences, expected)
    row = submit(Engine(model), [5, 6], max_new_tokens=3, eos_token_id=tokens)
    assert row.stopping.eos == {3, 4}


@pytest.mark.parametrize("pad", [0, [0], np.int64(0), torch.tensor([0]), (np.int32(0),)], ids=named)
def test_a_padding_token_may_be_a_list_of_one(model, pad):
    expected = model.generate(IDS, max_new_tokens=9, eos_token_id=MANY_EOS, pad_token_id=0).sequences
    assert torch.equal(model.generate(IDS, max_new_tokens=9, eos_token_id=MANY_EOS, pad_token_id=pad).sequences, expected)
    with pytest.raises(ConfigError, match="pad_token_id must be a token"):
        model.generate(IDS, max_new_tokens=3, pad_token_id=[0, 1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_beams": 4}, "num_beams=4.*generation_config=.none. leaves that out"),
        ({"typical_p": 0.3}, "typical_p=0.3.*generation_config"),
        ({"stop_strings": ["x"]}, "stop_strings needs the tokenizer"),
    ],
    ids=named,
)
def test_settings_of_a_models_own_generation_config_can_be_left_out(setting, message):
    trunk = tiny_trunk()
    trunk.generation_config.update(eos_token_id=[5, 9], **setting)
    model = HeadwayModel.from_trunk(trunk, count=1).eval()
    with pytest.raises(ConfigError, match=message):
        model.generate(IDS, max_new_tokens=9)
    trunk_config = resolve(trunk, "none", {})
    assert trunk_config.eos_token_id == [5, 9]
    found = model.generate(IDS, max_new_tokens=9, generation_config="none").sequences
    expected = tiny_trunk().generate(IDS, do_sample=False, max_new_tokens=9, eos_token_id=[5, 9])
    assert torch.equal(found, expected)
    request = Request(IDS[2], SamplingParams(max_new_tokens=9, generation_config="none"))
    completion = next(complete(model, None, [request]))
    assert list(completion.token_ids) == expected[2, 9 : 9 + len(completion.token_ids)].tolist()


@pytest.mark.parametrize(
    "setting", [{"return_dict_in_generate": True}, {"prompt_lookup_num_tokens": 3}, {"output_scores": True}], ids=named
)
def test_settings_without_effect_on_the_text_are_ignored_in_a_models_own_generation_config(setting):
    trunk = tiny_trunk()
    trunk.generation_config.update(**setting)
    model = HeadwayModel.from_trunk(trunk, count=1).eval()
    assert torch.equal(
        model.generate(IDS, max_new_tokens=9).sequences, tiny_trunk().generate(IDS, do_sample=False, max_new_tokens=9)
    )
