"""transformers' own multi-token prediction: MTP layers among the trunk's tensors, run by `generate(use_mtp=True)`.

The layers are read from the checkpoint that the model was loaded from, by the names that the model's class skips. The classes of
models that never had such layers skip none, so beside the weights lies a class of a few lines that does, run by those who pass
`trust_remote_code=True`. Headway itself reads such a folder without it.
"""

import dataclasses
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_layers import MtpModel

from headway.config import nearest
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.files import model_files, replacing_folder, write_json, write_text
from headway.heads import HeadsConfig, SequentialHeads
from headway.interop.recognition import MODULE, RECORD
from headway.interop.report import ConversionReport, TensorOutcome
from headway.model import HeadwayModel, load_trunk
from headway.model.checkpoint_files import checkpoint_files
from headway.model.native_mtp.checkpoint import find_native_mtp
from headway.model.native_mtp.layer_config import mtp_layer_settings, remove_mtp_layer_config, with_mtp_layer_config
from headway.model.native_mtp.names import INPUT, MTP_TENSOR_NAMES, OUTPUT, MTPTensorNames
from headway.model.native_mtp.write import mtp_tensors
from headway.trunk.quantization import trunk_is_quantized

FAR_SIGHTED = "transformers' MTP layers for {} look back further than its window of {}: beyond it their drafts are worse."
STATEFUL = "transformers does not decode {} with drafts, since its state cannot be rolled back; vLLM may."
CODE = '''"""{base} that leaves the MTP layers in its checkpoint to `generate(use_mtp=True)`."""

from transformers import {base}


class {name}({base}):
    _keys_to_ignore_on_load_unexpected = {patterns}
'''


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write trunk and heads as one checkpoint that transformers decodes with `use_mtp=True`.

    A layer that serves all depths (option `shared` of the heads) is written once for each depth: transformers' layers are
    distinct. `config.json` says that they are one, and `import_` makes them one again.

    Args: options: `layout`, one of `headway.model.native_mtp.names.MTP_TENSOR_NAMES`; default deepseek, for any trunk.
    Returns: what became of each tensor of trunk and heads.
    Raises: UnsupportedModelError for other heads and trunks than the layout has a place for, ConfigError for an unknown option.
    """
    heads, layout = _heads(model), _layout(options)
    _check(model, heads, layout)
    each = _each_depth(heads) if layout.several else heads
    trunk, depth, count = model.trunk, model.view.config.num_hidden_layers, len(each.layers)
    if getattr(model.view.config, "sliding_window", None) and not model.view.layer_types:
        warnings.warn(FAR_SIGHTED.format(type(trunk).__name__, model.view.config.sliding_window), UserWarning, stacklevel=3)
    if trunk._is_stateful:
        warnings.warn(STATEFUL.format(type(trunk).__name__), UserWarning, stacklevel=3)
    mtp = mtp_tensors(each, trunk, layout, depth)
    tensors = {name: tensor for parts in mtp.values() for name, tensor in parts.items()}
    with replacing_folder(folder, model_files) as temporary:
        trunk.save_pretrained(temporary, state_dict={**trunk.state_dict(), **tensors}, save_original_format=True)
        _write_config(temporary, model, heads, count, layout)
        if layout is not MTP_TENSOR_NAMES["mimo"]:
            _write_class(temporary, trunk, layout.pattern(tensors), tensors)
        present = set(checkpoint_files(temporary))
        of_trunk, left = list(_trunk_fates(trunk, present)), list(_left_behind(model, heads))
        if heads.draft_tokens is not None:
            left.append(TensorOutcome("heads.draft_tokens", reason="transformers drafts with the whole vocabulary"))
        source = [*trunk.state_dict(), *(f"heads.{name}" for name in heads.state_dict()), *(fate.name for fate in left)]
        account = ConversionReport.of(source, [*of_trunk, *_head_fates(mtp, len(heads.layers)), *left], present, folder)
    return account


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The model with its MTP layers as `sequential` heads that Headway saves beside the trunk.

    Raises: CheckpointError where there are no such layers, or they are damaged or do not fit.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder.")
    if find_native_mtp(folder) is None:
        layouts = ", ".join(f"{name} ({layout.block}*)" for name, layout in MTP_TENSOR_NAMES.items())
        raise CheckpointError(f"{folder} holds no MTP layers: none of its tensors is named as in {layouts}.")
    model = HeadwayModel(load_trunk(trunk or folder), None)
    model.attach(folder)
    heads = model.heads
    assert isinstance(heads, SequentialHeads)
    model.native_mtp = None  # export is a conversion: the heads are saved beside the trunk from here on
    config = model.view.config
    record = vars(config).pop(RECORD, None)
    if record is not None and trunk is None:
        _restore(heads, record)
    remove_mtp_layer_config(config)
    _remove_class(config)
    return model


def _heads(model: HeadwayModel) -> SequentialHeads:
    """The model's heads with a layer for each depth."""
    heads = model.heads
    if not isinstance(heads, SequentialHeads):
        found = "none" if heads is None else f"{heads.family} ones"
        raise UnsupportedModelError(f"transformers' MTP layers are heads of the family sequential, and this model has {found}.")
    if trunk_is_quantized(model.trunk):
        raise UnsupportedModelError("A quantised model cannot be exported: export the one it was made from.")
    return heads


def _layout(options: Mapping[str, Any]) -> MTPTensorNames:
    if unknown := set(options) - {"layout"}:
        raise ConfigError(f"The transformers format has no option {', '.join(sorted(unknown))}; it has: layout.")
    name = options.get("layout", "deepseek")
    if name not in MTP_TENSOR_NAMES:
        raise ConfigError(
            f"There is no layout {name!r}{nearest(str(name), MTP_TENSOR_NAMES)}; there are: {', '.join(MTP_TENSOR_NAMES)}."
        )
    return MTP_TENSOR_NAMES[name]


def _check(model: HeadwayModel, heads: SequentialHeads, layout: MTPTensorNames) -> None:
    """Raise UnsupportedModelError where the layout, or transformers' module, has no place for these heads."""
    if not layout.several and len(heads.layers) > 1:
        raise UnsupportedModelError(f"This layout holds one layer, and these heads have {len(heads.layers)}: use layout deepseek.")
    kind = type(model.trunk)
    if layout is MTP_TENSOR_NAMES["mimo"]:
        if model.view.config.model_type not in ("qwen2", "mimo"):
            raise UnsupportedModelError(f"MiMo is a Qwen2 with MTP layers, and this trunk is {kind.__name__}.")
        return
    if not hasattr(transformers, kind.__name__):
        raise UnsupportedModelError(f"{kind.__name__} is no class of transformers that its MTP layers could be run with.")
    each = _each_depth(heads)
    try:
        with with_mtp_layer_config(model.view.config, heads.count), torch.device("meta"):
            native = MtpModel(model.trunk, heads.count)
    except (AttributeError, TypeError, ValueError, StopIteration) as error:
        raise UnsupportedModelError(f"transformers cannot build MTP layers for {kind.__name__}: {error}") from error
    theirs = {name: tensor.shape for name, tensor in native.state_dict().items() if name.startswith("layers.")}
    ours = {name: tensor.shape for name, tensor in each.state_dict().items() if name.startswith("layers.")}
    if wrong := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        raise UnsupportedModelError(f"transformers' MTP layers for {kind.__name__} are others than these heads: {wrong[0]}.")


def _each_depth(heads: SequentialHeads) -> SequentialHeads:
    """The same heads with a layer for each depth, repeated where one serves all."""
    if len(heads.layers) == heads.count:
        return heads
    return SequentialHeads(heads.config, nn.ModuleList([heads.layers[0]] * heads.count))


def _trunk_fates(trunk: PreTrainedModel, present: set[str]) -> Iterator[TensorOutcome]:
    for name, tensor in trunk.state_dict().items():
        on_disk = tuple(revert_weight_conversion(trunk, {name: tensor.detach().to("meta")}))
        if name in trunk.all_tied_weights_keys and not present & set(on_disk):
            yield TensorOutcome(name, reason=f"tied to {trunk.all_tied_weights_keys[name]}")
        else:
            yield TensorOutcome(name, on_disk)


def _head_fates(mtp: Mapping[str, Mapping[str, Tensor]], layers: int) -> Iterator[TensorOutcome]:
    written: dict[str, tuple[str, ...]] = {}
    for name, parts in mtp.items():
        _, k, inner = name.split(".", 2)
        own = f"heads.layers.{min(int(k), layers - 1)}.{inner}"  # a layer for all depths is written for each
        written[own] = written.get(own, ()) + tuple(parts)
    return (TensorOutcome(name, names) for name, names in written.items())


def _left_behind(model: HeadwayModel, heads: SequentialHeads) -> Iterator[TensorOutcome]:
    """What the checkpoint that the trunk came from holds beside trunk and heads."""
    native = model.native_mtp
    if native is None:
        return
    taken = set(revert_weight_conversion(model.trunk, {n: t.detach().to("meta") for n, t in model.trunk.state_dict().items()}))
    theirs = 0 if model.provenance is None else heads.count
    for name in sorted(set(native.files) - taken):
        k, inner = native.naming.from_checkpoint_name(name, native.depth) or (0, None)
        if inner in (INPUT, OUTPUT):
            yield TensorOutcome(name, reason="a copy of the trunk's, which transformers shares")
        elif inner is None:
            yield TensorOutcome(name, reason="transformers does not read it")
        elif k >= theirs:
            yield TensorOutcome(name, reason="the model has other heads now")


def _write_config(folder: Path, model: HeadwayModel, heads: SequentialHeads, count: int, layout: MTPTensorNames) -> None:
    config = model.view.config
    path = folder / "config.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    text = found.get("text_config", found)
    text |= mtp_layer_settings(config, count)
    if layout is MTP_TENSOR_NAMES["mimo"]:
        found |= {"model_type": "mimo", "architectures": ["MiMoForCausalLM"]}
        text["num_nextn_predict_layers"] = text.pop("num_mtp_layers", count)
    options = {name: value for name, value in heads.config.options.items() if name != "draft_vocabulary"}
    text[RECORD] = dataclasses.asdict(dataclasses.replace(heads.config, options=options))
    write_json(path, found)


def _write_class(folder: Path, trunk: PreTrainedModel, pattern: str, names: Iterable[str]) -> None:
    """A class that skips the MTP layers on loading, unless the trunk's own does, and where to find it."""
    base = type(trunk).__name__
    known = list(type(trunk)._keys_to_ignore_on_load_unexpected or [])
    if known and all(any(re.search(one, name) for one in known) for name in names):
        return
    name = base.replace("For", "MtpFor", 1)
    write_text(folder / f"{MODULE}.py", CODE.format(base=base, name=name, patterns=[*known, pattern]))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {**config.get("auto_map", {}), "AutoModelForCausalLM": f"{MODULE}.{name}"}
    write_json(folder / "config.json", config)


def _restore(heads: SequentialHeads, record: Any) -> None:
    """Make the heads what the record says they were, where it still fits."""
    try:
        config = dataclasses.replace(HeadsConfig(**record), architecture=heads.config.architecture)  # a Qwen2 may be a MiMo now
    except TypeError:
        return
    equal = all(_equal(heads.layers[0], layer) for layer in heads.layers)
    if config.options.get("shared") and equal and heads.count in (1, config.count):
        heads.layers = heads.layers[:1]
        heads.config = config
    elif not config.options.get("shared") and heads.count == config.count:
        heads.config = config


def _equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def _remove_class(config: Any) -> None:
    """Remove the class of the MTP layers from a config, for a trunk without MTP layers in its files."""
    if MODULE in str(vars(config).get("auto_map")):
        del config.auto_map
