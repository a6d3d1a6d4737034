"""Requests through the engine: each prompt gets the tokens that it gets alone, and stops where its own text says so."""

from collections import Counter

import pytest
import torch
from transformers import AutoTokenizer

from headway import HeadwayModel, embedded_path
from headway.decoding import Engine, FinishReason, Request, SamplingParams, complete, heads_drafter, ngram_drafter
from headway.errors import ConfigError
from tests.references import FREE, short_prompts
from tests.tiny import tiny_trunk

GREEDY = {"do_sample": False}


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_pretrained("embedded").eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_path())


@pytest.fixture(scope="module")
def tiny():
    return HeadwayModel.from_trunk(tiny_trunk(), count=3).eval()


@pytest.fixture(params=[True, False], ids=["engine", "autoregressive"])
def served(request, monkeypatch):
    """Once by the engine, once as a trunk that the engine cannot serve."""
    if not request.param:
        monkeypatch.setattr("headway.decoding.completing.exactness_issue", lambda trunk: "a reason")
    return request.param


def completions(model, tokenizer, requests, **how):
    found = {(c.request_index, c.sample_index): c for c in complete(model, tokenizer, requests, **how)}
    return [found[key] for key in sorted(found)]


def test_each_prompt_gets_the_tokens_of_the_trunk(model, tokenizer, served):
    texts = ["1 + 1 =", "Once upon a time there was a", "def f(x):", "The"]
    requests = [Request(tokenizer(text).input_ids, SamplingParams(max_new_tokens=6 + n)) for n, text in enumerate(texts)]
    found = completions(model, tokenizer, requests, max_batch_size=2, drafter=heads_drafter(), adaptive=False)
    for n, (request, completion) in enumerate(zip(requests, found, strict=True)):
        alone = model.trunk.generate(torch.tensor([request.prompt]), max_new_tokens=6 + n, **GREEDY)
        assert list(completion.token_ids) == alone[0, len(request.prompt) :].tolist()
        assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        assert completion.finish_reason == (FinishReason.LENGTH if len(completion.token_ids) == 6 + n else FinishReason.STOP)
        assert completion.stats.tokens == len(completion.token_ids) and completion.logprobs is None
        assert served or completion.stats.tokens_per_forward == 1


def test_a_stop_string_ends_a_text_at_once_but_not_across_the_end_of_the_prompt(model, tokenizer, served):
    prompt = tokenizer("Once upon a time there was a").input_ids

    def finished(*stops, **how):
        return completions(model, tokenizer, [Request(prompt, SamplingParams(max_new_tokens=24, stop_strings=stops, **how))])[0]

    free = finished()
    inner = free.text[8:12]
    cut = finished(inner)
    tokens = list(cut.token_ids)
    assert (
        cut.finish_reason == FinishReason.STOP and tokens == list(free.token_ids[: len(tokens)]) and cut.stats.tokens == len(tokens)
    )
    assert inner in tokenizer.decode(tokens) and inner not in tokenizer.decode(tokens[:-1])
    assert cut.text == free.text.split(inner)[0]
    kept = finished(inner, keep_stop_string=True)
    assert kept.text == free.text.split(inner)[0] + inner and kept.token_ids == cut.token_ids
    across = "was a" + free.text[:2]
    assert across not in free.text and finished(across).token_ids == free.token_ids


def test_the_earliest_of_several_stop_strings_cuts_the_text(model, tokenizer):
    prompt = tokenizer("Once upon a time there was a").input_ids
    free = completions(model, tokenizer, [Request(prompt, SamplingParams(max_new_tokens=24))])[0].text
    late, early = free[14:18], free[5:8]
    cut = completions(model, tokenizer, [Request(prompt, SamplingParams(max_new_tokens=24, stop_strings=(late, early)))])[0]
    assert cut.text == free[: free.index(early)]


def test_stop_strings_of_the_models_own_generation_config_stop_requests(model, tokenizer, monkeypatch):
    prompt = tokenizer("Once upon a time there was a").input_ids
    free = completions(model, tokenizer, [Request(prompt, SamplingParams(max_new_tokens=24))])[0].text
    monkeypatch.setattr(model.trunk.generation_config, "stop_strings", [free[8:12]])
    assert completions(model, tokenizer, [Request(prompt, SamplingParams(max_new_tokens=24))])[0].text == free.split(free[8:12])[0]
    off = SamplingParams(max_new_tokens=24, generation_config="none")
    assert completions(model, tokenizer, [Request(prompt, off)])[0].text == free
    with pytest.raises(ConfigError, match="stop_strings needs the tokenizer"):
        Engine(model).submit(Request(prompt, SamplingParams(max_new_tokens=3)))


def test_a_request_samples_the_tokens_of_generate_with_its_seed(model, tokenizer, served):
    settings = {"max_new_tokens": 12, "do_sample": True, "temperature": 0.8, "top_k": 0}
    wanted = [("The", 7), ("The", 8), ("One day", 7)]
    requests = [Request(tokenizer(text).input_ids, SamplingParams(seed=seed, **settings)) for text, seed in wanted]
    found = completions(model, tokenizer, requests, drafter=heads_drafter())
    assert found[0].token_ids != found[1].token_ids
    if served:
        for request, completion in zip(requests, found, strict=True):
            alone = model.generate(torch.tensor([request.prompt]), seed=request.sampling.seed, **settings)
            assert list(completion.token_ids) == alone.sequences[0, len(request.prompt) :].tolist()


SAMPLED = {"do_sample": True, "temperature": 0.7, "top_k": 5, "max_new_tokens": 14, "ignore_eos": True}


@pytest.mark.parametrize("family", ["parallel", "sequential", "gated-lora", "eagle3", None])
def test_samples_of_a_prompt_share_one_prefill_and_equal_separate_requests(family):
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family or "parallel", count=3 if family else 0).eval()
    drafter = heads_drafter() if family else ngram_drafter()
    prompts = [prompt * 3 for prompt in short_prompts(3)]
    engine = Engine(model, drafter, adaptive=False, prefill_chunk=4)
    prefilled = Counter()
    forward = engine._forward

    def counted(inputs, first=None):
        if first is not None:
            prefilled.update(int((row >= 0).sum()) for row in inputs.positions)
        return forward(inputs, first)

    engine._forward = counted
    handles = [engine.submit(Request(prompt, SamplingParams(seed=20, logprobs=True, **SAMPLED), n=4)) for prompt in prompts]
    engine.run()
    assert sum(size * count for size, count in prefilled.items()) == sum(map(len, prompts))
    for prompt, handle in zip(prompts, handles, strict=True):
        single = Engine(model, drafter, adaptive=False)
        alone = [single.submit(Request(prompt, SamplingParams(seed=20 + n, logprobs=True, **SAMPLED))) for n in range(4)]
        single.run()
        for n, separate in enumerate(alone):
            assert handle.samples[n].new_tokens == separate.token_ids
            assert handle.samples[n].logprobs == pytest.approx(separate.samples[0].logprobs, abs=1e-5)
    assert len({tuple(sample.new_tokens) for sample in handles[0].samples}) == 4


def test_more_samples_than_batch_slots_are_decoded_in_turn(tiny):
    engine = Engine(tiny, heads_drafter(), max_batch_size=3, adaptive=False)
    handle = engine.submit(Request([5, 9, 23], SamplingParams(seed=1, **SAMPLED), n=7))
    engine.run()
    single = Engine(tiny, None)
    alone = [single.submit(Request([5, 9, 23], SamplingParams(seed=1 + n, **SAMPLED))) for n in range(7)]
    single.run()
    assert [sample.new_tokens for sample in handle.samples] == [separate.token_ids for separate in alone]


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_a_sample_cancelled_during_the_shared_prefill_leaves_the_others(tiny, cancelled):
    engine = Engine(tiny, heads_drafter(), prefill_chunk=2, adaptive=False)
    other = engine.submit(Request([7, 8] * 6, SamplingParams(max_new_tokens=5, ignore_eos=True)))
    handle = engine.submit(Request([5, 9, 23] * 3, SamplingParams(seed=1, **SAMPLED), n=3))
    engine.step()
    handle.samples[cancelled].cancel()
    engine.run()
    reasons = [handle.completion(n).finish_reason for n in range(3)]
    assert reasons == [FinishReason.CANCELLED if n == cancelled else FinishReason.LENGTH for n in range(3)]
    for n in {0, 1, 2} - {cancelled}:
        single = Engine(tiny, None)
        alone = single.submit(Request([5, 9, 23] * 3, SamplingParams(seed=1 + n, **SAMPLED)))
        single.run()
        assert handle.samples[n].new_tokens == alone.token_ids
    assert handle.samples[cancelled].new_tokens == [] and len(other.token_ids) == 5


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 0.6, "top_k": 4, "seed": 3},
        {"do_sample": True, "temperature": 1.7, "top_p": 0.8, "seed": 3, "repetition_penalty": 1.3},
        {"do_sample": True, "temperature": 0.9, "seed": 3, "acceptance": "multi-candidate"},
    ],
    ids=str,
)
def test_logprobs_are_those_of_a_plain_forward(tiny, settings, served, tokenizer):
    prompts = short_prompts(4)
    requests = [Request(p, SamplingParams(max_new_tokens=12, ignore_eos=True, logprobs=True, **settings)) for p in prompts]
    temperature = settings.get("temperature", 1.0)
    for drafter in (None, heads_drafter(), heads_drafter("chain")):
        for prompt, completion in zip(
            prompts, completions(tiny, tokenizer, requests, drafter=drafter, adaptive=False), strict=True
        ):
            tokens = torch.tensor([[*prompt, *completion.token_ids]])
            with torch.no_grad():
                expected = (tiny.trunk(tokens).logits[0, len(prompt) - 1 : -1].float() / temperature).log_softmax(-1)
            expected = expected.gather(1, tokens[0, len(prompt) :, None])[:, 0]
            assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_shares_of_time_and_counts_of_completions_add_up_to_those_of_the_engine(tiny):
    engine = Engine(tiny, heads_drafter(), max_batch_size=3, adaptive=False)
    handles = [engine.submit(Request(p, SamplingParams(max_new_tokens=9, ignore_eos=True))) for p in short_prompts(7)]
    engine.run()
    whole, parts = engine.stats(), [handle.completion().stats for handle in handles]
    for phase, seconds in whole.seconds.items():
        assert sum(part.seconds.get(phase, 0.0) for part in parts) == pytest.approx(seconds)
    merged = type(whole).merge(parts)
    assert merged.tokens == whole.tokens == 63 and merged.acceptance == whole.acceptance
    assert merged.tokens_per_forward == whole.tokens_per_forward and whole.num_steps < merged.num_steps


def test_completions_come_in_the_order_in_which_they_end(tiny, tokenizer):
    requests = [Request([5, 6], SamplingParams(max_new_tokens=n, ignore_eos=True)) for n in (9, 3, 6)]
    assert [c.request_index for c in complete(tiny, tokenizer, requests)] == [1, 2, 0]


def test_an_error_of_one_request_is_raised_after_the_others(tiny, tokenizer):
    requests = [Request([5, 6], SamplingParams(max_new_tokens=n, **{"options": FREE})) for n in (4, 10**12)]
    found = []
    with pytest.raises(ConfigError, match="GiB of memory are free"):
        found.extend(complete(tiny, tokenizer, requests))
        found.append(None)
    iterator = complete(tiny, tokenizer, requests)
    assert next(iterator).request_index == 0
