"""Mask tokens are processed as by a model with merged adapters, and text tokens as without mask tokens and adapters."""

import copy

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from headway import HeadwayModel
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.objectives import MultiToken
from tests.references import perturbed_gated_lora
from tests.tiny import ARCHITECTURES, tiny_trunk

IDS = torch.tensor([[5, 9, 23, 4, 17, 8, 40, 3, 11, 52, 7]])


def hooks_of(trunk):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in trunk.modules())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mixtral", "deepseek_v3"])
def test_the_trunks_output_is_bit_identical_with_gated_lora_heads(architecture):
    trunk = tiny_trunk(architecture)
    plain = trunk(IDS).logits
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    names = [set(vars(module)) for module in trunk.modules()]
    model = perturbed_gated_lora(architecture)
    assert torch.equal(model.trunk(IDS).logits, plain)
    assert torch.equal(model.unembedding.logits(model(IDS).hidden_states[0]), plain)
    MultiToken(next_token=False).loss(model, {"input_ids": IDS, "labels": IDS}, 0.0)
    model.generate(IDS, max_new_tokens=6, adaptive=False)
    assert torch.equal(model.trunk(IDS).logits, plain)
    assert all(torch.equal(value, before[name]) for name, value in model.trunk.state_dict().items())
    assert hooks_of(model.trunk) == 0
    assert [set(vars(module)) for module in model.trunk.modules()] == names


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hidden_states_of_tokens_are_bit_identical_with_mask_tokens_and_any_adapters(architecture, monkeypatch):
    """Every forward with mask tokens, of a training step and of a decoding, run again with zero adapters."""
    model = perturbed_gated_lora(architecture)
    plain = type(model.heads).run_with_mask_tokens
    passes = []

    def both(self, input_ids, context, *args):
        before = context._replace(cache=copy.deepcopy(context.cache))
        trained = plain(self, input_ids, context, *args)
        kept = [pair.lora_B.data for pair in pairs]
        for pair in pairs:
            pair.lora_B.data = torch.zeros_like(pair.lora_B)
        zeroed = plain(self, input_ids, before, *args)
        for pair, value in zip(pairs, kept, strict=True):
            pair.lora_B.data = value
        passes.append((trained, zeroed))
        return trained

    pairs = [pair for layer in model.heads.adapters for pair in layer.values()]
    monkeypatch.setattr(type(model.heads), "run_with_mask_tokens", both)
    model(IDS)
    model.generate(
        IDS.repeat(2, 1),
        attention_mask=torch.tensor([[1] * 11, [0] * 4 + [1] * 7]),
        max_new_tokens=8,
        adaptive=False,
        eos_token_id=None,
    )
    assert len(passes) > 4
    for trained, zeroed in passes:
        with torch.no_grad():
            assert torch.equal(model.unembedding.logits(trained.last), model.unembedding.logits(zeroed.last))
        assert not torch.allclose(trained.mask_tokens, zeroed.mask_tokens)


def merged(decoder, layers, heads):
    """The decoder's weights with merged adapters; gradients flow to weights and adapters."""
    weights = dict(decoder.named_parameters())
    modules = dict(decoder.named_modules())
    prefix = next(name for name, module in modules.items() if module is layers)
    for index, pairs in enumerate(heads.adapters):
        for name, pair in pairs.items():
            name = f"{prefix}.{index}.{name.replace('-', '.')}"
            delta = heads.adapters.scale * pair.lora_B @ pair.lora_A
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + (delta.T if isinstance(modules[name], Conv1D) else delta)
    return weights


def answer(model, weights, prefix, count):
    """Hidden states of `count` mask tokens after a text; the unmodified model fills the cache with the text."""
    decoder = model.view.decoder
    cache = decoder(input_ids=prefix, use_cache=True).past_key_values
    own = torch.stack(list(model.heads.embeddings)[:count])[None]
    positions = torch.arange(prefix.shape[1], prefix.shape[1] + count)[None]
    kwargs = {"inputs_embeds": own, "position_ids": positions, "past_key_values": cache, "use_cache": True}
    return functional_call(decoder, weights, (), kwargs).last_hidden_state[0]


def sampled(sampler, state, embedded):
    """Two blocks of a linear layer, SiLU and a norm, added to the state."""
    x = torch.cat([state, embedded])
    for linear, _, norm in sampler.blocks:
        x = F.silu(linear.weight @ x + linear.bias)
        x = (x - x.mean()) / (x.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    return state + x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "options"), [("llama", {}), ("gpt2", {}), ("gemma3_text", {}), ("qwen3", {"sampler": False})]
)
@pytest.mark.parametrize("frozen", [True, False])
def test_loss_and_gradients_equal_those_of_one_prefix_with_mask_tokens_at_a_time(architecture, options, frozen):
    model = perturbed_gated_lora(architecture, count=2, rank=4, alpha=6, **options)
    assert model.heads.adapters.scale == 1.5
    model.trunk.requires_grad_(not frozen)
    ids, total = IDS[0], 0.0
    if not frozen:
        total = F.cross_entropy(model.trunk(IDS).logits[0, :-1], ids[1:], reduction="sum")
    table = model.trunk.get_input_embeddings()
    for i in range(len(ids) - 2):
        states = answer(model, merged(model.view.decoder, model.view.layers, model.heads), IDS[:, : i + 1], 2)
        for k, weight in enumerate((0.8, 0.64)):
            if i + k + 2 < len(ids):
                state = states[k]
                if model.heads.sampler is not None:
                    state = sampled(model.heads.sampler, state, table(ids[i + k + 1]))
                total = total + weight * F.cross_entropy(model.unembedding.logits(state), ids[i + k + 2])
    total = total / (len(ids) - 1)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    expected = torch.autograd.grad(total, learnt, allow_unused=True)
    objective = MultiToken(head_weights="medusa", next_token=not frozen)
    loss = objective.loss(model, {"input_ids": IDS, "labels": IDS}, 0.0)
    found = torch.autograd.grad(loss.total, learnt, allow_unused=True)
    torch.testing.assert_close(loss.total, total, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None:  # a position table has unused rows
            assert ours is None or not ours.any()
        else:
            torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradient_checkpointing_changes_no_gradient(architecture, frozen):
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = perturbed_gated_lora(architecture)
        for module in model.trunk.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.train()
        model.trunk.requires_grad_(not frozen)
        if checkpointing:
            model.gradient_checkpointing_enable()
            hooks, functions = hooks_of(model.trunk), [layer._gradient_checkpointing_func for layer in model.view.layers]
        loss = MultiToken(next_token=not frozen).loss(model, {"input_ids": IDS, "labels": IDS}, 0.0)
        if checkpointing:
            assert functions == [layer._gradient_checkpointing_func for layer in model.view.layers]
        loss.total.backward()
        assert hooks_of(model.trunk) == (hooks if checkpointing else 0)
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_bidirectional_prefix_changes_the_attention_of_later_mask_tokens_alone():
    """Mask tokens of a token attend as the token does: after the prefix, to the whole prefix."""
    model = perturbed_gated_lora()
    prefix = torch.arange(IDS.shape[1])[None] < 5
    states = model(IDS, prefix=prefix).hidden_states
    own, masks = model.layout(IDS, None, prefix)
    assert torch.equal(states[0], model.run(IDS, own, masks).last)
    changed = IDS.clone()
    changed[0, 7] = 50
    for k, (before, after) in enumerate(zip(states[1:], model(changed, prefix=prefix).hidden_states[1:], strict=True)):
        same = (before - after).abs().amax(-1)[0] < 1e-6
        sampled = 7 - (k + 1)  # the sampler there reads the changed token
        assert [i for i, unchanged in enumerate(same.tolist()) if not unchanged] == sorted({sampled, *range(7, 11)})


def test_fewer_mask_tokens_are_the_first_mask_tokens(tmp_path):
    model = perturbed_gated_lora()
    model.save_pretrained(tmp_path)
    fewer = HeadwayModel.from_pretrained(tmp_path, count=1)
    for ours, theirs in zip(fewer(IDS).hidden_states, model(IDS).hidden_states, strict=False):
        torch.testing.assert_close(ours, theirs)
    assert len(model(IDS, count=2).hidden_states) == 3


def test_adapters_of_another_depth_are_refused_with_both_depths(tmp_path):
    perturbed_gated_lora().heads.save_pretrained(tmp_path)
    other = HeadwayModel.from_trunk(tiny_trunk(num_hidden_layers=2), count=0)
    with pytest.raises(CheckpointError, match="adapt a trunk of 3 layers, but this trunk has 2"):
        other.attach(tmp_path)


def test_trunks_that_ignore_masks_and_ranks_below_one_are_refused():
    local = {"num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4}
    for trunk in (tiny_trunk("bloom"), tiny_trunk("gpt_neo", **local)):
        with pytest.raises(UnsupportedModelError, match=r"cannot have gated-lora heads: .* Use another family"):
            HeadwayModel.from_trunk(trunk, family="gated-lora")
    with pytest.raises(ConfigError, match="rank is the rank of the adapters' matrices, from 1, not 0"):
        HeadwayModel.from_trunk(tiny_trunk(), family="gated-lora", rank=0)
