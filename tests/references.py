"""References and checks that several test modules share: transformers' own tokens, enumerated distributions, engine requests."""

import itertools

import torch
from scipy import stats
from torch.nn import functional as F
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from headway import HeadwayModel
from headway.decoding import Engine, Request, SamplingParams, heads_drafter
from headway.decoding.batch import SequenceState
from headway.objectives import MultiToken
from tests.tiny import tiny_trunk

LENGTH, DRAWS = 3, 3000


def prompts(batch, seed=0, vocabulary=61):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(3, vocabulary, (n,), generator=g).tolist() for n in (9, 4, 13, 1)[:batch]]


def padded(rows, side="left"):
    width = max(map(len, rows))
    fill = [[0] * (width - len(row)) for row in rows]
    ids = [f + row if side == "left" else row + f for f, row in zip(fill, rows, strict=True)]
    mask = [[0] * len(f) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(f) for f, r in zip(fill, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)


def reference(trunk, rows, **kwargs):
    """Each row alone through transformers."""
    return [trunk.generate(torch.tensor([row]), do_sample=False, **kwargs)[0, len(row) :].tolist() for row in rows]


def submit(engine, prompt, *, on_tokens=None, seed=None, acceptance="coupled", stop_strings=(), **options) -> SequenceState:
    """The sequence of a request with one sample; `on_tokens` takes the tokens alone."""
    sampling = SamplingParams(seed=seed, acceptance=acceptance, stop_strings=stop_strings, options=options)
    listener = None if on_tokens is None else lambda _, tokens: on_tokens(tokens)
    return engine.submit(Request(prompt, sampling), listener).samples[0]


def enumerated(trunk, prompt, case, length=LENGTH):
    """Probability of every sequence, from plain passes and transformers' own warpers."""
    warpers = []
    if "temperature" in case:
        warpers.append(TemperatureLogitsWarper(case["temperature"]))
    if case.get("top_k"):
        warpers.append(TopKLogitsWarper(case["top_k"]))
    if "top_p" in case:
        warpers.append(TopPLogitsWarper(case["top_p"]))
    if "min_p" in case:
        warpers.append(MinPLogitsWarper(case["min_p"]))
    sequences = list(itertools.product(range(5), repeat=length))
    ids = torch.tensor([[*prompt, *sequence] for sequence in sequences])
    chances = torch.ones(len(sequences), dtype=torch.float64)
    with torch.no_grad():
        logits = trunk(ids, attention_mask=torch.ones_like(ids)).logits.float()
    for column in range(len(prompt), ids.shape[1]):
        scores = logits[:, column - 1]
        for warper in warpers:
            scores = warper(ids[:, :column], scores)
        chances *= scores.softmax(-1).gather(1, ids[:, column, None])[:, 0]
    found = dict(zip(sequences, chances.tolist(), strict=True))
    assert abs(sum(found.values()) - 1) < 1e-4
    return found


def check_drawn(drawn, chances):
    """Chi-square of drawn sequences against the probability of each."""
    draws = len(drawn)
    counts = dict.fromkeys(chances, 0)
    for sequence in drawn:
        counts[tuple(sequence)] += 1
    assert all(counts[sequence] == 0 for sequence, chance in chances.items() if chance == 0)
    # cells that expect fewer than 5 draws are one cell, as the test needs
    common = [s for s, chance in chances.items() if chance * draws >= 5]
    expected = [chances[s] * draws for s in common]
    observed = [counts[s] for s in common]
    if (rest := draws - sum(expected)) > 5:
        expected.append(rest)
        observed.append(draws - sum(observed))
    else:
        observed[0] += draws - sum(observed)
    scale = draws / sum(expected)
    assert stats.chisquare(observed, [e * scale for e in expected]).pvalue > 1e-4


def check_greedy(model, rows, drafter, **kwargs):
    """Each row as transformers continues it alone."""
    ids, mask = padded(rows, "left")
    out = model.generate(ids, attention_mask=mask, drafter=drafter, adaptive=False, pad_token_id=0, **kwargs)
    expected = reference(model.trunk, rows, pad_token_id=0, **kwargs)
    longest = max(map(len, expected))
    assert out.sequences[:, ids.shape[1] :].tolist() == [row + [0] * (longest - len(row)) for row in expected]
    return out.stats


def check_batch_invariance(model, prompts, limits, drafter):
    """More sequences than the engine decodes at once, with different limits: each has the tokens that it has alone."""
    engine = Engine(model, drafter, max_batch_size=2, prefill_chunk=5, adaptive=False)
    rows = [submit(engine, p, max_new_tokens=n, eos_token_id=None) for p, n in zip(prompts, limits, strict=True)]
    engine.run()
    for row, prompt, limit in zip(rows, prompts, limits, strict=True):
        assert row.new_tokens == reference(model.trunk, [prompt], max_new_tokens=limit, eos_token_id=None)[0]
    return engine.stats()


FREE = {"eos_token_id": None}


def short_prompts(count, seed=0):
    """Random prompts of 1 to 13 tokens."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 14, (count,), generator=g).tolist()
    return [torch.randint(3, 61, (n,), generator=g).tolist() for n in lengths]


def alone(model, prompt, **kwargs):
    """Greedy tokens of transformers, without an end-of-sequence token."""
    return reference(model.trunk, [prompt], **FREE, **kwargs)[0]


def check_sampling(drafter, case, length=4):
    """Every sequence of a 5-token vocabulary, enumerated and drawn."""
    trunk = tiny_trunk(vocab_size=5, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = HeadwayModel.from_trunk(trunk, count=0)
    prompts = [[0, 1, 0, 2, 0, 1], [3, 4, 2, 3]]
    ids, mask = (rows.repeat(DRAWS, 1) for rows in padded(prompts, "left"))
    out = model.generate(
        ids,
        attention_mask=mask,
        drafter=drafter,
        adaptive=False,
        do_sample=True,
        max_new_tokens=length,
        seed=5,
        eos_token_id=None,
        **case,
    )
    assert all(
        0 < kept < reached
        for kept, reached in zip(out.stats.num_accepted_tokens_per_pos, out.stats.num_drafts_per_pos, strict=True)
    )
    drawn = out.sequences[:, ids.shape[1] :].view(DRAWS, len(prompts), length)
    for row, prompt in enumerate(prompts):
        check_drawn(drawn[:, row].tolist(), enumerated(trunk, prompt, case, length))


def check_heads(model, rows, side="left", tree="dynamic", adaptive=False, **kwargs):
    """Greedy tokens of `generate` with the heads as drafter against transformers, a row at a time."""
    ids, mask = padded(rows, side)
    drafter = heads_drafter(tree) if model.count else None
    out = model.generate(ids, attention_mask=mask, do_sample=False, drafter=drafter, adaptive=adaptive, **kwargs)
    new = out.sequences[:, ids.shape[1] :].tolist()
    expected = reference(model.trunk, rows, **kwargs)
    longest = max(map(len, expected))
    assert new == [row + [0] * (longest - len(row)) for row in expected]
    return out.stats


def repeating_model(family, count):
    """A trunk and heads trained on periodic texts, so that drafts are accepted."""
    trunk = tiny_trunk(num_hidden_layers=2)
    model = HeadwayModel.from_trunk(trunk, family=family, count=count)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(120):
        seeds = torch.randint(3, 60, (16, 4), generator=torch.Generator().manual_seed(step))
        rows = seeds.repeat(1, 6)
        loss = MultiToken().loss(model, {"input_ids": rows, "labels": rows}, 0.0)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    return model.eval()


def perturbed_heads(family, count=3, **options):
    """A frozen trunk whose heads are not as initialised, token ids (2, 15), hidden states and embeddings."""
    model = HeadwayModel.from_trunk(tiny_trunk(), family=family, count=count, **options)
    model.trunk.requires_grad_(False)
    g = torch.Generator().manual_seed(1)
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=g)
    ids = torch.randint(3, 60, (2, 15), generator=g)
    hidden = model.trunk.model(input_ids=ids).last_hidden_state
    return model, ids, hidden, model.trunk.get_input_embeddings()(ids)


def check_head_losses(model, ids, logits):
    """Loss and gradients of the heads against cross-entropies of `logits`, (batch, seq, vocab) a head, weighted by 0.8^k."""
    batch = {"input_ids": ids, "labels": ids}
    loss = MultiToken(head_weights="medusa", next_token=False).loss(model, batch, 0.0)
    expected, items = 0.0, ids.shape[0] * (ids.shape[1] - 1)
    for k, head_logits in enumerate(logits):
        summed = F.cross_entropy(head_logits[:, : -(k + 2)].flatten(0, 1), ids[:, k + 2 :].flatten(), reduction="sum")
        expected = expected + 0.8 ** (k + 1) * summed / items
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-6)
    parameters = list(model.heads.parameters())
    actual, reference = (torch.autograd.grad(total, parameters) for total in (loss.total, expected))
    for gradient, expected_gradient in zip(actual, reference, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def perturbed_gated_lora(architecture="llama", count=3, scale=0.3, **options):
    """Gated-LoRA heads as training might leave them: no parameter is zero."""
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), family="gated-lora", count=count, **options).eval()
    g = torch.Generator().manual_seed(1)
    for parameter in model.heads.parameters():
        parameter.data += scale * torch.randn(parameter.shape, generator=g)
    return model
