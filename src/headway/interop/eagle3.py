"""EAGLE-3 drafters (arXiv 2503.01840) as their authors publish them, and as vLLM and SGLang read them.

fc.weight (hidden, states * hidden), midlayer.* of which q, k and v read [embedding, state], norm.weight,
lm_head.weight (draft vocabulary, hidden), d2t: token - row, for each row, t2d: whether the drafter knows a token
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
    tokens_of,
    trunk_for,
    write_draft,
)
from headway.interop.eagle import EMBEDDING, STEPS, UNEMBEDDING
from headway.interop.recognition import EAGLE31, LAYER_IDS, layer_ids
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel

DEFAULTS = {"norm_before_residual": False, "layer": {}}


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the drafter.

    Raises: UnsupportedModelError for other heads, and for heads that read what comes after the trunk's last layer: engines count
        states before the final norm there, Headway and transformers after it.
    """
    refuse_options(options, "eagle3")
    heads = heads_of_eagle3(model, "eagle3")
    tensors, fates = named(heads, "midlayer.", model.unembedding.size)
    config = llama.written(heads.midlayer.config, model) | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": len(heads.lm_head["weight"]),
        "norm_before_residual": heads.midlayer.norm_before_residual,
        LAYER_IDS: heads.layers_read,
        "eagle_config": {LAYER_IDS: heads.layers_read, "use_aux_hidden_state": True},
    }
    return write_draft(folder, config | made_for(model) | record_of(heads), tensors, fates)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The trunk with the drafter as `eagle3` heads.

    Raises: CheckpointError where tensors are missing, unknown, or do not fit the trunk; UnsupportedModelError where the drafter is
        of another kind; ConfigError where no trunk is named.
    """
    draft = Draft.of(folder)
    model = trunk_for(draft, trunk, draft.config.get(MADE_FOR))
    said = recorded(draft, "eagle3")
    return read(draft, model, draft.config, draft.config, said.count if said else STEPS)


def heads_of_eagle3(model: HeadwayModel, format_: str) -> Eagle3Heads:
    """The model's heads, if engines read the same states as they do."""
    heads = heads_of(model, "eagle3", format_)
    assert isinstance(heads, Eagle3Heads)
    last = heads.config.layers
    if last in heads.layers_read:
        raise UnsupportedModelError(
            f"These heads read state {last}, which is the trunk's last after its final norm; engines give it before the norm. "
            f"Train them with layers_read below {last}."
        )
    return heads


def named(heads: Eagle3Heads, layer: str, vocabulary: int) -> tuple[dict[str, Tensor], list[TensorOutcome]]:
    """The tensors as they are written, with `layer` before those of the layer, and what becomes of each."""
    tensors: dict[str, Tensor] = {}
    fates = []
    for name, tensor in heads.checkpoint_tensors().items():
        if name == "draft_tokens":
            known = torch.zeros(vocabulary, dtype=torch.bool)
            known[tensor.cpu()] = True
            written = {"d2t": tensor.cpu() - torch.arange(len(tensor)), "t2d": known}
        else:
            written = {layer + name.removeprefix("midlayer.") if name.startswith("midlayer.") else name: tensor}
        tensors |= written
        fates.append(TensorOutcome(f"heads.{name}", tuple(written)))
    return tensors, fates


def read(draft: Draft, model: HeadwayModel, config: Mapping[str, Any], layer: Mapping[str, Any], count: int) -> HeadwayModel:
    """`import_`, once the trunk is there.

    Args: config: settings of the drafter; layer: of its layer; count: how many steps it takes.
    """
    for name in EAGLE31:
        if config.get(name):
            raise UnsupportedModelError(f"{draft.folder}: {name} is a norm of EAGLE-3.1, which Headway's eagle3 heads do not have.")
    said, depth = recorded(draft, "eagle3"), model.view.config.num_hidden_layers
    options: dict[str, Any] = {"layers_read": _layers_read(config, depth, draft)}
    if config.get("norm_before_residual"):
        options["norm_before_residual"] = True
    if told := llama.read(layer, draft, model.view, said and said.options.get("layer")):
        options["layer"] = told
    tensors = draft.read()
    reasons, alike = llama.copies(tensors, {EMBEDDING: embeddings(model.view)})
    own = {name: _own(name) for name in tensors if name not in reasons}
    tokens = _tokens(tensors, model.unembedding.size, draft)
    if tokens is not None:
        options["draft_vocabulary"] = len(tokens)
        tensors["d2t"] = tokens.sort().values
        tensors[UNEMBEDDING] = tensors[UNEMBEDDING][tokens.argsort()]
        own["d2t"] = "draft_tokens"
    for name in {"d2t", "t2d"} & set(own) - ({"d2t"} if tokens is not None else set()):
        own.pop(name)
        reasons[name] = "it follows from d2t" if tokens is not None else "the drafter knows all tokens"
        alike.append(name)
    settle(draft, {name: [ours] for name, ours in own.items()}, reasons, quiet=alike)
    heads = Eagle3Heads.from_trunk(model.view, count, options)
    optional = llama.unbiased(heads) + ([UNEMBEDDING] if tokens is None else [])
    return attach(model, heads, {ours: tensors[name] for name, ours in own.items()}, draft, DEFAULTS, optional)


def _own(name: str) -> str:
    return f"midlayer.{name.removeprefix('layers.0.')}" if name.startswith("layers.0.") else name


def _layers_read(config: Mapping[str, Any], depth: int, draft: Draft) -> list[int]:
    """Which of the trunk's states are read, by transformers' count."""
    said = layer_ids(config)
    if said is None and depth < 6:
        raise CheckpointError(
            f"{draft.folder}: {LAYER_IDS} is missing, and there is no usual choice for a trunk of {depth} layers."
        )
    ids = [2, depth // 2, depth - 3] if said is None else said
    if not isinstance(ids, list) or not all(isinstance(i, int) and 0 <= i <= depth for i in ids):
        raise CheckpointError(f"{draft.folder}: {LAYER_IDS} is {ids}, and the trunk has {depth} layers.")
    if depth in ids:
        warnings.warn(
            f"{draft.folder} reads state {depth}, here the trunk's last after its final norm; engines give it before the norm.",
            UserWarning,
            stacklevel=5,
        )
    return ids


def _tokens(tensors: Mapping[str, Tensor], vocabulary: int, draft: Draft) -> Tensor | None:
    """The tokens of a reduced vocabulary, in the order of the rows; None where the drafter knows all."""
    rows = len(tensors[UNEMBEDDING]) if UNEMBEDDING in tensors else vocabulary
    if "d2t" not in tensors:
        if rows != vocabulary:
            raise CheckpointError(
                f"{draft.folder}: {UNEMBEDDING} knows {rows} tokens and the trunk {vocabulary}: d2t, which says which, is missing."
            )
        return None
    offsets = tensors["d2t"]
    if offsets.shape != (rows,):
        raise CheckpointError(f"{draft.folder}: d2t speaks of {offsets.numel()} tokens, and {UNEMBEDDING} of {rows}.")
    tokens = tokens_of(offsets + torch.arange(rows), vocabulary, f"{draft.folder}: d2t, whose numbers are offsets from the row,")
    known = tensors.get("t2d")
    if known is not None and not torch.equal(known.bool().nonzero().flatten(), tokens.sort().values):
        raise CheckpointError(f"{draft.folder}: d2t, whose numbers are offsets from the row, and t2d speak of different tokens.")
    return None if torch.equal(tokens, torch.arange(vocabulary)) else tokens
