"""Registers look ahead, are not seen, and cost the tokens' own predictions nothing."""

import pytest
import torch
from torch.nn import functional as F

from headway import HeadwayModel
from headway.errors import ConfigError, UnsupportedModelError
from headway.objectives import MultiToken, NextToken, Registers
from headway.objectives.registers import interleaved
from tests.objectives.test_multi_token import batch_of, random_rows
from tests.tiny import ALL, ARCHITECTURES, tiny_trunk


def plain(architecture="llama", **overrides):
    return HeadwayModel.from_trunk(tiny_trunk(architecture, **overrides), count=0)


def packed_batch():
    documents = [random_rows(1, n, seed=n)[0] for n in (11, 5, 9)]
    batch = batch_of([[*documents[0], *documents[1], *documents[2], 0, 0]], [[0] * 11 + [1] * 5 + [2] * 9 + [-1] * 2])
    batch["labels"][0, -2:] = -100
    batch["labels"][0, :4] = -100  # a prompt
    return batch


@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize("architecture", ALL)
def test_registers_change_no_logit_of_the_tokens(architecture, attention):
    model = plain(architecture)
    if attention is not None:
        model.trunk.set_attn_implementation(attention)
    batch = packed_batch()
    objective = Registers(model)
    with torch.no_grad():
        expected = model(batch["input_ids"], batch["segments"]).hidden_states[0]
        placed = objective.locate(batch["input_ids"], batch["labels"], batch["segments"], 0.3)
        embedded = model.trunk.get_input_embeddings()(batch["input_ids"])
        registers = torch.randn(*placed.after.shape, embedded.shape[-1])
        both = torch.cat([embedded, registers], dim=1)
        found = model.view.run(both, *interleaved(model.view, batch["segments"], placed)).last[:, : expected.shape[1]]
    logits = [model.unembedding.logits(states[:, :-2]) for states in (expected, found)]
    torch.testing.assert_close(*logits, rtol=1e-6, atol=3e-5)
    assert placed.after.shape[1] > 8


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text"])
def test_masks_and_positions_are_those_of_the_definition(architecture):
    model = plain(architecture)
    batch = packed_batch()
    segments = batch["segments"]
    placed = Registers(model).locate(batch["input_ids"], batch["labels"], segments, 0.3)
    prefix = torch.tensor([[True] * 4 + [False] * 23])
    positions, masks = interleaved(model.view, segments, placed, prefix=prefix)
    own = [*range(11), *range(5), *range(9)]
    after, offsets = placed.after[0].tolist(), placed.offsets[0].tolist()
    assert positions[0, :25].tolist() == own
    assert positions[0, 27:].tolist() == [own[t] + d - 1 for t, d in zip(after, offsets, strict=True)]
    window = getattr(model.view.config, "sliding_window", None)
    by_type = masks if isinstance(masks, dict) else {"sliding_attention" if window else "full_attention": masks}
    place = positions[0].tolist()
    for kind, mask in by_type.items():
        limit = window if kind == "sliding_attention" else 99
        for query in range(len(place)):
            for key in range(25):
                last = query if query < 27 else after[query - 27]
                seen = key <= last or (query < 4 and key < 4)
                seen = seen and segments[0, key] == segments[0, last] and abs(place[query] - place[key]) < limit
                assert query in (25, 26) or mask[0, 0, query, key] == seen, (kind, query, key)
            others = [key for key in range(27, len(place)) if key != query and mask[0, 0, query, key]]
            assert not others and (query < 27 or mask[0, 0, query, query])


def naive(model, objective, batch, progress):
    """Every register on its own: a row of the tokens that it sees and itself, without masks."""
    ids, labels, segments = batch["input_ids"], batch["labels"], batch["segments"]
    table = model.trunk.get_input_embeddings()
    placed = objective.locate(ids, labels, segments, progress)
    losses = {}
    for row in range(len(ids)):
        for after, d, label in zip(*(part[row].tolist() for part in placed), strict=True):
            if label == -100:
                continue
            start = segments[row].tolist().index(segments[row, after].item())
            seen = ids[row, start : after + 1]
            embedded = torch.cat([table(seen), objective.embedding[None]])[None]
            positions = torch.tensor([[*range(len(seen)), len(seen) - 1 + d - 1]])
            whole = torch.ones_like(positions)  # without it transformers takes a jump of positions for another document
            output = model.view.decoder(inputs_embeds=embedded, position_ids=positions, attention_mask=whole, use_cache=False)
            state = output.last_hidden_state[:, -1]
            assert label == ids[row, after + d] and segments[row, after + d] == segments[row, after]
            losses[row, after, d] = F.cross_entropy(model.unembedding.logits(state), torch.tensor([label]))
    return losses


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in ("mistral", "gemma3_text")])
def test_loss_equals_one_row_for_each_register(architecture):
    model = plain(architecture)
    batch = packed_batch()
    objective = Registers(model, offsets=3, weight=0.4)
    with torch.no_grad():
        objective.embedding.normal_()
        loss = objective.loss(model, batch, 0.25)
        own = NextToken().loss(model, batch, 0.25)
        each = naive(model, objective, batch, 0.25)
        items = (6 + 1) + 4 + 8  # next-token labels of the three documents: the first has a prompt of 4
        expected = 0.6 * own.total + 0.4 * sum(each.values()) / items
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.metrics["loss_registers"], sum(each.values()) / len(each), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.metrics["loss_1"], own.metrics["loss_1"], rtol=1e-5, atol=1e-5)
    assert len({d for _, _, d in each}) > 1 or len(each) > 5


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", [None, "parallel", "sequential"])
def test_packed_registers_learn_what_unpacked_ones_do(architecture, family):
    model = HeadwayModel.from_trunk(tiny_trunk(architecture), family=family or "parallel", count=2 if family else 0)
    documents = [random_rows(1, n, seed=n)[0] for n in (11, 5, 9)]
    objective = Registers(model, share=0.7, heads=MultiToken() if family else None)
    packed = batch_of([[*documents[0], *documents[1], *documents[2], 0, 0]], [[0] * 11 + [1] * 5 + [2] * 9 + [-1] * 2])
    packed["labels"][0, -2:] = -100
    together = objective.loss(model, packed, 0.5, items=1).total
    apart = sum(objective.loss(model, batch_of([document]), 0.5, items=1).total for document in documents)
    torch.testing.assert_close(together, apart, rtol=2e-5, atol=1e-4)


def test_heads_beside_registers_have_the_loss_that_they_have_without():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    heads = MultiToken(head_weights="medusa", total_weight=0.5)
    batch = packed_batch()
    with_registers = Registers(model, heads=heads).loss(model, batch, 0.0)
    without = heads.loss(model, batch, 0.0)
    assert without.metrics.keys() == with_registers.metrics.keys() - {"loss_registers"}
    for name, mean in without.metrics.items():
        torch.testing.assert_close(with_registers.metrics[name], mean)


def test_gradient_reaches_the_embedding_even_where_no_register_has_anything_to_predict():
    model = plain()
    objective = Registers(model)
    objective.loss(model, packed_batch(), 0.0).total.backward()
    assert objective.embedding.grad.abs().sum() > 0
    objective.embedding.grad = None
    nothing = batch_of(random_rows(2, 9))
    nothing["labels"][:, 1:] = -100
    loss = objective.loss(model, nothing, 0.0)
    loss.total.backward()
    assert objective.embedding.grad is not None and objective.embedding.grad.abs().sum() == 0
    assert loss.metrics["loss_registers"].isnan()


def test_offsets_are_uniform_one_a_document_new_at_every_step_and_the_same_in_any_batch():
    model = plain()
    objective = Registers(model, offsets=4, seed=3)
    rows = torch.tensor(random_rows(400, 12))
    segments = torch.tensor([[0] * 6 + [1] * 6]).repeat(400, 1)
    placed = objective.locate(rows, rows, segments, 0.1)
    first = {}
    for row in range(400):
        for after, d, label in zip(*(part[row].tolist() for part in placed), strict=True):
            if label != -100:
                assert first.setdefault((row, after // 6), d) == d
    counts = torch.bincount(torch.tensor(list(first.values())), minlength=5)[1:]
    assert ((counts - 200).abs() < 4 * (800 * 3 / 16) ** 0.5).all(), counts
    again, later = objective.locate(rows[7:9], rows[7:9], segments[7:9], 0.1), objective.locate(rows, rows, segments, 0.2)
    assert torch.equal(again.offsets[:, 0], placed.offsets[7:9, 0])
    assert not torch.equal(later.labels, placed.labels)
    assert not torch.equal(Registers(model, seed=4).locate(rows, rows, segments, 0.1).offsets[:, 0], placed.offsets[:, 0])


def test_the_share_says_how_many_tokens_have_a_register():
    model = plain()
    rows = torch.tensor(random_rows(100, 100))
    placed = Registers(model, offsets=1, share=0.25).locate(rows, rows, torch.zeros_like(rows), 0.0)
    assert (placed.labels != -100).sum().item() == pytest.approx(0.25 * 9900, rel=0.1)


@pytest.mark.slow
def test_registers_learn_period_two_and_tell_their_offset_by_their_position_alone():
    """One or two ahead is the token before or this one again: who cannot tell which it is has a loss of ln 2 at least."""
    torch.manual_seed(0)
    model = plain(num_hidden_layers=1, tie_word_embeddings=False)
    model.trunk.requires_grad_(False)
    for name, parameter in model.trunk.model.layers.named_parameters():
        if "mlp" in name:
            parameter.data.zero_()
        elif parameter.dim() > 1:
            parameter.requires_grad_(True)
    model.trunk.lm_head.weight.requires_grad_(True)
    objective = Registers(model, offsets=2, weight=0.9)
    optimizer = torch.optim.Adam([p for p in [*model.parameters(), objective.embedding] if p.requires_grad], lr=0.01)
    seen = []
    for step in range(250):
        seed = torch.randint(3, 60, (16, 2), generator=torch.Generator().manual_seed(step))
        rows = seed.repeat(1, 8)
        loss = objective.loss(model, {"input_ids": rows, "labels": rows}, step / 250)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        seen.append(loss.metrics["loss_registers"].item())
    assert sum(seen[-10:]) / 10 < 0.5, seen[-10:]


def test_mistakes_and_trunks_that_make_their_own_masks_are_refused():
    with pytest.raises(ConfigError, match="at least 1 token ahead"):
        Registers(plain(), offsets=0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Registers(plain(), weight=1.0)
    with pytest.raises(UnsupportedModelError, match="masks or positions of its own"):
        Registers(plain("mpt"))
    with pytest.raises(UnsupportedModelError, match="cannot be masked"):
        Registers(plain("mamba"))
