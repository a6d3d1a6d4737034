"""EAGLE-3 drafters in the format of vllm-project/speculators: the tensors of `eagle3`, and a config that names the verifier."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.heads.modules.draft_layer import embeddings
from headway.interop import eagle3, llama
from headway.interop.draft_checkpoint import DraftCheckpoint
from headway.interop.draft_export import check_options, metadata, write_draft_checkpoint
from headway.interop.eagle import DEFAULT_COUNT, EMBEDDING
from headway.interop.recognition import LAYER_IDS
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel

VERSION = "0.9.0"  # of speculators


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the drafter, with a copy of the trunk's embedding.

    Args:
        model: a model with `eagle3` heads.
        folder: a new or empty folder.
        options: `verifier`, hub id of the model to draft for; default: the name that the trunk was loaded from.
    Raises:
        UnsupportedModelError: as in `eagle3.export`.
        ConfigError: the trunk has no name, and no verifier is given.
    """
    check_options(options, "speculators", ["verifier"])
    heads = eagle3.require_eagle3_heads(model, "speculators")
    verifier = options.get("verifier") or model.trunk.config.name_or_path
    if not verifier:
        raise ConfigError("The speculators format names the verifier: give --options '{verifier: HUB_ID}'.")
    if Path(verifier).exists():
        warnings.warn(
            f"{verifier} is a folder, and vLLM needs a hub id: give --options '{{verifier: HUB_ID}}'.",
            UserWarning,
            stacklevel=3,
        )
    tensors, outcomes = eagle3.to_disk(heads, "layers.0.", model.unembedding.size)
    tensors[EMBEDDING] = embeddings(model.view)  # without it speculators 0.9 drafts with uninitialised memory
    outcomes.append(TensorOutcome("the trunk's embedding", (EMBEDDING,)))
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
        "transformer_layer_config": llama.layer_config(heads.midlayer.config, model),
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
    return write_draft_checkpoint(folder, config | metadata(heads), tensors, outcomes)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The trunk with the drafter as `eagle3` heads.

    Raises:
        CheckpointError: as in `eagle3.import_`, or the config is not speculators'.
        UnsupportedModelError: as in `eagle3.import_`, or the speculator is no EAGLE-3 drafter.
        ConfigError: no trunk is named.
    """
    checkpoint = DraftCheckpoint.open(folder)
    config = checkpoint.config
    kind = config.get("speculators_model_type")
    if kind is None:
        raise CheckpointError(f"{folder} is not in speculators' format: its config.json has no speculators_model_type.")
    if kind != "eagle3":
        raise UnsupportedModelError(f"{folder} holds a speculator of type {kind}, and Headway reads eagle3.")
    layer, verifier, count = config.get("transformer_layer_config"), None, DEFAULT_COUNT
    if not isinstance(layer, dict):
        raise CheckpointError(f"{folder}: transformer_layer_config is missing.")
    if "norm_before_residual" not in config:
        warnings.warn(
            f"{folder}: norm_before_residual is missing: vLLM assumes true, speculators and Headway assume false.",
            UserWarning,
            stacklevel=3,
        )
    recorded = checkpoint.read_metadata("eagle3")
    match config.get("speculators_config"):
        case {"verifier": {"name_or_path": str(name)}}:
            verifier = name
    match config.get("speculators_config"):
        case {"proposal_methods": [{"speculative_tokens": int(number)}, *_]} if number > 0:
            count = number
    return eagle3.read(checkpoint, checkpoint.load_trunk(trunk, verifier), config, layer, recorded.count if recorded else count)
