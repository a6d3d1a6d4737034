"""EAGLE-3 drafters in the format of vllm-project/speculators: the same tensors, and a config that names the model they are for."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.heads.modules.draft_layer import embeddings
from headway.interop import eagle3, llama
from headway.interop.draft_checkpoint import Draft, record_of, recorded, refuse_options, trunk_for, write_draft
from headway.interop.eagle import EMBEDDING, STEPS
from headway.interop.recognition import LAYER_IDS
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel

VERSION = "0.9.0"  # of speculators, whose format this is


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the drafter, with a copy of the trunk's embedding.

    Args: options: `verifier`, the hub id of the model it drafts for; default: where the trunk was loaded from.
    Raises: UnsupportedModelError as of `eagle3.export`, ConfigError where the trunk has no name and none is given.
    """
    refuse_options(options, "speculators", ["verifier"])
    heads = eagle3.heads_of_eagle3(model, "speculators")
    verifier = options.get("verifier") or model.trunk.config.name_or_path
    if not verifier:
        raise ConfigError("The speculators format names the model that is drafted for: give --options '{verifier: HUB_ID}'.")
    if Path(verifier).exists():
        warnings.warn(
            f"{verifier} is a folder: vLLM wants a hub id there, which --options '{{verifier: HUB_ID}}' gives.",
            UserWarning,
            stacklevel=3,
        )
    tensors, fates = eagle3.named(heads, "layers.0.", model.unembedding.size)
    tensors[EMBEDDING] = embeddings(model.view)  # speculators 0.9 would draft with memory that it never filled
    fates.append(TensorOutcome("the trunk's embedding", (EMBEDDING,)))
    config = {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "speculators_version": VERSION,
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [
                {"proposal_type": "greedy", "speculative_tokens": heads.count, "verifier_accept_k": 1, "accept_tolerance": 0.0}
            ],
            "verifier": {
                "name_or_path": verifier,
                "architectures": model.trunk.config.architectures or [type(model.trunk).__name__],
            },
        },
        "transformer_layer_config": llama.written(heads.midlayer.config, model),
        "draft_vocab_size": len(heads.lm_head["weight"]),
        "norm_before_residual": heads.midlayer.norm_before_residual,
        "norm_before_fc": False,
        "fc_norm": False,
        "norm_output": False,
        "embed_requires_grad": False,
        LAYER_IDS: heads.layers_read,
        "target_hidden_size": None,
        "torch_dtype": str(model.unembedding.weight.dtype).removeprefix("torch."),
    }
    return write_draft(folder, config | record_of(heads), tensors, fates)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The trunk with the drafter as `eagle3` heads.

    Raises: as of `eagle3.import_`; UnsupportedModelError for a drafter of another kind than EAGLE-3.
    """
    draft = Draft.of(folder)
    config = draft.config
    kind = config.get("speculators_model_type")
    if kind is None:
        raise CheckpointError(f"{folder} is none of speculators': its config.json names no speculators_model_type.")
    if kind != "eagle3":
        raise UnsupportedModelError(f"{folder} holds a speculator of type {kind}, and Headway reads eagle3.")
    layer, verifier, steps = config.get("transformer_layer_config"), None, STEPS
    if not isinstance(layer, dict):
        raise CheckpointError(f"{folder}: transformer_layer_config is missing.")
    if "norm_before_residual" not in config:
        warnings.warn(
            f"{folder}: norm_before_residual is not given: vLLM would take true, speculators takes false, and so does Headway.",
            UserWarning,
            stacklevel=3,
        )
    said = recorded(draft, "eagle3")
    match config.get("speculators_config"):
        case {"verifier": {"name_or_path": str(name)}}:
            verifier = name
    match config.get("speculators_config"):
        case {"proposal_methods": [{"speculative_tokens": int(number)}, *_]} if number > 0:
            steps = number
    return eagle3.read(draft, trunk_for(draft, trunk, verifier), config, layer, said.count if said else steps)
