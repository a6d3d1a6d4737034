"""EAGLE drafters read by the layout's description alone, in plain torch, step by step as an engine drafts."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F


class Drafter:
    """One Llama layer with a cache of its own. `layer`: what its tensors' names begin with."""

    def __init__(self, folder: Path, layer: str, nested: str | None = None) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.llama = self.config[nested] if nested else self.config
        self.tensors = load_file(folder / "model.safetensors")
        self.prefix, self.keys, self.values = layer, None, None

    def weight(self, name: str) -> Tensor:
        return self.tensors[f"{self.prefix}{name}.weight"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(name), self.tensors.get(f"{self.prefix}{name}.bias"))

    def norm(self, weight: Tensor, x: Tensor) -> Tensor:
        return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.llama["rms_norm_eps"])

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        half = self.llama["head_dim"] // 2
        angles = positions[:, None] / self.llama["rope_theta"] ** (torch.arange(half) / half)
        cos, sin = angles.cos(), angles.sin()
        left, right = x[..., :half], x[..., half:]
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)

    def run(self, attended: Tensor, residual: Tensor, positions: Tensor) -> Tensor:
        """(seq, width) -> (seq, hidden), of what follows all that was run before."""
        width, heads, groups = self.llama["head_dim"], self.llama["num_attention_heads"], self.llama["num_key_value_heads"]
        q, k, v = (self.linear(f"self_attn.{name}_proj", attended) for name in "qkv")
        q, k, v = (x.unflatten(-1, (-1, width)).transpose(0, 1) for x in (q, k, v))  # (heads, seq, width)
        q, k = self.rotate(q, positions), self.rotate(k, positions)
        self.keys = k if self.keys is None else torch.cat([self.keys, k], 1)
        self.values = v if self.values is None else torch.cat([self.values, v], 1)
        keys, values = (x.repeat_interleave(heads // groups, 0) for x in (self.keys, self.values))
        seen = torch.ones(q.shape[1], keys.shape[1], dtype=torch.bool).tril(keys.shape[1] - q.shape[1])
        scores = (q @ keys.transpose(1, 2) / width**0.5).masked_fill(~seen, -torch.inf)
        hidden = residual + self.linear("self_attn.o_proj", (scores.softmax(-1) @ values).transpose(0, 1).flatten(1))
        inner = self.norm(self.weight("post_attention_layernorm"), hidden)
        return hidden + self.linear(
            "mlp.down_proj", F.silu(self.linear("mlp.gate_proj", inner)) * self.linear("mlp.up_proj", inner)
        )


def eagle_drafts(folder: Path, trunk: Any, ids: Tensor, anchor: int, steps: int) -> Tensor:
    """Logits of each step, (steps, vocab), from the text up to `anchor` and, for what was drafted, the text's own tokens."""
    drafter, embed = Drafter(folder, "layers.0."), trunk.get_input_embeddings().weight
    hidden = trunk.model(ids[None]).last_hidden_state[0, : anchor + 1]
    tokens, positions, found = ids[1 : anchor + 2], torch.arange(anchor + 1), []
    for k in range(steps):
        bias = drafter.tensors.get("fc.bias")
        joined = F.linear(torch.cat([embed[tokens], hidden], -1), drafter.tensors["fc.weight"], bias)
        hidden = drafter.run(joined, joined, positions)[-1:]
        found.append(hidden[0] @ trunk.lm_head.weight.T * drafter.config["logit_scale"])
        tokens, positions = ids[anchor + k + 2 : anchor + k + 3], torch.tensor([anchor + k + 1])
    return torch.stack(found)


def eagle3_drafts(
    folder: Path, trunk: Any, ids: Tensor, anchor: int, steps: int, layer: str = "midlayer.", nested: str | None = None
) -> Tensor:
    """The same of an EAGLE-3 drafter."""
    drafter, embed = Drafter(folder, layer, nested), trunk.get_input_embeddings().weight
    states = trunk(ids[None], output_hidden_states=True).hidden_states
    read = torch.cat([states[i][0, : anchor + 1] for i in drafter.config["eagle_aux_hidden_state_layer_ids"]], -1)
    hidden = read @ drafter.tensors["fc.weight"].T
    tokens, positions, found = ids[1 : anchor + 2], torch.arange(anchor + 1), []
    for k in range(steps):
        normed = drafter.norm(drafter.weight("hidden_norm"), hidden)
        attended = torch.cat([drafter.norm(drafter.weight("input_layernorm"), embed[tokens]), normed], -1)
        hidden = drafter.run(attended, normed if drafter.config["norm_before_residual"] else hidden, positions)[-1:]
        logits = drafter.norm(drafter.tensors["norm.weight"], hidden[0]) @ drafter.tensors["lm_head.weight"].T
        if "d2t" in drafter.tensors:
            whole = torch.full((drafter.llama["vocab_size"],), -torch.inf)
            whole[torch.arange(drafter.config["draft_vocab_size"]) + drafter.tensors["d2t"]] = logits
            logits = whole
        found.append(logits)
        tokens, positions = ids[anchor + k + 2 : anchor + k + 3], torch.tensor([anchor + k + 1])
    return torch.stack(found)
