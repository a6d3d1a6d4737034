"""Format of transformers' own multi-token prediction: MTP layers among the trunk's tensors, for `generate(use_mtp=True)`.

transformers reads the layers from the model's checkpoint, by the tensor names that the model's class ignores on loading. Classes of
models without native MTP layers ignore no names, so an export adds a class of a few lines that does; users who pass
`trust_remote_code=True` run the class. Headway reads the folder without the class.
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

NO_WINDOW = "transformers' MTP layers for {} ignore the sliding window of {}: beyond the window their drafts are worse."
STATEFUL = "transformers does not decode {} with drafts, because a recurrent state cannot be rolled back; vLLM may."
CODE = '''"""{base} that leaves the MTP layers in its checkpoint to `generate(use_mtp=True)`."""

from transformers import {base}


class {name}({base}):
    _keys_to_ignore_on_load_unexpected = {patterns}
'''


def export(model: HeadwayModel, folder: Path, options: Mapping[str, Any]) -> ConversionReport:
    """Write trunk and heads as one checkpoint that transformers decodes with `use_mtp=True`.

    A shared layer (option `shared` of the heads) is written once per depth, because transformers' layers are distinct.
    `config.json` records the sharing, and `import_` restores it.

    Args:
        model: a model with `sequential` heads.
        folder: folder to write.
        options: `layout`, a key of `headway.model.native_mtp.names.MTP_TENSOR_NAMES`; default deepseek, for any trunk.
    Returns: outcome of every tensor of trunk and heads.
    Raises:
        UnsupportedModelError: the layout cannot hold these heads or this trunk.
        ConfigError: an option is unknown.
    """
    heads, layout = _sequential_heads(model), _layout(options)
    _check_exportable(model, heads, layout)
    unshared = _unshare(heads) if layout.several else heads
    trunk, depth, count = model.trunk, model.view.config.num_hidden_layers, len(unshared.layers)
    if getattr(model.view.config, "sliding_window", None) and not model.view.layer_types:
        warnings.warn(NO_WINDOW.format(type(trunk).__name__, model.view.config.sliding_window), UserWarning, stacklevel=3)
    if trunk._is_stateful:
        warnings.warn(STATEFUL.format(type(trunk).__name__), UserWarning, stacklevel=3)
    mtp = mtp_tensors(unshared, trunk, layout, depth)
    tensors = {name: tensor for parts in mtp.values() for name, tensor in parts.items()}
    with replacing_folder(folder, model_files) as temporary:
        trunk.save_pretrained(temporary, state_dict={**trunk.state_dict(), **tensors}, save_original_format=True)
        _write_config(temporary, model, heads, count, layout)
        if layout is not MTP_TENSOR_NAMES["mimo"]:
            _write_class(temporary, trunk, layout.pattern(tensors), tensors)
        present = set(checkpoint_files(temporary))
        of_trunk, left_out = list(_trunk_outcomes(trunk, present)), list(_left_out(model, heads))
        if heads.draft_tokens is not None:
            left_out.append(TensorOutcome("heads.draft_tokens", reason="transformers drafts with the whole vocabulary"))
        source = [*trunk.state_dict(), *(f"heads.{name}" for name in heads.state_dict()), *(outcome.name for outcome in left_out)]
        outcomes = [*of_trunk, *_head_outcomes(mtp, len(heads.layers)), *left_out]
        return ConversionReport.from_outcomes(source, outcomes, present, folder)


def import_(folder: Path, trunk: str | None) -> HeadwayModel:
    """The model with its MTP layers as `sequential` heads, to be saved beside the trunk.

    Raises:
        CheckpointError: the folder has no MTP layers, or they are damaged or do not fit.
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


def _sequential_heads(model: HeadwayModel) -> SequentialHeads:
    """The model's heads. Raises UnsupportedModelError for heads of another family and for quantised models."""
    heads = model.heads
    if not isinstance(heads, SequentialHeads):
        actual = "no heads" if heads is None else f"{heads.family} heads"
        raise UnsupportedModelError(f"transformers' MTP layers are sequential heads, and this model has {actual}.")
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


def _check_exportable(model: HeadwayModel, heads: SequentialHeads, layout: MTPTensorNames) -> None:
    """Raise UnsupportedModelError if the layout, or transformers' module, cannot hold these heads."""
    if not layout.several and len(heads.layers) > 1:
        raise UnsupportedModelError(f"This layout holds one layer, and these heads have {len(heads.layers)}: use layout deepseek.")
    kind = type(model.trunk)
    if layout is MTP_TENSOR_NAMES["mimo"]:
        if model.view.config.model_type not in ("qwen2", "mimo"):
            raise UnsupportedModelError(f"MiMo is a Qwen2 with MTP layers, and this trunk is {kind.__name__}.")
        return
    if not hasattr(transformers, kind.__name__):
        raise UnsupportedModelError(f"{kind.__name__} is no class of transformers, so transformers cannot run its MTP layers.")
    unshared = _unshare(heads)
    try:
        with with_mtp_layer_config(model.view.config, heads.count), torch.device("meta"):
            native = MtpModel(model.trunk, heads.count)
    except (AttributeError, TypeError, ValueError, StopIteration) as error:
        raise UnsupportedModelError(f"transformers cannot build MTP layers for {kind.__name__}: {error}") from error
    required = {name: tensor.shape for name, tensor in native.state_dict().items() if name.startswith("layers.")}
    own = {name: tensor.shape for name, tensor in unshared.state_dict().items() if name.startswith("layers.")}
    if wrong := sorted(name for name in required.keys() | own.keys() if required.get(name) != own.get(name)):
        raise UnsupportedModelError(f"transformers' MTP layers for {kind.__name__} differ from these heads: {wrong[0]}.")


def _unshare(heads: SequentialHeads) -> SequentialHeads:
    """The same heads with one layer per depth; a shared layer is repeated."""
    if len(heads.layers) == heads.count:
        return heads
    return SequentialHeads(heads.config, nn.ModuleList([heads.layers[0]] * heads.count))


def _trunk_outcomes(trunk: PreTrainedModel, present: set[str]) -> Iterator[TensorOutcome]:
    for name, tensor in trunk.state_dict().items():
        on_disk = tuple(revert_weight_conversion(trunk, {name: tensor.detach().to("meta")}))
        if name in trunk.all_tied_weights_keys and not present & set(on_disk):
            yield TensorOutcome(name, reason=f"tied to {trunk.all_tied_weights_keys[name]}")
        else:
            yield TensorOutcome(name, on_disk)


def _head_outcomes(mtp: Mapping[str, Mapping[str, Tensor]], layers: int) -> Iterator[TensorOutcome]:
    written: dict[str, tuple[str, ...]] = {}
    for name, parts in mtp.items():
        _, k, inner = name.split(".", 2)
        own = f"heads.layers.{min(int(k), layers - 1)}.{inner}"  # a shared layer is written per depth
        written[own] = written.get(own, ()) + tuple(parts)
    return (TensorOutcome(name, names) for name, names in written.items())


def _left_out(model: HeadwayModel, heads: SequentialHeads) -> Iterator[TensorOutcome]:
    """Outcomes of tensors in the trunk's source checkpoint that belong to neither trunk nor heads."""
    native = model.native_mtp
    if native is None:
        return
    taken = set(revert_weight_conversion(model.trunk, {n: t.detach().to("meta") for n, t in model.trunk.state_dict().items()}))
    exported = 0 if model.provenance is None else heads.count
    for name in sorted(set(native.files) - taken):
        k, inner = native.naming.from_checkpoint_name(name, native.depth) or (0, None)
        if inner in (INPUT, OUTPUT):
            yield TensorOutcome(name, reason="a copy of the trunk's, which transformers shares")
        elif inner is None:
            yield TensorOutcome(name, reason="transformers does not read it")
        elif k >= exported:
            yield TensorOutcome(name, reason="the model has other heads now")


def _write_config(folder: Path, model: HeadwayModel, heads: SequentialHeads, count: int, layout: MTPTensorNames) -> None:
    config = model.view.config
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    text = settings.get("text_config", settings)
    text |= mtp_layer_settings(config, count)
    if layout is MTP_TENSOR_NAMES["mimo"]:
        settings |= {"model_type": "mimo", "architectures": ["MiMoForCausalLM"]}
        text["num_nextn_predict_layers"] = text.pop("num_mtp_layers", count)
    options = {name: value for name, value in heads.config.options.items() if name != "draft_vocabulary"}
    text[RECORD] = dataclasses.asdict(dataclasses.replace(heads.config, options=options))
    write_json(path, settings)


def _write_class(folder: Path, trunk: PreTrainedModel, pattern: str, names: Iterable[str]) -> None:
    """Write a class that ignores the MTP layers on loading, unless the trunk's class does, and name it in the config."""
    base = type(trunk).__name__
    known = list(type(trunk)._keys_to_ignore_on_load_unexpected or [])
    if known and all(any(re.search(regex, name) for regex in known) for name in names):
        return
    name = base.replace("For", "MtpFor", 1)
    write_text(folder / f"{MODULE}.py", CODE.format(base=base, name=name, patterns=[*known, pattern]))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {**config.get("auto_map", {}), "AutoModelForCausalLM": f"{MODULE}.{name}"}
    write_json(folder / "config.json", config)


def _restore(heads: SequentialHeads, record: Any) -> None:
    """Restore the recorded config of the heads, shared layers included, if the tensors still fit."""
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
