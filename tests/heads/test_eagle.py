"""EAGLE and EAGLE-3: losses re-derived draft by draft from the papers, and files in the published format."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from headway import HeadwayModel
from headway.errors import ConfigError, UnsupportedModelError
from headway.heads import TENSORS_FILE
from headway.heads.eagle3 import default_layers
from headway.heads.modules.draft_layer import DraftLayer
from headway.objectives import MultiToken
from tests.tiny import tiny_trunk

COUNT, LENGTH, HEADS, KEYS, WIDTH = 3, 10, 4, 2, 8
# theta of the rotary positions, epsilon of the norms, how far attention looks back
TRUNKS = {"llama": (1e4, 1e-6, 99), "gemma3_text": (1e6, 1e-6, 99), "gpt2": (1e4, 1e-5, 99), "mistral": (1e4, 1e-6, 7)}


def norm(x, weight, eps):
    return weight * x / (x.pow(2).mean() + eps).sqrt()


def turned(x, position, theta):
    """Rotary embedding, pair (d, d + half) by pair."""
    half, found = WIDTH // 2, x.clone()
    for d in range(half):
        angle = torch.tensor(position / theta ** (2 * d / WIDTH))
        found[d] = x[d] * angle.cos() - x[d + half] * angle.sin()
        found[d + half] = x[d + half] * angle.cos() + x[d] * angle.sin()
    return found


def layer(p, at, residual, seen, trunk):
    """A Llama layer at the last entry of `seen`, the (input, position) pairs that the layer attends to."""
    theta, eps, window = TRUNKS[trunk]
    (x, position), own = seen[-1], p[f"{at}.self_attn.k_proj.weight"].shape[0] // WIDTH
    seen = [(key, where) for key, where in seen if position - where < window]
    queries = (p[f"{at}.self_attn.q_proj.weight"] @ x).split(WIDTH)
    heard = []
    for head, query in enumerate(queries):
        group = head // (len(queries) // own)
        keys = [turned((p[f"{at}.self_attn.k_proj.weight"] @ key).split(WIDTH)[group], where, theta) for key, where in seen]
        values = [(p[f"{at}.self_attn.v_proj.weight"] @ key).split(WIDTH)[group] for key, _ in seen]
        scores = torch.stack([turned(query, position, theta) @ key / WIDTH**0.5 for key in keys]).softmax(0)
        heard.append(sum(score * value for score, value in zip(scores, values, strict=True)))
    hidden = residual + p[f"{at}.self_attn.o_proj.weight"] @ torch.cat(heard)
    x = norm(hidden, p[f"{at}.post_attention_layernorm.weight"], eps)
    gate = F.silu(p[f"{at}.mlp.gate_proj.weight"] @ x) * (p[f"{at}.mlp.up_proj.weight"] @ x)
    return hidden + p[f"{at}.mlp.down_proj.weight"] @ gate


def eagle(p, table, hidden_state_layers, ids, i, trunk):
    """States of all steps after the text up to i; the input tokens i + 1, i + 2, ... come from `ids`."""
    joined = [p["fc.weight"] @ torch.cat([table[ids[j + 1]], hidden_state_layers[-1][j]]) for j in range(i + 1)]
    text, path, found = [(x, j) for j, x in enumerate(joined)], [], []
    for k in range(COUNT):
        if k:
            x = p["fc.weight"] @ torch.cat([table[ids[i + k + 1]], found[-1]])
            path.append((x, i + k))
        found.append(layer(p, "layers.0", (text + path)[-1][0], text + path, trunk))
        if i + k + 3 == len(ids):
            break
    return found


def eagle3(p, table, hidden_state_layers, ids, i, trunk):
    eps = TRUNKS[trunk][1]
    low, middle, high = default_layers(3)

    def joined(token, state):
        embedded = norm(table[token], p["midlayer.input_layernorm.weight"], eps)
        return torch.cat([embedded, norm(state, p["midlayer.hidden_norm.weight"], eps)])

    recurrent_state = [
        p["fc.weight"] @ torch.cat([hidden_state_layers[low][j], hidden_state_layers[middle][j], hidden_state_layers[high][j]])
        for j in range(i + 1)
    ]
    text, path, found = [(joined(ids[j + 1], recurrent_state[j]), j) for j in range(i + 1)], [], []
    hidden = recurrent_state[-1]
    for k in range(COUNT):
        if k:
            path.append((joined(ids[i + k + 1], hidden), i + k))
        hidden = layer(p, "midlayer", hidden, text + path, trunk)
        found.append(norm(hidden, p["norm.weight"], eps))
        if i + k + 3 == len(ids):
            break
    return found


def perturbed_model(family, architecture, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HeadwayModel.from_trunk(tiny_trunk(architecture), family=family, count=COUNT, **options)
    model.trunk.requires_grad_(False)
    g = torch.Generator().manual_seed(1)
    for parameter in model.heads.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=g)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("architecture", TRUNKS)
@pytest.mark.parametrize(("reference", "known"), [(eagle, 61), (eagle3, 61), (eagle3, 20)])
def test_loss_and_gradients_equal_those_of_single_drafts(reference, known, architecture):
    """sum_k 0.8^k (KL from the trunk + 3 smooth L1 distances of states), every position with the context of decoding."""
    family = reference.__name__
    model, far = perturbed_model(family, architecture), 3.0 if family == "eagle" else 0.0
    tokens = torch.randperm(61, generator=torch.Generator().manual_seed(3))[:known].sort().values
    if known < 61:
        model.heads.set_draft_vocab(tokens)
    ids = torch.randint(3, 60, (1, LENGTH), generator=torch.Generator().manual_seed(2))
    objective = MultiToken("medusa", next_token=False, distill=True, feature_weight=far)
    loss = objective.loss(model, {"input_ids": ids, "labels": ids}, 0.0)
    loss.total.backward()

    trunk = model.trunk(ids, output_hidden_states=True)
    hidden_state_layers, says = [states[0] for states in trunk.hidden_states], trunk.logits[0].softmax(-1)
    table, softcap = model.trunk.get_input_embeddings().weight, model.unembedding.softcap
    p = {name: value.detach().clone().requires_grad_() for name, value in model.heads.named_parameters()}
    total, distances = 0.0, []
    for i in range(LENGTH - 2):
        for k, state in enumerate(reference(p, table, hidden_state_layers, ids[0].tolist(), i, architecture)):
            logits = p["lm_head.weight"] @ state if family == "eagle3" else model.unembedding.weight @ state
            if family == "eagle" and softcap:
                logits = softcap * (logits / softcap).tanh()
            teacher = says[i + k + 1][tokens]
            total = total + 0.8 ** (k + 1) * (teacher * (teacher / teacher.sum() / logits.softmax(0)).log()).sum()
            if far:
                gap = (state - hidden_state_layers[-1][i + k + 1]).abs()
                distances.append(torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean())
                total = total + 0.8 ** (k + 1) * far * distances[-1]
    total = total / (LENGTH - 1)
    total.backward()
    torch.testing.assert_close(loss.total, total, rtol=1e-5, atol=1e-5)
    for name, parameter in model.heads.named_parameters():
        torch.testing.assert_close(parameter.grad, p[name].grad, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    if far:
        torch.testing.assert_close(loss.metrics["loss_features"], torch.stack(distances).mean().detach(), rtol=1e-5, atol=1e-5)


def test_names_and_shapes_on_disk_equal_published_checkpoints(tmp_path):
    block = {
        "self_attn.o_proj.weight": [32, 32],
        "mlp.gate_proj.weight": [48, 32],
        "mlp.up_proj.weight": [48, 32],
        "mlp.down_proj.weight": [32, 48],
        "post_attention_layernorm.weight": [32],
    }
    own = {"q": 32, "k": 16, "v": 16}
    first = {f"layers.0.{name}": shape for name, shape in block.items()}
    first |= {f"layers.0.self_attn.{x}_proj.weight": [rows, 32] for x, rows in own.items()} | {"fc.weight": [32, 64]}
    third = {f"midlayer.{name}": shape for name, shape in block.items()}
    third |= {f"midlayer.self_attn.{x}_proj.weight": [rows, 64] for x, rows in own.items()} | {"fc.weight": [32, 96]}
    third |= {"midlayer.input_layernorm.weight": [32], "midlayer.hidden_norm.weight": [32], "norm.weight": [32]}
    third |= {"lm_head.weight": [20, 32], "draft_tokens": [20]}
    for family, expected in (("eagle", first), ("eagle3", third)):
        options = {"draft_vocabulary": 20} if family == "eagle3" else {}
        perturbed_model(family, "llama", **options).heads.save_pretrained(tmp_path / family)
        found = load_file(tmp_path / family / TENSORS_FILE)
        assert {name: list(value.shape) for name, value in found.items()} == expected


def test_untrained_heads_predict_nearly_as_the_hidden_state_that_they_pass_on():
    for architecture in ("llama", "gpt2", "gemma3_text"):
        model = HeadwayModel.from_trunk(tiny_trunk(architecture), family="eagle3", count=1, layers_read=[0, 1, 2])
        ids = torch.randint(3, 60, (1, 20), generator=torch.Generator().manual_seed(0))
        high = model.run(ids, None, None).inner[2]
        fresh, passed = model(ids).hidden_states[1].detach(), model.view.norm(high).detach()
        if architecture == "gpt2":  # the norm subtracts the mean, and adds a bias
            passed = model.view.norm.weight * high / high.pow(2).mean(-1, keepdim=True).sqrt()
        assert F.cosine_similarity(fresh, passed, dim=-1).mean() > 0.95


@pytest.mark.parametrize("layers", range(1, 40))
def test_default_layers_read_are_three_layers_of_the_trunk(layers):
    low, middle, high = default_layers(layers)
    assert 0 <= low <= middle <= high <= layers
    assert layers == 1 or low < middle < high
    assert layers < 7 or (low, middle, high) == (2, layers // 2, layers - 3)


@pytest.mark.parametrize("family", ["eagle", "eagle3"])
def test_checkpointing_and_attention_implementations_change_no_gradient(family):
    found = []
    for way in ("plain", "checkpointed", "eager"):
        model = perturbed_model(family, "gemma3_text", **({"noise": 0} if family == "eagle" else {})).train()
        if way == "checkpointed":
            model.gradient_checkpointing_enable()
        if way == "eager":
            model.trunk.set_attn_implementation("eager")
        ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(2))
        segments = torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [-1] * 3])
        batch = {"input_ids": ids, "labels": ids.masked_fill(segments < 0, -100), "segments": segments}
        ran: list[object] = []
        block = next(module for module in model.heads.modules() if isinstance(module, DraftLayer))
        block.self_attn.register_forward_hook(lambda *args, ran=ran: ran.append(args[0]))
        MultiToken(next_token=False).loss(model, batch, 0.0).total.backward()
        assert len(ran) == (2 * COUNT if way == "checkpointed" else COUNT)
        found.append({name: p.grad for name, p in model.heads.named_parameters()})
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["eagle", "eagle3"])
def test_rotary_positions_are_exact_in_bfloat16(family):
    trunk = tiny_trunk().to(torch.bfloat16)
    model = HeadwayModel.from_trunk(trunk, family=family, count=COUNT)
    assert {p.dtype for p in model.heads.parameters()} == {torch.bfloat16}
    assert {b.dtype for name, b in model.heads.named_buffers() if "inv_freq" in name} == {torch.float32}
    assert model.generate(torch.tensor([[5, 9, 23]]), max_new_tokens=9, adaptive=False).stats.num_draft_tokens


def test_noise_is_added_to_hidden_states_in_training_alone(monkeypatch):
    model = perturbed_model("eagle", "llama", noise=0.3)
    ids = torch.randint(3, 60, (4, 20), generator=torch.Generator().manual_seed(0))
    read, plain = [], type(model.heads).step

    def step(self, k, recurrent_state, *others):
        read.append(recurrent_state)
        return plain(self, k, recurrent_state, *others)

    monkeypatch.setattr(type(model.heads), "step", step)
    for training in (True, False):
        model.heads.train(training)
        own = model(ids, count=1).hidden_states[0]
        moved = (read.pop() - own).abs()
        assert (0.29 < moved.max() <= 0.3 and abs(moved.mean() - 0.15) < 0.01) if training else moved.max() == 0


def test_untrained_steps_have_a_loss_and_no_gradient():
    ids = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(0))
    batch, grads = {"input_ids": ids, "labels": ids}, []
    for options in ({"trained_steps": 1}, {}):
        model = perturbed_model("eagle", "llama", **options)
        objective = MultiToken(next_token=False, feature_weight=1.0)
        loss = objective.loss(model, batch, 0.0)
        if options:
            measured = loss
            loss.total.backward()
        else:
            for name in loss.metrics.keys() - {"loss_1"}:
                torch.testing.assert_close(loss.metrics[name], measured.metrics[name])
            model.heads.config = model.heads.config.__class__(**{**vars(model.heads.config), "count": 1})
            objective.loss(model, batch, 0.0).total.backward()
        grads.append({name: p.grad for name, p in model.heads.named_parameters()})
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "options", "complaint"),
    [
        ("eagle3", {"layers_read": [0, 4]}, r"states of a trunk of 3 layers, from 0 to 3, not \[0, 4\]"),
        ("eagle3", {"layer": {"depth": 2}}, "layer has no depth; it has: attention_bias, head_dim"),
        ("eagle", {"layer": {"num_attention_heads": 5}}, "No layer can be made with layer: .*num_attention_heads"),
        ("eagle", {"noise": -1}, "noise is the amplitude of the noise"),
        ("eagle", {"trained_steps": 0}, "trained_steps is a number of steps with a gradient, from 1, not 0"),
        ("eagle", {"layers_read": [0]}, "eagle heads have no option layers_read; they have: bias"),
    ],
)
def test_options_that_cannot_be_built_are_refused(family, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        HeadwayModel.from_trunk(tiny_trunk(), family=family, count=1, **options)


def test_a_trunk_with_narrower_embeddings_is_refused():
    with pytest.raises(UnsupportedModelError, match="OPTForCausalLM has embeddings of width 16, but states of 32"):
        HeadwayModel.from_trunk(tiny_trunk("opt", word_embed_proj_dim=16), family="eagle3", count=1)
