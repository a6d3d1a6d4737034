"""Recognition of a folder's layout from settings, tensor names and shapes, and the engines that serve the layout.

Statements about engines come from the code of vLLM 0.33 (0.32 for Medusa), SGLang 0.5.23, transformers 5.23 and speculators 0.9.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from headway.interop.headers import Header, config_of, count_parameters, headers
from headway.model.native_mtp.names import MTP_TENSOR_NAMES

RECORD = "headway_heads"  # content of headway.json, in config.json
MODULE = "modeling_mtp"
LAYER_IDS = "eagle_aux_hidden_state_layer_ids"
EAGLE31 = ("norm_before_fc", "fc_norm", "norm_output")
COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
WITHIN = re.compile(r"medusa_heads?\.")  # Medusa heads in a model's own checkpoint
BLOCK = re.compile(r"(?:blocks\.(\d+)\.layers\.(\d+)|(\d+)\.(\d+)\.linear)\.(weight|bias)")
UNEMBEDDING = re.compile(r"lm_heads\.(\d+)\.weight|(\d+)\.(\d+)\.weight")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "embedding.weight")

MEDUSA = 'vLLM up to 0.32 ({"method": "medusa"}; 0.33 dropped Medusa), Headway after import; not SGLang'
USE_MTP = "transformers >= 5.20 (generate(use_mtp=True)"
MTP = {
    "deepseek": f"{USE_MTP}), vLLM's own DeepSeek and GLM, SGLang (NEXTN) for models it knows, Headway",
    "exported": f"{USE_MTP}, trust_remote_code), vLLM with --model-impl transformers, Headway",
    "qwen3_next": f"vLLM and SGLang (NEXTN) for Qwen3-Next and Qwen3.5, {USE_MTP}) where the config has num_mtp_layers, Headway",
    "mimo": "vLLM (one token a step), Headway",
}
SERVED = ("eagle3", "peagle", "dflash", "dflash2", "dspark")  # speculators' types that vLLM serves


Config: TypeAlias = Mapping[str, Any]
Tensors: TypeAlias = Mapping[str, Header]


@dataclass(frozen=True)
class Layout:
    """Layout of a folder."""

    layout: str
    engines: str
    format: str | None = None  # format of `headway import --from`
    family: str | None = None
    count: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # known problems
    names: frozenset[str] | None = None  # names of the heads' tensors; None: all tensors


def recognise(folder: str | Path) -> dict[str, Any]:
    """Layout, engines and tensors of any folder.

    Returns: `layout`; `engines`; `notes`; `format` of an import, `family` and `count` of the heads, if known; number and data types
        of the heads' parameters, and every tensor of the heads.
    Raises:
        CheckpointError: the folder is missing or damaged, or holds weights as pickle files alone.
    """
    folder = Path(folder)
    tensors, config = headers(folder), config_of(folder)
    layout = next(match for reader in READERS if (match := reader(config, tensors)) is not None)
    held = {name: tensors[name] for name in sorted(tensors if layout.names is None else layout.names)}
    parameters, dtype = count_parameters(held)
    known = {"format": layout.format, "family": layout.family, "count": layout.count}
    return {
        **{name: value for name, value in known.items() if value is not None},
        "layout": layout.layout,
        "engines": layout.engines,
        **layout.about,
        "notes": list(layout.notes),
        "parameters": parameters,
        "dtype": dtype,
        "tensors": [{"name": name, "shape": list(header.shape), "dtype": header.dtype} for name, header in held.items()],
    }


def _speculator(config: Config, tensors: Tensors) -> Layout | None:
    kind = config.get("speculators_model_type")
    if kind is None:
        return None
    notes, verifier = [], None
    match config.get("speculators_config"):
        case {"verifier": {"name_or_path": str(name)}}:
            verifier = name
    if kind in SERVED and (verifier is None or Path(verifier).exists() or verifier.startswith((".", "/"))):
        notes.append("`vllm serve FOLDER` needs the hub id of the verifier; without it, give --model and --speculative-config")
    served = "vLLM 0.33" if kind in SERVED else "no engine as it is: vLLM's reader does not know the type"
    about = {"verifier": verifier} if verifier else {}
    if kind != "eagle3":
        return Layout(f"speculators, {kind}", f"{served}; speculators 0.9 to train on", None, kind, None, about, tuple(notes))
    engines = f"{served}, speculators 0.9 to train on, Headway after import"
    notes += _eagle3_notes(config, tensors, "vLLM assumes true and speculators false")
    return Layout("speculators, eagle3", engines, "speculators", "eagle3", None, about, tuple(notes))


def _eagle(config: Config, tensors: Tensors) -> Layout | None:
    layer = next((prefix for prefix in ("midlayer.", "layers.0.") if f"{prefix}self_attn.q_proj.weight" in tensors), None)
    if "fc.weight" not in tensors or layer is None:
        return None
    if f"{layer}hidden_norm.weight" in tensors:
        engines = 'vLLM 0.33 ({"method": "eagle3"}), SGLang 0.5.23 (EAGLE3), SafeAILab\'s EAGLE, Headway after import'
        notes = _eagle3_notes(config, tensors, "engines assume false")
        if "LlamaForCausalLMEagle3" not in (config.get("architectures") or []):
            notes.append("SGLang needs LlamaForCausalLMEagle3 in architectures")
        return Layout("EAGLE-3, native", engines, "eagle3", "eagle3", notes=tuple(notes))
    engines = 'vLLM 0.33 ({"method": "eagle"}), SGLang 0.5.23 (EAGLE), SafeAILab\'s EAGLE, Headway after import'
    notes = ["vLLM ignores the bias of fc"] if "fc.bias" in tensors else []
    if any("_layernorm" in name and "." not in name.removesuffix(".weight") for name in tensors):
        notes.append("norms beside the layer belong to HASS: vLLM needs add_para_norm, and Headway's heads have no such norms")
    return Layout("EAGLE-1", engines, "eagle", "eagle", notes=tuple(notes))


def layer_ids(config: Config) -> Any:
    """Hidden states that an EAGLE-3 drafter reads; None if the config does not name them."""
    nested = config.get("eagle_config")
    return config.get(LAYER_IDS) or (nested.get(LAYER_IDS) if isinstance(nested, dict) else None)


def _eagle3_notes(config: Config, tensors: Tensors, default: str) -> list[str]:
    notes = [f"{name} belongs to EAGLE-3.1: Headway cannot import it" for name in EAGLE31 if config.get(name)]
    if "norm_before_residual" not in config:
        notes.append(f"norm_before_residual is missing: {default}")
    if not layer_ids(config):
        notes.append(f"{LAYER_IDS} is missing: engines read states 2, n/2 and n - 3 of a trunk of n layers")
    declared, head = config.get("draft_vocab_size"), tensors.get("lm_head.weight")
    if declared is not None and head is not None and head.shape[:1] != (declared,):
        notes.append(f"draft_vocab_size is {declared}, and lm_head is {' x '.join(map(str, head.shape))}")
    return notes


def _medusa(config: Config, tensors: Tensors) -> Layout | None:
    within = {name: WITHIN.sub("", name) for name in tensors if WITHIN.match(name)}
    with_trunk = 0 < len(within) < len(tensors)
    names = within if with_trunk else {name: WITHIN.sub("", name) for name in tensors}
    parts = [part for name in names.values() if (part := BLOCK.fullmatch(name) or UNEMBEDDING.fullmatch(name))]
    if not parts or not (with_trunk or len(parts) >= len(names) - 2):  # beside token_map and lm_head
        return None
    vllm_names = any(part[0].startswith(("blocks.", "lm_heads.")) for part in parts)
    count = 1 + max(_first_number(part[0]) for part in parts)
    notes = []
    declared = [config[name] for name in ("num_heads", "medusa_num_heads") if isinstance(config.get(name), int)]
    if declared and declared[0] != count:
        notes.append(f"config.json declares {declared[0]} heads, and there are tensors of {count}: Headway follows the tensors")
    if any(name.endswith(".bias") for name in names) and not config.get("medusa_fc_bias") and not with_trunk:
        notes.append("vLLM ignores the biases, because config.json lacks medusa_fc_bias")
    if with_trunk:
        layout, engines = "Medusa, within the model's own checkpoint (ModelOpt's naming)", "none as it is; Headway after import"
    else:
        layout, engines = f"Medusa, {'vLLM' if vllm_names else 'FasterDecoding'}'s naming", MEDUSA
    return Layout(layout, engines, "medusa", "medusa", count, {}, tuple(notes), frozenset(names))


def _mtp(config: Config, tensors: Tensors) -> Layout | None:
    text = config.get("text_config") or config
    depth = text.get("num_hidden_layers")
    if not isinstance(depth, int):
        return None
    for key, naming in MTP_TENSOR_NAMES.items():
        names = frozenset(name for name in tensors if naming.holds(name, depth))
        own = {name: naming.from_checkpoint_name(name, depth) for name in names}
        if not any(target and target[1] == "eh_proj.weight" for target in own.values()):
            continue
        notes = [f"{name} has no place in this layout" for name, target in sorted(own.items()) if target is None][:1]
        count = 1 + max((target[0] for target in own.values() if target), default=-1)
        declared = [text[name] for name in COUNTS if text.get(name)]
        if declared and count not in declared:
            notes.append(f"config.json declares {declared[0]} layers, and the folder holds {count}")
        exported = MODULE in str(config.get("auto_map"))
        engines = MTP["exported" if exported else key]
        note = ", exported for transformers" if exported or RECORD in text else ""
        about = {"architecture": config.get("model_type"), "layers": depth}
        return Layout(f"{key} ({naming.about}){note}", engines, "transformers", "sequential", count, about, tuple(notes), names)
    return None


def _plain(config: Config, tensors: Tensors) -> Layout | None:
    if "model_type" not in config or not any(name.endswith(EMBEDDINGS) for name in tensors):
        return None
    text = config.get("text_config") or config
    notes = tuple(
        f"config.json declares {name}: {text[name]}, and the tensors are missing (transformers and mergekit drop them)"
        for name in COUNTS
        if text.get(name)
    )
    about = {"architecture": config["model_type"], "layers": text.get("num_hidden_layers")}
    engines = "every engine that serves the model; there are no heads: headway heads train makes some"
    return Layout("a plain model without heads", engines, about=about, notes=notes, names=frozenset())


def _unknown(config: Config, tensors: Tensors) -> Layout:
    declared = [f"{name} {config[name]}" for name in ("model_type", "architectures") if config.get(name)]
    seen = f"{len(tensors)} tensors such as {_first_names(tensors)}" if tensors else "no tensors"
    notes = (
        f"config.json declares {', '.join(declared)}" if declared else "config.json is missing or names no model",
        f"there are {seen}",
    )
    return Layout("unknown", "none that Headway knows of", notes=notes)


READERS: tuple[Callable[[Config, Tensors], Layout | None], ...] = (_speculator, _eagle, _medusa, _mtp, _plain, _unknown)


def _first_number(name: str) -> int:
    number = re.search(r"\d+", name)
    return int(number[0]) if number else 0


def _first_names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:3])
