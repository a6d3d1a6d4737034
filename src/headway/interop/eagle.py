"""EAGLE-1 drafters (arXiv 2401.15077) in the published format: `fc` and one Llama layer without a first norm.

fc.weight, layers.0.self_attn.{q,k,v,o}_proj.weight, layers.0.mlp.{gate,up,down}_proj.weight,
layers.0.post_attention_layernorm.weight; embedding and unembedding are the trunk's.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.errors import UnsupportedModelError
from headway.heads import EagleHeads
from headway.heads.modules.draft_layer import DraftLayer, embeddings
from headway.interop import llama
from headway.interop.draft_checkpoint import TRUNK_NAME, DraftCheckpoint
from headway.interop.draft_export import check_options, metadata, require_heads, trunk_reference, write_draft_checkpoint
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel

DEFAULTS = {"bias": False, "layer": {}, "noise": 0.1, "trained_steps": None}
EMBEDDING, UNEMBEDDING = "embed_tokens.weight", "lm_head.weight"
DEFAULT_COUNT = 5  # drafts of a published drafter; no file states the number


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the drafter.

    Raises:
        UnsupportedModelError: heads of another family, or an unembedding with a bias, which engines do not apply.
        ConfigError: an option is given.
    """
    check_options(options, "eagle")
    heads = require_heads(model, "eagle", "eagle")
    assert isinstance(heads, EagleHeads)
    if model.unembedding.bias is not None:
        raise UnsupportedModelError(
            f"The unembedding of {type(model.trunk).__name__} has a bias, which engines do not apply to EAGLE drafts."
        )
    if heads.fc.bias is not None:
        warnings.warn("vLLM ignores the bias of fc: its drafts are a little worse with these heads.", UserWarning, stacklevel=3)
    own = heads.checkpoint_tensors()
    outcomes = [TensorOutcome(f"heads.{name}", (name,)) for name in own if name != "draft_tokens"]
    if heads.draft_tokens is not None:
        outcomes.append(TensorOutcome("heads.draft_tokens", reason="EAGLE-1 drafts with the whole vocabulary"))
    layer = heads.layers[0]
    assert isinstance(layer, DraftLayer)
    config = llama.layer_config(layer.config, model) | {
        "architectures": ["LlamaForCausalLM"],
        "bias": heads.fc.bias is not None,
        "logit_scale": model.unembedding.scale,
    }
    tensors = {name: tensor for name, tensor in own.items() if name != "draft_tokens"}
    return write_draft_checkpoint(folder, config | trunk_reference(model) | metadata(heads, reduced=False), tensors, outcomes)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The trunk with the drafter as `eagle` heads.

    Raises:
        CheckpointError: a tensor is missing, unknown, or does not fit the trunk.
        UnsupportedModelError: the layer is not a Llama layer.
        ConfigError: no trunk is named.
    """
    checkpoint = DraftCheckpoint.open(folder)
    recorded = checkpoint.read_metadata("eagle")
    model = checkpoint.load_trunk(trunk, checkpoint.config.get(TRUNK_NAME))
    options: dict[str, Any] = {}
    if recorded:
        options = {name: recorded.options[name] for name in ("noise", "trained_steps") if name in recorded.options}
    if "fc.bias" in checkpoint.headers:
        options["bias"] = True
    if layer := llama.layer_option(checkpoint.config, checkpoint, model.view, recorded and recorded.options.get("layer")):
        options["layer"] = layer
    heads = EagleHeads.from_trunk(model.view, recorded.count if recorded else DEFAULT_COUNT, options)
    tensors = checkpoint.read()
    reasons, expected = llama.redundant_tensors(tensors, {EMBEDDING: embeddings(model.view), UNEMBEDDING: model.unembedding.weight})
    tensors = {name: tensor for name, tensor in tensors.items() if name not in reasons}
    checkpoint.account_for({name: [name] for name in tensors}, reasons, expected)
    return checkpoint.attach(model, heads, tensors, DEFAULTS, optional=llama.zero_output_bias(heads))
