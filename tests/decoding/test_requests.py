"""Many prompts through the engine: each gets the tokens it would get alone, and stops where its own text says so."""

import pytest
import torch
from transformers import AutoTokenizer

from headway import HeadwayModel, embedded_path
from headway.decoding import heads_drafter
from headway.decoding.requests import Request, before_stops, complete


@pytest.fixture(scope="module")
def model():
    return HeadwayModel.from_pretrained("embedded").eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_path())


def completed(model, tokenizer, requests, **how):
    found = {}
    stats = complete(model, tokenizer, requests, found.__setitem__, **how)
    return [found[number] for number in range(len(requests))], stats


def test_each_prompt_gets_what_the_trunk_alone_writes(model, tokenizer):
    texts = ["1 + 1 =", "Once upon a time there was a", "def f(x):", "The"]
    requests = [Request(tokenizer(text).input_ids, (), {"max_new_tokens": 6 + number}) for number, text in enumerate(texts)]
    found, stats = completed(model, tokenizer, requests, batch_size=2, drafter=heads_drafter(), adaptive=False)
    for request, new in zip(requests, found, strict=True):
        alone = model.trunk.generate(torch.tensor([request.prompt]), do_sample=False, **request.settings)
        assert new == alone[0, len(request.prompt) :].tolist()
    assert stats.tokens == sum(map(len, found))


def test_a_stop_ends_a_text_at_once_but_not_across_the_end_of_the_prompt(model, tokenizer):
    prompt = tokenizer("Once upon a time there was a").input_ids
    (free,), _ = completed(model, tokenizer, [Request(prompt, (), {"max_new_tokens": 24})])
    text = tokenizer.decode(free)
    inner = text[8:12]
    (cut,), stats = completed(model, tokenizer, [Request(prompt, (inner,), {"max_new_tokens": 24})], adaptive=False)
    assert cut == free[: len(cut)] and len(cut) < len(free) and stats.tokens == len(cut)
    assert inner in tokenizer.decode(cut) and inner not in tokenizer.decode(cut[:-1])
    assert before_stops(tokenizer.decode(cut), (inner,)) == text.split(inner)[0]
    across = "was a" + text[:2]
    assert across not in text
    (whole,), _ = completed(model, tokenizer, [Request(prompt, (across,), {"max_new_tokens": 24})])
    assert whole == free


def test_a_trunk_that_the_engine_cannot_decode_is_decoded_plainly(model, tokenizer, monkeypatch):
    requests = [Request(tokenizer(text).input_ids, (), {"max_new_tokens": 5}) for text in ("1 + 1 =", "The cat")]
    expected, _ = completed(model, tokenizer, requests)
    monkeypatch.setattr("headway.decoding.requests.why_not_exact", lambda trunk: "a reason")
    found, stats = completed(model, tokenizer, requests)
    assert found == expected and stats.tokens_per_forward == 1


def test_a_request_draws_what_generate_draws_with_its_seed(model, tokenizer):
    settings = {"max_new_tokens": 12, "do_sample": True, "temperature": 0.8, "top_k": 0}
    requests = [Request(tokenizer(text).input_ids, (), settings, seed) for text, seed in (("The", 7), ("The", 8), ("One day", 7))]
    found, _ = completed(model, tokenizer, requests, drafter=heads_drafter())
    for request, new in zip(requests, found, strict=True):
        alone = model.generate(torch.tensor([request.prompt]), seed=request.seed, **settings)
        assert new == alone.sequences[0, len(request.prompt) :].tolist()
    assert found[0] != found[1]
