"""Medusa heads (arXiv 2401.10774) in the namings of vLLM (up to 0.32), FasterDecoding and ModelOpt.

vLLM             blocks.{h}.layers.{l}.weight        lm_heads.{h}.weight
FasterDecoding   {h}.{l}.linear.weight               {h}.{n}.weight, after n layers
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
from headway.interop.draft_checkpoint import TRUNK_NAME, DraftCheckpoint, check_tokens, equal_tensors
from headway.interop.draft_export import check_options, metadata, require_heads, trunk_reference, write_draft_checkpoint
from headway.interop.recognition import BLOCK, UNEMBEDDING, WITHIN
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel
from headway.model.trunk_loading import ignoring_tensors

DEFAULTS = {"layers": 1, "tied": False}


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write the heads in vLLM's naming. Heads that share the trunk's unembedding bring a copy.

    Raises:
        UnsupportedModelError: heads of another family, or an unembedding with a bias, which the format cannot hold.
        ConfigError: an option is given.
    """
    check_options(options, "medusa")
    heads = require_heads(model, "medusa", "medusa")
    assert isinstance(heads, MedusaHeads)
    unembedding = heads.unembeddings(model.view)[0]
    if unembedding.bias is not None:
        raise UnsupportedModelError(
            f"The unembedding of {type(model.trunk).__name__} has a bias, and the medusa format has no place for one."
        )
    tied = heads.unembedding is None
    tensors: dict[str, Tensor] = {}
    outcomes: list[TensorOutcome] = []

    def write(name: str, on_disk: str, tensor: Tensor) -> None:
        tensors[on_disk] = tensor
        outcomes.append(TensorOutcome(name, (on_disk,)))

    for name, tensor in heads.checkpoint_tensors().items():
        if name == "draft_tokens":
            write(f"heads.{name}", "token_map", tensor)
        elif name.startswith("blocks."):
            _, h, layer, _, kind = name.split(".")
            write(f"heads.{name}", f"blocks.{h}.layers.{layer}.{kind}", tensor)
        else:
            write(f"heads.{name}", f"lm_heads.{name.split('.')[-1]}.weight", tensor)
    if tied:
        write("the trunk's unembedding", "lm_head.weight", unembedding.weight)
    config = {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": heads.config.hidden_size,
        "vocab_size": unembedding.size,
        "num_heads": heads.count,
        "num_hidden_layers": heads.config.options.get("layers", 1),
        "max_paths": 64,
        "topk": 10,
        "truncated_vocab_size": None if heads.draft_tokens is None else len(heads.draft_tokens),
        "medusa_fc_bias": True,
        "original_lm_head": tied,
        "logit_scale": unembedding.scale,
        "torch_dtype": str(unembedding.weight.dtype).removeprefix("torch."),
    }
    return write_draft_checkpoint(folder, config | trunk_reference(model) | metadata(heads), tensors, outcomes)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The model with the heads of a folder in any of the three namings. In ModelOpt's naming the folder may hold the trunk too.

    The numbers of heads and layers come from the tensors, because published configs are not reliable.

    Raises:
        CheckpointError: a tensor is missing, unknown, or does not fit the trunk.
        ConfigError: no trunk is named.
    """
    checkpoint = DraftCheckpoint.open(folder)
    within = [name for name in checkpoint.headers if WITHIN.match(name)]
    with_trunk = 0 < len(within) < len(checkpoint.headers)
    disk_names = {_vllm_name(name, folder): name for name in (within if with_trunk else checkpoint.headers)}
    own, heads, layers = _blocks(disk_names, folder)
    with ignoring_tensors(folder, [WITHIN.pattern]) if with_trunk and trunk is None else nullcontext():
        model = checkpoint.load_trunk(trunk or (str(folder) if with_trunk else None), checkpoint.config.get(TRUNK_NAME))
    stored = checkpoint.read(list(disk_names.values()))
    tensors = {name: stored[disk_name] for name, disk_name in disk_names.items()}
    tokens = _draft_vocabulary(tensors, checkpoint, model)
    trunk_unembedding = model.unembedding
    if tokens is not None:
        trunk_unembedding = trunk_unembedding.restricted(tokens.sort().values.to(model.device))
    shared = _shared_unembedding(tensors, checkpoint)
    for name in {shared or f"lm_heads.{h}.weight" for h in range(heads)}:
        if name not in tensors:
            raise CheckpointError(f"{folder}: {name} is missing, of {heads} heads.")
        tensors[name] = _vocabulary_rows(tensors[name], tokens, trunk_unembedding.size)
    tied = shared is not None and equal_tensors(tensors[shared], trunk_unembedding.weight)
    if not tied:
        own |= {f"unembedding.weights.{h}": shared or f"lm_heads.{h}.weight" for h in range(heads)}
    if tokens is not None:
        own["draft_tokens"], tensors["token_map"] = "token_map", tokens.sort().values
    reasons = dict.fromkeys(disk_names.values(), "all heads share one unembedding, or original_lm_head says so")
    reasons[disk_names.get("token_map", "")] = "truncated_vocab_size does not declare a reduced vocabulary"
    reasons[disk_names[shared] if shared else ""] = "it is the trunk's own"
    own_names = {disk: [target for target, source in own.items() if source == name] for name, disk in disk_names.items()}
    expected = [disk_names[shared]] if shared and tied else []
    checkpoint.account_for(own_names, reasons, expected, disk_names.values())
    options = {"layers": layers, "tied": tied} | ({} if tokens is None else {"draft_vocabulary": len(tokens)})
    stack = MedusaHeads.from_trunk(model.view, heads, options)
    biases = {name: bias for name, bias in stack.checkpoint_tensors().items() if "bias" in name}
    for bias in biases.values():
        bias.data.zero_()
    return checkpoint.attach(model, stack, {name: tensors[source] for name, source in own.items()}, DEFAULTS, optional=biases)


def _vllm_name(name: str, folder: Path) -> str:
    """Name of a tensor in vLLM's naming. Raises CheckpointError for a tensor of no Medusa head."""
    plain = WITHIN.sub("", name)
    if match := BLOCK.fullmatch(plain):
        h, layer = (match[1], match[2]) if match[1] else (match[3], match[4])
        return f"blocks.{h}.layers.{layer}.{match[5]}"
    if match := UNEMBEDDING.fullmatch(plain):
        return f"lm_heads.{match[1] or match[2]}.weight"
    if plain in ("token_map", "lm_head.weight"):
        return plain
    raise CheckpointError(f"{folder} holds {name}, which Medusa heads do not have: headway heads inspect names its layout.")


def _blocks(disk_names: Mapping[str, str], folder: Path) -> tuple[dict[str, str], int, int]:
    """Source of each tensor of the residual blocks, number of heads, and number of layers per head.

    In FasterDecoding's naming the index of the unembedding is the number of layers before it. The layers of a head are shared there
    and may have been saved once.
    """
    blocks = [tuple(map(int, re.findall(r"\d+", name))) for name in disk_names if name.startswith("blocks.")]
    ends = [end for name in disk_names.values() if (end := UNEMBEDDING.fullmatch(WITHIN.sub("", name)))]
    before = [int(end[3]) for end in ends if end[3]]
    heads = 1 + max([h for h, _ in blocks] + [int(end[1] or end[2]) for end in ends], default=-1)
    layers = max([layer + 1 for _, layer in blocks] + before, default=0)
    if not heads:
        raise CheckpointError(f"{folder} holds no Medusa heads.")
    sources: dict[str, str] = {}
    for h, layer, kind in itertools.product(range(heads), range(layers), ("weight", "bias")):
        name = f"blocks.{h}.layers.{layer}.{kind}"
        if name not in disk_names and before:
            name = f"blocks.{h}.layers.0.{kind}"
        if name in disk_names:
            sources[f"blocks.{h}.{layer}.linear.{kind}"] = name
        elif kind == "weight":
            raise CheckpointError(f"{folder}: {name} is missing, of {heads} heads with {layers} layers.")
    return sources, heads, layers


def _shared_unembedding(tensors: Mapping[str, Tensor], checkpoint: DraftCheckpoint) -> str | None:
    """Name of the unembedding that all heads share; None if every head has its own."""
    if "lm_head.weight" in tensors:
        return "lm_head.weight"
    return "lm_heads.0.weight" if checkpoint.config.get("original_lm_head") else None


def _draft_vocabulary(tensors: Mapping[str, Tensor], checkpoint: DraftCheckpoint, model: HeadwayModel) -> Tensor | None:
    """Token ids of a reduced vocabulary in the order of the rows. As in vLLM, the config must declare the reduction."""
    size, whole = checkpoint.config.get("truncated_vocab_size"), model.unembedding.size
    if "token_map" not in tensors or not isinstance(size, int) or size >= whole:
        return None
    tokens = check_tokens(tensors["token_map"], whole, f"{checkpoint.folder}: token_map")
    if len(tokens) != size:
        raise CheckpointError(f"{checkpoint.folder}: token_map holds {len(tokens)} tokens, and truncated_vocab_size is {size}.")
    return tokens


def _vocabulary_rows(matrix: Tensor, tokens: Tensor | None, vocabulary: int) -> Tensor:
    """Rows of the draft vocabulary, ascending; a matrix of all tokens is cut, as in vLLM."""
    if tokens is None or matrix.shape[0] not in (len(tokens), vocabulary):
        return matrix
    return matrix[tokens.argsort()] if matrix.shape[0] == len(tokens) else matrix[tokens.sort().values]
