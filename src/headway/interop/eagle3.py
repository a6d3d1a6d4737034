"""EAGLE-3 drafters (arXiv 2503.01840) in the published format, which vLLM and SGLang read.

fc.weight (hidden, states * hidden); midlayer.*, with q, k and v over [embedding, state]; norm.weight;
lm_head.weight (draft vocabulary, hidden); d2t: token - row, per row; t2d: true for tokens of the draft vocabulary
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headway.errors import CheckpointError, UnsupportedModelError
from headway.heads import Eagle3Heads
from headway.heads.modules.draft_layer import embeddings
from headway.interop import llama
from headway.interop.draft_checkpoint import TRUNK_NAME, DraftCheckpoint, check_tokens
from headway.interop.draft_export import check_options, metadata, require_heads, trunk_reference, write_draft_checkpoint
from headway.interop.eagle import DEFAULT_COUNT, EMBEDDING, UNEMBEDDING
from headway.interop.recognition import EAGLE31, LAYER_IDS, layer_ids
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel

DEFAULTS = {"norm_before_residual": False, "layer": {}}


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the drafter.

    Raises:
        UnsupportedModelError: heads of another family, or heads that read the state after the trunk's last layer. Engines take
            that state before the final norm, Headway and transformers after it.
        ConfigError: an option is given.
    """
    check_options(options, "eagle3")
    heads = require_eagle3_heads(model, "eagle3")
    tensors, outcomes = to_disk(heads, "midlayer.", model.unembedding.size)
    config = llama.layer_config(heads.midlayer.config, model) | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": len(heads.lm_head["weight"]),
        "norm_before_residual": heads.midlayer.norm_before_residual,
        LAYER_IDS: heads.layers_read,
        "eagle_config": {LAYER_IDS: heads.layers_read, "use_aux_hidden_state": True},
    }
    return write_draft_checkpoint(folder, config | trunk_reference(model) | metadata(heads), tensors, outcomes)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The trunk with the drafter as `eagle3` heads.

    Raises:
        CheckpointError: a tensor is missing, unknown, or does not fit the trunk.
        UnsupportedModelError: the drafter is no EAGLE-3 drafter with one Llama layer.
        ConfigError: no trunk is named.
    """
    checkpoint = DraftCheckpoint.open(folder)
    model = checkpoint.load_trunk(trunk, checkpoint.config.get(TRUNK_NAME))
    recorded = checkpoint.read_metadata("eagle3")
    return read(checkpoint, model, checkpoint.config, checkpoint.config, recorded.count if recorded else DEFAULT_COUNT)


def require_eagle3_heads(model: HeadwayModel, format_: str) -> Eagle3Heads:
    """The model's heads. Raises UnsupportedModelError for heads that read the state after the trunk's last layer."""
    heads = require_heads(model, "eagle3", format_)
    assert isinstance(heads, Eagle3Heads)
    last = heads.config.layers
    if last in heads.layers_read:
        raise UnsupportedModelError(
            f"These heads read state {last}, the trunk's last, after its final norm; engines take it before the norm. "
            f"Train heads with layers_read below {last}."
        )
    return heads


def to_disk(heads: Eagle3Heads, layer: str, vocabulary: int) -> tuple[dict[str, Tensor], list[TensorOutcome]]:
    """Tensors by name on disk, with the prefix `layer` for the Llama layer, and the outcome of each."""
    tensors: dict[str, Tensor] = {}
    outcomes = []
    for name, tensor in heads.checkpoint_tensors().items():
        if name == "draft_tokens":
            in_vocabulary = torch.zeros(vocabulary, dtype=torch.bool)
            in_vocabulary[tensor.cpu()] = True
            written = {"d2t": tensor.cpu() - torch.arange(len(tensor)), "t2d": in_vocabulary}
        else:
            written = {layer + name.removeprefix("midlayer.") if name.startswith("midlayer.") else name: tensor}
        tensors |= written
        outcomes.append(TensorOutcome(f"heads.{name}", tuple(written)))
    return tensors, outcomes


def read(
    checkpoint: DraftCheckpoint, model: HeadwayModel, config: Mapping[str, Any], layer: Mapping[str, Any], count: int
) -> HeadwayModel:
    """The model with the heads of the checkpoint; errors of `import_`.

    Args:
        checkpoint: the drafter.
        model: the model without heads.
        config: settings of the drafter.
        layer: settings of the Llama layer.
        count: number of heads.
    """
    for name in EAGLE31:
        if config.get(name):
            raise UnsupportedModelError(f"{checkpoint.folder}: {name} is a norm of EAGLE-3.1, which eagle3 heads do not have.")
    recorded, depth = checkpoint.read_metadata("eagle3"), model.view.config.num_hidden_layers
    options: dict[str, Any] = {"layers_read": _layers_read(config, depth, checkpoint)}
    if config.get("norm_before_residual"):
        options["norm_before_residual"] = True
    if differing := llama.layer_option(layer, checkpoint, model.view, recorded and recorded.options.get("layer")):
        options["layer"] = differing
    tensors = checkpoint.read()
    reasons, expected = llama.redundant_tensors(tensors, {EMBEDDING: embeddings(model.view)})
    own = {name: _own_name(name) for name in tensors if name not in reasons}
    tokens = _draft_vocabulary(tensors, model.unembedding.size, checkpoint)
    if tokens is not None:
        options["draft_vocabulary"] = len(tokens)
        tensors["d2t"] = tokens.sort().values
        tensors[UNEMBEDDING] = tensors[UNEMBEDDING][tokens.argsort()]
        own["d2t"] = "draft_tokens"
    for name in {"d2t", "t2d"} & set(own) - ({"d2t"} if tokens is not None else set()):
        own.pop(name)
        reasons[name] = "it follows from d2t" if tokens is not None else "the vocabulary is not reduced"
        expected.append(name)
    checkpoint.account_for({name: [target] for name, target in own.items()}, reasons, expected)
    heads = Eagle3Heads.from_trunk(model.view, count, options)
    optional = llama.zero_output_bias(heads) + ([UNEMBEDDING] if tokens is None else [])
    return checkpoint.attach(model, heads, {target: tensors[name] for name, target in own.items()}, DEFAULTS, optional)


def _own_name(name: str) -> str:
    return f"midlayer.{name.removeprefix('layers.0.')}" if name.startswith("layers.0.") else name


def _layers_read(config: Mapping[str, Any], depth: int, checkpoint: DraftCheckpoint) -> list[int]:
    """Hidden states that the drafter reads, counted as in transformers."""
    declared = layer_ids(config)
    if declared is None and depth < 6:
        raise CheckpointError(
            f"{checkpoint.folder}: {LAYER_IDS} is missing, and there is no usual choice for a trunk of {depth} layers."
        )
    ids = [2, depth // 2, depth - 3] if declared is None else declared
    if not isinstance(ids, list) or not all(isinstance(i, int) and 0 <= i <= depth for i in ids):
        raise CheckpointError(f"{checkpoint.folder}: {LAYER_IDS} is {ids}, and the trunk has {depth} layers.")
    if depth in ids:
        warnings.warn(
            f"{checkpoint.folder} reads state {depth}, the trunk's last, here after the final norm; engines take it before.",
            UserWarning,
            stacklevel=5,
        )
    return ids


def _draft_vocabulary(tensors: Mapping[str, Tensor], vocabulary: int, checkpoint: DraftCheckpoint) -> Tensor | None:
    """Token ids of a reduced vocabulary in the order of the rows; None for the whole vocabulary."""
    rows = len(tensors[UNEMBEDDING]) if UNEMBEDDING in tensors else vocabulary
    if "d2t" not in tensors:
        if rows != vocabulary:
            raise CheckpointError(
                f"{checkpoint.folder}: {UNEMBEDDING} has {rows} tokens and the trunk {vocabulary}: d2t is missing."
            )
        return None
    offsets = tensors["d2t"]
    if offsets.shape != (rows,):
        raise CheckpointError(f"{checkpoint.folder}: d2t lists {offsets.numel()} tokens, and {UNEMBEDDING} has {rows}.")
    tokens = check_tokens(offsets + torch.arange(rows), vocabulary, f"{checkpoint.folder}: d2t (offsets from the row)")
    in_vocabulary = tensors.get("t2d")
    if in_vocabulary is not None and not torch.equal(in_vocabulary.bool().nonzero().flatten(), tokens.sort().values):
        raise CheckpointError(f"{checkpoint.folder}: d2t (offsets from the row) and t2d name different tokens.")
    return None if torch.equal(tokens, torch.arange(vocabulary)) else tokens
