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


def tiny_trunk(architecture: str = "llama", seed: int = 0, **overrides: object) -> PreTrainedModel:
    """A random trunk in float32, in eval mode, with logits far enough apart that greedy has no ties."""
    config = AutoConfig.for_model(architecture, **{**COMMON, **ARCHITECTURES.get(architecture, {}), **overrides})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trunk = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in trunk.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3 if "embed" in name or "wte" in name else 0.15)
    return trunk.eval()
