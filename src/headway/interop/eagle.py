"""EAGLE-1 drafters (arXiv 2401.15077) as their authors publish them: `fc` and one Llama layer without a first norm.

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
from headway.interop.draft_checkpoint import (
    MADE_FOR,
    Draft,
    attach,
    heads_of,
    made_for,
    record_of,
    recorded,
    refuse_options,
    settle,
    trunk_for,
    write_draft,
)
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel

DEFAULTS = {"bias": False, "layer": {}, "noise": 0.1, "trained_steps": None}
EMBEDDING, UNEMBEDDING = "embed_tokens.weight", "lm_head.weight"
STEPS = 5  # that a published drafter takes, which no file says


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the drafter.

    Raises: UnsupportedModelError for other heads, and for a trunk whose unembedding has a bias, which engines do not apply.
    """
    refuse_options(options, "eagle")
    heads = heads_of(model, "eagle", "eagle")
    assert isinstance(heads, EagleHeads)
    if model.unembedding.bias is not None:
        raise UnsupportedModelError(
            f"The unembedding of {type(model.trunk).__name__} has a bias, which engines leave out where EAGLE drafts with it."
        )
    if heads.fc.bias is not None:
        warnings.warn("vLLM passes over the bias of fc: it drafts a little worse with these heads.", UserWarning, stacklevel=3)
    kept = heads.checkpoint_tensors()
    fates = [TensorOutcome(f"heads.{name}", (name,)) for name in kept if name != "draft_tokens"]
    if heads.draft_tokens is not None:
        fates.append(TensorOutcome("heads.draft_tokens", reason="EAGLE-1 drafts with the whole vocabulary"))
    layer = heads.layers[0]
    assert isinstance(layer, DraftLayer)
    config = llama.written(layer.config, model) | {
        "architectures": ["LlamaForCausalLM"],
        "bias": heads.fc.bias is not None,
        "logit_scale": model.unembedding.scale,
    }
    tensors = {name: tensor for name, tensor in kept.items() if name != "draft_tokens"}
    return write_draft(folder, config | made_for(model) | record_of(heads, reduced=False), tensors, fates)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The trunk with the drafter as `eagle` heads.

    Raises: CheckpointError where tensors are missing, unknown, or do not fit the trunk; UnsupportedModelError where the layer is of
        another kind; ConfigError where no trunk is named.
    """
    draft = Draft.of(folder)
    said = recorded(draft, "eagle")
    model = trunk_for(draft, trunk, draft.config.get(MADE_FOR))
    options: dict[str, Any] = {name: said.options[name] for name in ("noise", "trained_steps") if said and name in said.options}
    if "fc.bias" in draft.headers:
        options["bias"] = True
    if layer := llama.read(draft.config, draft, model.view, said and said.options.get("layer")):
        options["layer"] = layer
    heads = EagleHeads.from_trunk(model.view, said.count if said else STEPS, options)
    tensors = draft.read()
    reasons, alike = llama.copies(tensors, {EMBEDDING: embeddings(model.view), UNEMBEDDING: model.unembedding.weight})
    tensors = {name: tensor for name, tensor in tensors.items() if name not in reasons}
    settle(draft, {name: [name] for name in tensors}, reasons, quiet=alike)
    return attach(model, heads, tensors, draft, DEFAULTS, optional=llama.unbiased(heads))
