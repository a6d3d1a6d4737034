"""Rows join, leave and fail, and each says what it would have said alone."""

import functools

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import FinishReason, Request, SamplingParams, assistant_drafter, fallback_drafter, heads_drafter
from headway.decoding import kv_cache as cache_module
from headway.decoding.drafters.ngram import ngram_drafter
from headway.decoding.engine import Engine
from headway.decoding.kv_cache import RaggedKVCache
from headway.errors import ConfigError, UnsupportedModelError
from tests.references import FREE, alone, short_prompts, submit
from tests.tiny import tiny_trunk


@pytest.fixture(scope="module", params=["parallel", "sequential", "medusa", "hydra", "eagle", "eagle3", "gated-lora"])
def model(request):
    return HeadwayModel.from_trunk(tiny_trunk(), family=request.param, count=3).eval()


@pytest.mark.slow
@pytest.mark.parametrize("drafter", [None, heads_drafter(), heads_drafter("chain"), ngram_drafter()])
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("together", [5, 16])
def test_sixteen_rows_that_come_and_go_say_what_they_say_alone(model, drafter, adaptive, together):
    engine = Engine(model, drafter, max_batch_size=together, prefill_chunk=4, adaptive=adaptive)
    limits = [1 + 3 * (n % 6) for n in range(16)]
    rows = [submit(engine, p, max_new_tokens=n, **FREE) for p, n in zip(short_prompts(8), limits, strict=False)]
    for _ in range(4):
        engine.step()
    rows += [submit(engine, p, max_new_tokens=n, **FREE) for p, n in zip(short_prompts(16)[8:], limits[8:], strict=True)]
    engine.run()
    assert engine.idle and all(row.finished for row in rows)
    for row, prompt, limit in zip(rows, [*short_prompts(8), *short_prompts(16)[8:]], limits, strict=True):
        assert row.new_tokens == alone(model, prompt, max_new_tokens=limit)


@pytest.mark.slow
def test_drawn_rows_say_what_they_say_alone(model):
    sampling = {"do_sample": True, "temperature": 1.3, "max_new_tokens": 12, **FREE}
    single = []
    for number, prompt in enumerate(short_prompts(6)):
        engine = Engine(model, None)
        single.append(submit(engine, prompt, seed=number, **sampling))
        engine.run()
    engine = Engine(model, heads_drafter(), max_batch_size=4)
    together = [submit(engine, prompt, seed=number, **sampling) for number, prompt in enumerate(short_prompts(6))]
    greedy = submit(engine, short_prompts(1)[0], max_new_tokens=12, **FREE)  # another way of choosing in the same batch
    engine.run()
    assert [row.new_tokens for row in together] == [row.new_tokens for row in single]
    assert greedy.new_tokens == alone(model, short_prompts(1)[0], max_new_tokens=12)


def test_rows_without_a_seed_differ_and_the_engines_seed_decides_them(model):
    def drawn(seed):
        engine = Engine(model, heads_drafter(), seed=seed)
        rows = [submit(engine, [5, 9], do_sample=True, max_new_tokens=12, **FREE) for _ in range(3)]
        engine.run()
        return [row.new_tokens for row in rows]

    first = drawn(1)
    assert len(set(map(tuple, first))) == 3
    assert drawn(1) == first != drawn(100)


def test_a_row_streams_its_own_tokens_and_a_cancelled_one_stops_early(model):
    engine = Engine(model, heads_drafter("chain"), max_batch_size=3)
    parts = {0: [], 1: [], 2: []}
    rows = [submit(engine, p, max_new_tokens=15, on_tokens=parts[n].extend, **FREE) for n, p in enumerate(short_prompts(3))]
    waiting = submit(engine, short_prompts(4)[3], max_new_tokens=15, **FREE)
    for _ in range(2):
        engine.step()
    rows[1].cancel()
    waiting.cancel()
    engine.run()
    assert waiting.finished and waiting.new_tokens == []
    whole = [alone(model, p, max_new_tokens=15) for p in short_prompts(3)]
    assert parts[0] == rows[0].new_tokens == whole[0] and parts[2] == rows[2].new_tokens == whole[2]
    assert rows[1].finished and parts[1] == rows[1].new_tokens == whole[1][: len(parts[1])] and 0 < len(parts[1]) < 15


def test_a_row_whose_listener_fails_ends_and_its_neighbours_do_not(model):
    def fail(_tokens):
        raise RuntimeError("the line is dead")

    engine = Engine(model, heads_drafter())
    bad = submit(engine, [5, 9, 23], max_new_tokens=10, on_tokens=fail, **FREE)
    good = submit(engine, [7, 31], max_new_tokens=10, **FREE)
    engine.run()
    assert str(bad.error) == "the line is dead" and bad.finished and len(bad.new_tokens) < 10
    assert good.error is None and good.new_tokens == alone(model, [7, 31], max_new_tokens=10)


@pytest.mark.slow
def test_rows_wait_until_the_tokens_of_all_fit(model):
    engine = Engine(model, None, max_batch_size=8, max_tokens=60)
    rows = [submit(engine, p, max_new_tokens=15 - len(p), **FREE) for p in short_prompts(9)]
    most = 0
    while not engine.idle:
        engine.step()
        most = max(most, len(engine.batch.rows) + len(engine.prefilling))
    assert most == 4
    for row, prompt in zip(rows, short_prompts(9), strict=True):
        assert row.new_tokens == alone(model, prompt, max_new_tokens=15 - len(prompt))
    with pytest.raises(ConfigError, match="A row of 64 tokens, with room for 0 drafts, is more than the 60"):
        submit(engine, [5] * 4, max_new_tokens=60)


def test_requests_that_cannot_be_served_are_refused_at_once(model):
    engine = Engine(model, heads_drafter())
    with pytest.raises(ConfigError, match="no token"):
        submit(engine, [])
    with pytest.raises(ConfigError, match="max_new_tokens must be at least 1"):
        submit(engine, [5], max_new_tokens=0)
    with pytest.raises(ConfigError, match="Did you mean 'temperature'"):
        submit(engine, [5], temprature=2.0)
    assert engine.idle
    short = HeadwayModel.from_trunk(tiny_trunk("gpt2", max_position_embeddings=24, n_positions=24), count=0)
    with pytest.raises(ConfigError, match="The prompt has 30 tokens, but this model reads at most 24"):
        submit(Engine(short), [5] * 30)
    own_masks = tiny_trunk(
        "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, intermediate_size=48
    )
    with pytest.raises(UnsupportedModelError, match="cannot be decoded exactly"):
        Engine(HeadwayModel.from_trunk(own_masks, count=0))


def test_a_row_that_memory_has_no_room_for_fails_alone(model, monkeypatch):
    engine = Engine(model, heads_drafter(), max_batch_size=2)
    first = submit(engine, [5, 9, 23], max_new_tokens=40, **FREE)
    engine.step()
    monkeypatch.setattr(cache_module.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    second = submit(engine, [7, 31], max_new_tokens=90, **FREE)
    engine.run()
    assert second.finished and second.new_tokens == []
    assert "GiB of memory are free. Decode fewer rows together" in str(second.error)
    assert first.error is None and first.new_tokens == alone(model, [5, 9, 23], max_new_tokens=40)
    with pytest.raises(ConfigError, match="Decode fewer rows together"):
        model.generate(torch.tensor([[5]]), max_new_tokens=5)


def test_trees_without_room_behind_the_rows_are_not_verified(monkeypatch):
    """Memory that suffices for the rows but not for drafts beside each other costs the drafts, not the rows."""
    model = HeadwayModel.from_trunk(tiny_trunk(), count=3).eval()
    resize = RaggedKVCache.resize

    def limited(self, rows, capacity):
        if capacity > 64:
            raise ConfigError("no memory")
        resize(self, rows, capacity)

    monkeypatch.setattr(RaggedKVCache, "resize", limited)
    engine = Engine(model, heads_drafter([(n,) for n in range(24)]), max_batch_size=4, adaptive=False)
    rows = [submit(engine, p, max_new_tokens=45, **FREE) for p in short_prompts(4)]
    engine.run()
    assert (
        0 < engine.stats().num_draft_tokens < 24 * (engine.stats().num_sequence_forwards - 4 - 20)
    )  # trees at first, and at least 20 rounds without
    assert [row.new_tokens for row in rows] == [alone(model, p, max_new_tokens=45) for p in short_prompts(4)]


@pytest.fixture(scope="module")
def plain():
    return HeadwayModel.from_trunk(tiny_trunk(), count=0)


def memory(monkeypatch, available):
    monkeypatch.setattr(cache_module.psutil, "virtual_memory", lambda: type("Memory", (), {"available": available})())


def slots_of(engine):
    return engine.cache.rows * engine.cache.capacity


@pytest.mark.parametrize("part", ["sampler", "stopping"])
@pytest.mark.parametrize("drafter", [None, heads_drafter("chain"), heads_drafter()])
def test_a_row_whose_processor_or_stop_strings_fail_ends_and_its_neighbours_do_not(drafter, part):
    model = HeadwayModel.from_trunk(tiny_trunk(), count=3)

    def fail(*_args):
        raise RuntimeError("out of its range")

    engine = Engine(model, drafter, adaptive=False)
    seen = []
    bad = submit(engine, [5, 9, 23], max_new_tokens=10, repetition_penalty=1.3, on_tokens=seen.extend, **FREE)
    good = submit(engine, [7, 31], max_new_tokens=10, **FREE)
    engine.step()
    if part == "sampler":
        bad.sampler.process_logits = fail
    else:
        bad.stopping.truncate_at_stop = fail
    before = list(bad.new_tokens)
    engine.run()
    assert str(bad.error) == "out of its range" and bad.finished and bad.new_tokens == before == seen
    assert good.error is None and good.new_tokens == alone(model, [7, 31], max_new_tokens=10)


def test_rows_whose_shared_way_of_choosing_fails_end_and_others_do_not(plain):
    engine = Engine(plain)
    bad = [submit(engine, [5, 9], max_new_tokens=6, do_sample=True, **FREE) for _ in range(2)]
    good = submit(engine, [7, 31], max_new_tokens=6, **FREE)
    bad[0].sampler.probabilities = None
    engine.run()
    assert all(row.finished and "not callable" in str(row.error) and row.new_tokens == [] for row in bad)
    assert good.new_tokens == alone(plain, [7, 31], max_new_tokens=6)


@pytest.mark.parametrize("when", ["reading", "running"])
def test_a_forward_that_fails_ends_its_rows_and_is_raised_once(plain, monkeypatch, when):
    engine = Engine(plain, max_batch_size=2, prefill_chunk=4)
    rows = [submit(engine, p, max_new_tokens=6, **FREE) for p in ([5] * 9, [7, 31], [8, 9])]
    if when == "running":
        engine.step()

    def fail(*_args):
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_forward" if when == "reading" else "_decode_step", fail)
        with pytest.raises(torch.OutOfMemoryError):
            engine.step()
    engine.run()
    failed = [row for row in rows if row.error is not None]
    assert failed == (rows[:2] if when == "reading" else rows[1:2]) and all(row.finished for row in rows)
    for row in set(rows) - set(failed):
        assert row.new_tokens == alone(plain, row.tokens[: row.prompt_length], max_new_tokens=6)


def test_a_prompt_that_cannot_be_written_is_not_read_for_another(plain):
    engine = Engine(plain, max_batch_size=2)
    submit(engine, [9] * 5, max_new_tokens=3, **FREE)
    engine.run()
    good = submit(engine, [7, 31], max_new_tokens=6, **FREE)
    bad = submit(engine, [5, 6], max_new_tokens=6, **FREE)
    bad.tokens[:] = [5, "six"]
    engine.run()
    assert bad.finished and bad.error is not None and bad.new_tokens == []
    assert good.new_tokens == alone(plain, [7, 31], max_new_tokens=6)


@pytest.mark.parametrize("running", [False, True])
def test_only_the_row_that_does_not_fit_into_memory_fails(plain, monkeypatch, running):
    engine = Engine(plain)
    if running:
        submit(engine, [5, 6], max_new_tokens=20, **FREE)
        engine.step()
    memory(monkeypatch, 2**20)
    sizes = (4, 100_000, 4, 10**12)
    good, huge, other, endless = (submit(engine, [5, 6, 7], max_new_tokens=n, **FREE) for n in sizes)
    engine.run()
    for row in (huge, endless):
        assert isinstance(row.error, ConfigError) and "GiB of memory are free" in str(row.error) and row.new_tokens == []
    assert good.new_tokens == other.new_tokens == alone(plain, [5, 6, 7], max_new_tokens=4)


def test_generate_says_that_a_text_without_end_does_not_fit(plain):
    with pytest.raises(ConfigError, match="GiB of memory are free"):
        plain.generate(torch.tensor([[5, 6]]), max_new_tokens=10**12)


def test_rows_that_fit_one_by_one_wait_for_memory(plain, monkeypatch):
    engine = Engine(plain)
    memory(monkeypatch, 3 * 65 * (sum(cache_module.slot_bytes(plain.view)) + 8) - 1)  # two rows of 64 slots, not three
    rows = [submit(engine, p, max_new_tokens=9, **FREE) for p in short_prompts(4)]
    engine.step()
    assert len(engine.batch.rows) == 2 and len(engine.waiting) == 2
    monkeypatch.undo()
    engine.run()
    assert [row.new_tokens for row in rows] == [alone(plain, p, max_new_tokens=9) for p in short_prompts(4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "drafter", [None, heads_drafter(), fallback_drafter(assistant_drafter(tiny_trunk(seed=1), 3), heads_drafter("chain"))]
)
def test_the_cache_never_has_more_slots_than_max_tokens(drafter):
    trunk = tiny_trunk(max_position_embeddings=1024)
    model = HeadwayModel.from_trunk(trunk, count=3)
    engine = Engine(model, drafter, max_batch_size=8, max_tokens=1000, adaptive=False)
    starts = [*short_prompts(8), [5, 9, 23] * 250, *short_prompts(9, seed=1), [7, 31] * 150]
    rows = [submit(engine, p, max_new_tokens=20, **FREE) for p in starts]
    while not engine.idle:
        engine.step()
        assert slots_of(engine) <= 1000
    assert [row.new_tokens for row in rows] == [alone(model, p, max_new_tokens=20) for p in starts]


def test_a_row_of_all_tokens_that_an_engine_holds_is_decoded(plain):
    engine = Engine(plain, max_tokens=70)
    row = submit(engine, [5, 6], max_new_tokens=68, **FREE)
    engine.run()
    assert row.new_tokens == alone(plain, [5, 6], max_new_tokens=68) and slots_of(engine) <= 70


def test_a_row_cancelled_while_its_prompt_is_read_leaves_at_once_and_gets_nothing(model):
    engine = Engine(model, heads_drafter(), max_batch_size=3, prefill_chunk=4)
    seen = []
    rows = [submit(engine, p, max_new_tokens=6, **FREE) for p in ([5] * 30, [7, 31, 8] * 10)]
    reading = submit(engine, [8, 9] * 20, max_new_tokens=6, on_tokens=seen.extend, **FREE)
    waiting = [submit(engine, [6, n], max_new_tokens=6, **FREE) for n in (5, 6)]
    engine.step()
    rows[0].cancel()
    reading.cancel()
    waiting[1].cancel()
    engine.step()
    assert rows[0].finished and reading.finished and waiting[1].finished and not engine.waiting
    engine.run()
    assert seen == reading.new_tokens == rows[0].new_tokens == waiting[1].new_tokens == []
    assert rows[1].new_tokens == alone(model, [7, 31, 8] * 10, max_new_tokens=6)
    assert waiting[0].new_tokens == alone(model, [6, 5], max_new_tokens=6)


def test_a_row_that_a_neighbours_listener_cancels_gets_no_more(plain):
    engine = Engine(plain)
    submit(engine, [5, 6], max_new_tokens=6, on_tokens=lambda _: other.cancel(), **FREE)
    other = submit(engine, [7, 8], max_new_tokens=6, **FREE)
    engine.run()
    assert other.finished and other.new_tokens == []


@pytest.mark.slow
@pytest.mark.parametrize("drafter", [None, heads_drafter(), heads_drafter("chain"), ngram_drafter()])
def test_short_prompts_do_not_wait_for_long_ones(model, drafter):
    engine = Engine(model, drafter, max_batch_size=4, prefill_chunk=4, adaptive=False)
    starts = [[5, 6] * 30, [7], [9] * 6, [8, 4] * 20, [11, 12], [13] * 5]
    rows = [submit(engine, p, max_new_tokens=5, **FREE) for p in starts[:2]]
    engine.step()
    assert rows[1].new_tokens and not rows[0].new_tokens
    rows += [submit(engine, p, max_new_tokens=5, **FREE) for p in starts[2:]]
    for _ in range(8):
        engine.step()
    assert all(row.new_tokens for row in (rows[2], rows[4], rows[5])) and not rows[0].new_tokens and not rows[3].new_tokens
    engine.run()
    assert [row.new_tokens for row in rows] == [alone(model, p, max_new_tokens=5) for p in starts]


@pytest.mark.parametrize("name", ["max_batch_size", "max_tokens", "prefill_chunk"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_an_engine_that_could_never_end_is_refused(plain, name, value):
    with pytest.raises(ConfigError, match=f"{name} of an engine must be a whole number of at least 1, got {value}"):
        Engine(plain, **{name: value})


@pytest.mark.parametrize("method", ["step", "run"])
def test_a_listener_that_runs_the_engine_gets_an_error(plain, method):
    engine = Engine(plain)
    bad = submit(engine, [5, 6], max_new_tokens=6, on_tokens=lambda _: getattr(engine, method)(), **FREE)
    good = submit(engine, [7, 31], max_new_tokens=6, **FREE)
    engine.run()
    assert isinstance(bad.error, ConfigError) and "in the middle of a step" in str(bad.error) and bad.finished
    assert good.new_tokens == alone(plain, [7, 31], max_new_tokens=6)


def test_a_model_in_training_mode_is_refused():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=0).train()
    with pytest.raises(ConfigError, match=r"call model\.eval\(\) first"):
        Engine(model)


@pytest.mark.parametrize("method", ["step", "run", "run_until_finished"])
def test_a_listener_that_runs_the_engine_leaves_heads_of_other_sequences_their_hidden_states(model, method):
    engine = Engine(model, heads_drafter(), adaptive=False)
    bad = submit(engine, [5, 6, 7, 8], max_new_tokens=20, on_tokens=lambda _: getattr(engine, method)(), **FREE)
    good = [submit(engine, prompt, max_new_tokens=20, **FREE) for prompt in short_prompts(2)]
    engine.run()
    assert isinstance(bad.error, ConfigError) and bad.finish_reason == FinishReason.ERROR
    assert [row.new_tokens for row in good] == [alone(model, prompt, max_new_tokens=20) for prompt in short_prompts(2)]


@pytest.mark.parametrize("drafter", [None, heads_drafter(), heads_drafter("chain"), ngram_drafter()])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_after_an_interrupt_in_a_listener_all_sequences_get_their_tokens(model, drafter, call):
    engine = Engine(model, drafter, prefill_chunk=4, adaptive=False)
    prompts, heard, calls = short_prompts(4), [[] for _ in range(4)], []

    def listener(number):
        def put(tokens):
            heard[number] += tokens
            if number == 1:
                calls.append(tokens)
                if len(calls) == call:
                    raise KeyboardInterrupt

        return put

    limits = (9, 2, 1, 9)
    eos = alone(model, prompts[3], max_new_tokens=9)[2]
    rows = [submit(engine, prompts[k], max_new_tokens=limits[k], on_tokens=listener(k), **FREE) for k in range(3)]
    rows.append(submit(engine, prompts[3], max_new_tokens=9, on_tokens=listener(3), eos_token_id=eos))
    for _ in range(3):
        try:
            engine.run()
        except KeyboardInterrupt:
            continue
    expected = [alone(model, p, max_new_tokens=n) for p, n in zip(prompts, limits, strict=True)]
    expected[3] = expected[3][: expected[3].index(eos) + 1]
    assert [row.new_tokens for row in rows] == heard == expected
    reasons = [FinishReason.LENGTH] * 3 + [FinishReason.STOP]
    assert engine.idle and all(row.finished for row in rows) and [row.finish_reason for row in rows] == reasons


class Interrupting:
    """Raises KeyboardInterrupt before or after call number `at` of a method."""

    def __init__(self, method, at, after):
        self.method, self.at, self.after, self.calls = method, at, after, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise KeyboardInterrupt
        result = self.method(*args, **kwargs)
        if self.calls == self.at:
            raise KeyboardInterrupt
        return result


METHODS = ["engine._forward", "engine._commit", "scheduler._copy_row", "scheduler.remove", "drafter.observe"]


@functools.cache
def with_heads(family):
    return HeadwayModel.from_trunk(tiny_trunk(), family=family, count=3).eval()


@pytest.mark.parametrize("owner", METHODS)
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("family", ["parallel", "sequential", "gated-lora"])
def test_an_interrupt_at_any_point_of_a_step_costs_no_tokens(family, owner, at, after):
    model = with_heads(family)
    engine = Engine(model, heads_drafter(), max_batch_size=4, prefill_chunk=5, adaptive=False)
    holder = {"engine": engine, "scheduler": engine.scheduler, "drafter": engine.drafter}[owner.split(".")[0]]
    name = owner.split(".")[1]
    setattr(holder, name, Interrupting(getattr(holder, name), at, after))
    prompts, limits = short_prompts(6), (9, 2, 5, 9, 1, 7)
    rows = [submit(engine, p, max_new_tokens=n, **FREE) for p, n in zip(prompts, limits, strict=True)]
    handle = engine.submit(Request([5, 9, 23, 4, 8, 1], SamplingParams(max_new_tokens=6, ignore_eos=True), n=2))
    for _ in range(3):
        try:
            engine.run()
        except KeyboardInterrupt:
            continue
    assert [row.new_tokens for row in rows] == [alone(model, p, max_new_tokens=n) for p, n in zip(prompts, limits, strict=True)]
    assert [sample.new_tokens for sample in handle.samples] == [alone(model, [5, 9, 23, 4, 8, 1], max_new_tokens=6)] * 2
    assert engine.idle
