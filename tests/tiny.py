"""Tiny random trunks of many architectures, and nothing else: what the tests share."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ARCHITECTURES = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 7, "head_dim": 8},
    "gemma3_text": {
        "head_dim": 8,
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "final_logit_softcapping": 20.0,
    },
    "phi3": {"original_max_position_embeddings": 128},
    "olmo2": {},
    "gpt_neox": {},
    "gpt2": {"n_inner": 48},
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
# mixtures of experts, latent attention, attention sinks, scaled logits, other norms
MORE_ARCHITECTURES = {
    "cohere2": {"sliding_window": 6, "logit_scale": 0.5},
    "deepseek_v3": {**EXPERTS, **LATENT, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_key_value_heads": 4},
    "gemma2": {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "glm4_moe": {**EXPERTS, "head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "granite": {"logits_scaling": 2.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0, "attention_multiplier": 0.3},
    "mixtral": {"num_local_experts": 4},
    "olmo3": {"sliding_window": 6},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "qwen3_moe": {**EXPERTS, "head_dim": 8, "num_experts": 4},
    "starcoder2": {},
}
ALL = ARCHITECTURES | MORE_ARCHITECTURES
# head families and their options
FAMILIES = [
    ("parallel", {}),
    ("parallel", {"linear": True}),
    ("sequential", {}),
    ("sequential", {"shared": True}),
    ("medusa", {}),
    ("medusa", {"layers": 2, "tied": True}),
    ("hydra", {}),
    ("hydra", {"layers": 2, "prefix": True}),
    ("redrafter", {}),
    ("redrafter", {"layers": 1, "tied": True}),
    ("eagle", {}),
    ("eagle3", {}),
    ("eagle3", {"layers_read": [0, 3], "norm_before_residual": True, "layer": {"intermediate_size": 40}}),
    ("gated-lora", {}),
    ("gated-lora", {"rank": 4, "alpha": 4, "sampler": False}),
]


def tiny_trunk(architecture: str = "llama", seed: int = 0, **overrides: object) -> PreTrainedModel:
    """A random trunk in float32, in eval mode, with logits far enough apart that greedy has no ties."""
    config = AutoConfig.for_model(architecture, **{**COMMON, **ALL.get(architecture, {}), **overrides})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in trunk.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3 if "embed" in name or "wte" in name else 0.15)
    return trunk.eval()
