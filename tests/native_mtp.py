"""Tiny checkpoints with native MTP layers, named by hand as published checkpoints are, from transformers' own `MtpModel`."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from tests.tiny import EXPERTS, tiny_trunk

LINEAR = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
HYBRID = {"num_hidden_layers": 4, "head_dim": 8, **LINEAR}  # three layers of linear attention, one of full
IDS = torch.tensor([[5, 9, 23, 4, 17, 8, 31, 7], [3, 3, 40, 2, 11, 60, 22, 9]])
# architecture -> settings that differ from tests.tiny, and number of MTP layers
NATIVE_MTP: dict[str, tuple[dict[str, object], int]] = {
    "deepseek_v3": ({"first_k_dense_replace": 1}, 2),
    "glm4_moe": ({}, 1),
    "qwen3_next": ({**HYBRID, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16}, 1),
    "qwen3_5_text": (HYBRID, 1),
    "mimo": ({}, 2),
}
DEEPSEEK = ("deepseek_v3", "glm4_moe")


def save_native_mtp(
    folder: Path, architecture: str, dtype: torch.dtype = torch.float32, depth: int | None = None, **saving: object
) -> MtpModel:
    """Save a checkpoint; returns transformers' own MTP layers with the trunk."""
    overrides, count = NATIVE_MTP[architecture]
    overrides = overrides if depth is None else {**overrides, "num_hidden_layers": depth}
    trunk = tiny_trunk("qwen2" if architecture == "mimo" else architecture, vocab_size=64, attention_dropout=0.0, **overrides)
    config = trunk.config
    config.num_mtp_layers, config.mtp_hidden_states_first = count, architecture == "mimo"
    if getattr(config, "layer_types", None):
        config.mtp_layer_types = ["full_attention"] * count
    native = MtpModel(trunk, count).eval()
    generator = torch.Generator().manual_seed(7)
    for name, tensor in native.layers.state_dict().items():
        tensor.normal_(std=0.15, generator=generator)
        if "norm" in name and architecture in (*DEEPSEEK, "mimo"):
            tensor += 1  # the other architectures store the difference from 1
    for model in (trunk, native.layers):
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)  # not buffers: the experts' biases stay in float32
    config.dtype = dtype
    for name in ("num_mtp_layers", "mtp_layer_types", "mtp_hidden_states_first"):
        if architecture not in DEEPSEEK:
            vars(config).pop(name, None)
    trunk.save_pretrained(folder, state_dict={**trunk.state_dict(), **published(native, architecture, trunk)}, **saving)
    if architecture == "mimo":
        written = json.loads((folder / "config.json").read_text())
        written |= {"model_type": "mimo", "architectures": ["MiMoForCausalLM"], "num_nextn_predict_layers": count}
        (folder / "config.json").write_text(json.dumps(written))
    return native


def published(native: MtpModel, architecture: str, trunk: PreTrainedModel) -> dict[str, Tensor]:
    """Tensors of the layers under the names of published checkpoints, with experts apart."""
    depth, found = trunk.config.num_hidden_layers, {}
    for name, tensor in native.layers.state_dict().items():
        k, rest = name.split(".", 1)
        if architecture in DEEPSEEK:
            rest = rest.removeprefix("mtp_block.").replace("post_norm.", "shared_head.norm.")
            name = f"model.layers.{depth + int(k)}.{rest}"
        elif architecture == "mimo":
            rest = rest.removeprefix("mtp_block.").replace("post_norm.", "final_layernorm.").replace("eh_proj.", "input_proj.")
            rest = rest.replace("enorm.", "token_layernorm.").replace("hnorm.", "hidden_layernorm.")
            name = f"model.mtp_layers.{k}.{rest}"
        elif rest.startswith("mtp_block."):
            name = f"mtp.layers.{k}.{rest.removeprefix('mtp_block.')}"
        else:
            rest = rest.replace("enorm.", "pre_fc_norm_embedding.").replace("hnorm.", "pre_fc_norm_hidden.")
            name = "mtp." + rest.replace("eh_proj.", "fc.").replace("post_norm.", "norm.")
        found |= apart(name, tensor)
    if architecture in DEEPSEEK:
        for k in range(native.num_mtp_layers):
            found[f"model.layers.{depth + k}.embed_tokens.weight"] = trunk.get_input_embeddings().weight.detach().clone()
            found[f"model.layers.{depth + k}.shared_head.head.weight"] = trunk.lm_head.weight.detach().clone()
    return found


def apart(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """The tensors of separate experts for a tensor of merged experts."""
    if name.endswith("experts.down_proj"):
        before = name.removesuffix("down_proj")
        return {f"{before}{e}.down_proj.weight": one.clone() for e, one in enumerate(tensor)}
    if name.endswith("experts.gate_up_proj"):
        before = name.removesuffix("gate_up_proj")
        halves = {part: tensor.chunk(2, dim=1)[half] for half, part in enumerate(("gate_proj", "up_proj"))}
        return {f"{before}{e}.{part}.weight": one.clone() for part, all_ in halves.items() for e, one in enumerate(all_)}
    return {name: tensor.clone()}


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model in safetensors, sharded or not."""
    return {name: tensor for file in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(file).items()}


def native_states(native: MtpModel, hidden: torch.Tensor, ids: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Hidden states of transformers' own layers, (batch, seq - k - 1, hidden) of layer k."""
    cache, states = MtpCache(config=native.config), []
    for k in range(count):
        length = ids.shape[1] - (k + 1)
        positions = torch.arange(k + 1, k + 1 + length).expand(ids.shape[0], -1)
        hidden = native.forward_layer(k, hidden[:, :length], positions, cache, input_ids=ids[:, k + 1 :])
        states.append(hidden)
    return states
