"""Random architectures, heads, drafters, settings and ragged batches against transformers' `generate`, row by row.

Each case follows from its number. `FUZZ_SEED=1234 pytest tests/decoding/test_fuzz.py` begins with case 1234 in place of case 0; a
failure names its case, and `FUZZ_CASES=1` runs that case alone.
"""

import functools
import os
import random
import warnings

import pytest
import torch

from headway import HeadwayModel
from headway.decoding import Engine, assistant_drafter, fallback_drafter, heads_drafter, limit_draft_tokens, ngram_drafter
from tests.references import padded, submit
from tests.tiny import ALL, FAMILIES, tiny_trunk

FIRST, CASES, GROUP = int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_CASES", "500")), 20
TIE = 1e-4  # logits closer than this share of the largest logit may change places
TREES = {"parallel": ["dynamic", "chain", [(0,), (1,), (0, 0)]]}


@functools.cache
def trunk_of(architecture, seed=0):
    return tiny_trunk(architecture, seed=seed, max_position_embeddings=96)


@functools.lru_cache(64)
def model_of(architecture, number, count):
    family, options = FAMILIES[number]
    with torch.random.fork_rng():
        torch.manual_seed(number)
        return HeadwayModel.from_trunk(trunk_of(architecture), family=family, count=count, **options).eval()


def random_prompt(rng):
    """Random tokens, or a repeated pattern, which drafters predict."""
    length = rng.choice([1, 2, 3, 7, 12, 25])
    tokens = [rng.randrange(3, 61) for _ in range(length)]
    return tokens if rng.random() < 0.5 else (tokens[: max(1, length // 3)] * length)[:length]


def random_settings(rng):
    settings = {"max_new_tokens": rng.choice([1, 2, 5, 9, 14]), "pad_token_id": 0}
    settings["eos_token_id"] = rng.choice([None, 2, [2, 7], sorted(rng.sample(range(3, 61), 12))])
    optional = {
        "repetition_penalty": [0.8, 1.3],
        "no_repeat_ngram_size": [2, 3],
        "min_new_tokens": [1, min(6, settings["max_new_tokens"])],
        "bad_words_ids": [[[5], [7, 9]]],
        "suppress_tokens": [[4, 8]],
        "exponential_decay_length_penalty": [(2, 1.4)],
    }
    if settings["eos_token_id"] is None:  # transformers cannot raise the score of no token
        del optional["exponential_decay_length_penalty"]
    for name in rng.sample(sorted(optional), rng.choice([0, 0, 1, 2])):
        settings[name] = rng.choice(optional[name])
    return settings


def random_drafter(rng, architecture, model):
    if model.count:
        trees = TREES.get(model.heads.family, ["dynamic", "chain"])
        heads = heads_drafter(rng.choice([tree for tree in trees if isinstance(tree, str) or model.count > 1]))
    else:
        heads = ngram_drafter(shortest=2)
    ngram = ngram_drafter(depth=rng.choice([1, 4, 8]), shortest=rng.choice([1, 2]))
    assistant = functools.partial(assistant_drafter, trunk_of("llama", rng.choice([0, 1])), rng.choice([1, 4]))
    kind = rng.choice(["heads", "heads", "heads", "ngram", "assistant", "fallback", "limited", "none"])
    if kind == "assistant":
        return kind, assistant()
    if kind == "fallback":
        return kind, fallback_drafter(ngram, heads_drafter("chain") if model.count else assistant())
    if kind == "limited":
        return kind, limit_draft_tokens(rng.choice([1, 5]), heads)
    return kind, {"heads": heads, "ngram": ngram, "none": None}[kind]


def is_tie(trunk, prefix, one, other):
    logits = trunk(torch.tensor([prefix]), use_cache=False).logits[0, -1].float()
    return abs(float(logits[one] - logits[other])) < TIE * float(logits.abs().max())


def check_rows(trunk, prompts, rows, settings):
    """Each row equals transformers' continuation of the prompt alone, up to ties of logits."""
    for prompt, row in zip(prompts, rows, strict=True):
        mask = torch.ones(1, len(prompt), dtype=torch.long)
        expected = trunk.generate(torch.tensor([prompt]), attention_mask=mask, do_sample=False, **settings)[
            0, len(prompt) :
        ].tolist()
        if row != expected:
            place = next((n for n, pair in enumerate(zip(row, expected, strict=False)) if len(set(pair)) > 1), None)
            assert place is not None and is_tie(trunk, [*prompt, *expected[:place]], row[place], expected[place]), (row, expected)


@torch.no_grad()
def run_case(number):
    rng = random.Random(number)
    architecture = rng.choice(sorted(ALL))
    model = model_of(architecture, rng.randrange(len(FAMILIES)), rng.choice([0, 1, 2, 4]))
    prompts = [random_prompt(rng) for _ in range(rng.choice([1, 2, 3]))]
    settings, (kind, drafter) = random_settings(rng), random_drafter(rng, architecture, model)
    adaptive, batch_size = rng.random() < 0.3, rng.choice([1, 2, 3])
    case = f"case {number}: {architecture}, {model.heads and model.heads.family} x{model.count}, {kind}, {prompts}, {settings}"
    try:
        if rng.random() < 0.4:
            chunk, limit = rng.choice([1, 4, 512]), rng.choice([None, 600])
            engine = Engine(model, drafter, max_batch_size=batch_size, prefill_chunk=chunk, adaptive=adaptive, max_tokens=limit)
            rows = [submit(engine, prompt, **settings) for prompt in prompts]
            engine.run()
            check_rows(model.trunk, prompts, [row.new_tokens for row in rows], settings)
            return
        ids, mask = padded(prompts, rng.choice(["left", "right"]))
        how = {"attention_mask": mask, "max_batch_size": batch_size, **settings}
        speculative = {"drafter": drafter, "adaptive": adaptive} if drafter is not None else {"speculative": False}
        if rng.random() < 0.25:
            sampling = {"do_sample": True, "seed": number, "temperature": rng.choice([0.7, 1.4]), "top_k": rng.choice([0, 8])}
            expected = model.generate(ids, speculative=False, **how, **sampling).sequences
            assert torch.equal(model.generate(ids, **speculative, **how, **sampling).sequences, expected), "sampled"
            return
        new = model.generate(ids, **speculative, **how).sequences[:, ids.shape[1] :].tolist()
        lengths = [len(row) for row in new]
        ends = settings["eos_token_id"]
        ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
        for r, row in enumerate(new):
            stop = next((n + 1 for n, token in enumerate(row) if token in ends), lengths[r])
            assert not any(row[stop:]), "padding after the end"
            new[r] = row[:stop]
        check_rows(model.trunk, prompts, new, settings)
    except Exception as error:
        raise AssertionError(f"FUZZ_SEED={number} FUZZ_CASES=1 repeats {case}") from error


def groups(first, count):
    return [range(start, min(start + GROUP, first + count)) for start in range(first, first + count, GROUP)]


@pytest.mark.parametrize("cases", groups(FIRST, min(CASES, GROUP)), ids=str)
def test_random_cases_equal_transformers(cases):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a fall-back would hide that nothing was tested
        for number in cases:
            run_case(number)


@pytest.mark.slow
@pytest.mark.parametrize("cases", groups(FIRST + GROUP, CASES - GROUP) if CASES > GROUP else [], ids=str)
def test_many_more_random_cases_equal_transformers(cases):
    test_random_cases_equal_transformers(cases)
