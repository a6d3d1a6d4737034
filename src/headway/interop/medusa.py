"""Medusa heads (arXiv 2401.10774) as vLLM read them up to 0.32, and as FasterDecoding and ModelOpt write them.

vLLM             blocks.{h}.layers.{l}.weight        lm_heads.{h}.weight
FasterDecoding   {h}.{l}.linear.weight               {h}.{n}.weight, behind n layers
ModelOpt         medusa_heads.{h}.{l}.linear.weight  medusa_heads.{h}.{n}.weight, among the trunk's own tensors
"""

import itertools
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from headway.errors import CheckpointError, UnsupportedModelError
from headway.heads import MedusaHeads
from headway.interop.draft_checkpoint import (
    MADE_FOR,
    Draft,
    attach,
    heads_of,
    made_for,
    record_of,
    refuse_options,
    same,
    settle,
    tokens_of,
    trunk_for,
    write_draft,
)
from headway.interop.recognition import BLOCK, UNEMBEDDING, WITHIN
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel
from headway.model.trunk_loading import ignoring_tensors

DEFAULTS = {"layers": 1, "tied": False}


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the heads in vLLM's naming. Heads that share the trunk's unembedding bring it with them.

    Raises: UnsupportedModelError for other heads, and for an unembedding with a bias, for which there is no place.
    """
    refuse_options(options, "medusa")
    heads = heads_of(model, "medusa", "medusa")
    assert isinstance(heads, MedusaHeads)
    read = heads.unembeddings(model.view)
    if read[0].bias is not None:
        raise UnsupportedModelError(
            f"The unembedding of {type(model.trunk).__name__} has a bias, and the medusa format has no place for one."
        )
    tied = heads.unembedding is None
    tensors: dict[str, Tensor] = {}
    fates: list[TensorOutcome] = []

    def write(name: str, on_disk: str, tensor: Tensor) -> None:
        tensors[on_disk] = tensor
        fates.append(TensorOutcome(name, (on_disk,)))

    for name, tensor in heads.checkpoint_tensors().items():
        if name == "draft_tokens":
            write(f"heads.{name}", "token_map", tensor)
        elif name.startswith("blocks."):
            _, h, layer, _, kind = name.split(".")
            write(f"heads.{name}", f"blocks.{h}.layers.{layer}.{kind}", tensor)
        else:
            write(f"heads.{name}", f"lm_heads.{name.split('.')[-1]}.weight", tensor)
    if tied:
        write("the trunk's unembedding", "lm_head.weight", read[0].weight)
    config = {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": heads.config.hidden_size,
        "vocab_size": read[0].size,
        "num_heads": heads.count,
        "num_hidden_layers": heads.config.options.get("layers", 1),
        "max_paths": 64,
        "topk": 10,
        "truncated_vocab_size": None if heads.draft_tokens is None else len(heads.draft_tokens),
        "medusa_fc_bias": True,
        "original_lm_head": tied,
        "logit_scale": read[0].scale,
        "torch_dtype": str(read[0].weight.dtype).removeprefix("torch."),
    }
    return write_draft(folder, config | made_for(model) | record_of(heads), tensors, fates)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The model with the heads of a folder in any of the three namings; in ModelOpt's the folder may hold the trunk itself.

    How many heads and layers there are is told by the tensors, for published configs do not always say so.

    Raises: CheckpointError where tensors are missing, unknown, or do not fit the trunk; ConfigError where no trunk is named.
    """
    draft = Draft.of(folder)
    within = [name for name in draft.headers if WITHIN.match(name)]
    whole = 0 < len(within) < len(draft.headers)
    theirs = {_name(name, folder): name for name in (within if whole else draft.headers)}  # vLLM's name -> the one on disk
    own, heads, layers = _blocks(theirs, folder)
    with ignoring_tensors(folder, [WITHIN.pattern]) if whole and trunk is None else nullcontext():
        model = trunk_for(draft, trunk or (str(folder) if whole else None), draft.config.get(MADE_FOR))
    on_disk = draft.read(list(theirs.values()))
    tensors = {name: on_disk[found] for name, found in theirs.items()}
    tokens = _tokens(tensors, draft, model)
    shared = model.unembedding if tokens is None else model.unembedding.restricted(tokens.sort().values.to(model.device))
    one = _one(tensors, draft)
    for name in {one or f"lm_heads.{h}.weight" for h in range(heads)}:
        if name not in tensors:
            raise CheckpointError(f"{folder}: {name} is missing, of {heads} heads.")
        tensors[name] = _rows(tensors[name], tokens, shared.size)
    tied = one is not None and same(tensors[one], shared.weight)
    if not tied:
        own |= {f"unembedding.weights.{h}": one or f"lm_heads.{h}.weight" for h in range(heads)}
    if tokens is not None:
        own["draft_tokens"], tensors["token_map"] = "token_map", tokens.sort().values
    reasons = dict.fromkeys(theirs.values(), "one for all heads is there, or said to be by original_lm_head")
    reasons[theirs.get("token_map", "")] = "truncated_vocab_size does not say that the vocabulary is reduced"
    reasons[theirs[one] if one else ""] = "it is the trunk's own"
    places = {found: [ours for ours, source in own.items() if source == name] for name, found in theirs.items()}
    settle(draft, places, reasons, quiet=[theirs[one]] if one and tied else [], all_=theirs.values())
    options = {"layers": layers, "tied": tied} | ({} if tokens is None else {"draft_vocabulary": len(tokens)})
    stack = MedusaHeads.from_trunk(model.view, heads, options)
    biases = {name: bias for name, bias in stack.checkpoint_tensors().items() if "bias" in name}
    for bias in biases.values():
        bias.data.zero_()
    return attach(model, stack, {name: tensors[source] for name, source in own.items()}, draft, DEFAULTS, optional=biases)


def _name(name: str, folder: Path) -> str:
    """vLLM's name of a tensor. Raises CheckpointError for one of no Medusa head."""
    plain = WITHIN.sub("", name)
    if found := BLOCK.fullmatch(plain):
        h, layer = (found[1], found[2]) if found[1] else (found[3], found[4])
        return f"blocks.{h}.layers.{layer}.{found[5]}"
    if found := UNEMBEDDING.fullmatch(plain):
        return f"lm_heads.{found[1] or found[2]}.weight"
    if plain in ("token_map", "lm_head.weight"):
        return plain
    raise CheckpointError(f"{folder} holds {name}, which Medusa heads do not have: headway heads inspect names its layout.")


def _blocks(theirs: Mapping[str, str], folder: Path) -> tuple[dict[str, str], int, int]:
    """Where each tensor of the residual blocks comes from, how many heads there are, and how many layers of each.

    In FasterDecoding's naming the unembedding says how many layers stand before it; there the layers of a head are one and the
    same, and saving may have kept it once.
    """
    blocks = [tuple(map(int, re.findall(r"\d+", name))) for name in theirs if name.startswith("blocks.")]
    ends = [end for name in theirs.values() if (end := UNEMBEDDING.fullmatch(WITHIN.sub("", name)))]
    before = [int(end[3]) for end in ends if end[3]]
    heads = 1 + max([h for h, _ in blocks] + [int(end[1] or end[2]) for end in ends], default=-1)
    layers = max([layer + 1 for _, layer in blocks] + before, default=0)
    if not heads:
        raise CheckpointError(f"{folder} holds no Medusa heads.")
    found: dict[str, str] = {}
    for h, layer, kind in itertools.product(range(heads), range(layers), ("weight", "bias")):
        name = f"blocks.{h}.layers.{layer}.{kind}"
        if name not in theirs and before:
            name = f"blocks.{h}.layers.0.{kind}"
        if name in theirs:
            found[f"blocks.{h}.{layer}.linear.{kind}"] = name
        elif kind == "weight":
            raise CheckpointError(f"{folder}: {name} is missing, of {heads} heads with {layers} layers.")
    return found, heads, layers


def _one(tensors: Mapping[str, Tensor], draft: Draft) -> str | None:
    """The unembedding that all heads share, if they do."""
    if "lm_head.weight" in tensors:
        return "lm_head.weight"
    return "lm_heads.0.weight" if draft.config.get("original_lm_head") else None


def _tokens(tensors: Mapping[str, Tensor], draft: Draft, model: HeadwayModel) -> Tensor | None:
    """Of a reduced vocabulary, in the order of the rows; vLLM too heeds them only where the config speaks of it."""
    size, whole = draft.config.get("truncated_vocab_size"), model.unembedding.size
    if "token_map" not in tensors or not isinstance(size, int) or size >= whole:
        return None
    tokens = tokens_of(tensors["token_map"], whole, f"{draft.folder}: token_map")
    if len(tokens) != size:
        raise CheckpointError(f"{draft.folder}: token_map holds {len(tokens)} tokens, and truncated_vocab_size says {size}.")
    return tokens


def _rows(matrix: Tensor, tokens: Tensor | None, vocabulary: int) -> Tensor:
    """Rows of the known tokens, ascending; a matrix of all tokens is cut, as vLLM does."""
    if tokens is None or matrix.shape[0] not in (len(tokens), vocabulary):
        return matrix
    return matrix[tokens.argsort()] if matrix.shape[0] == len(tokens) else matrix[tokens.sort().values]
