"""Which layout a folder is in, from its settings and the names and shapes of its tensors, and which engines serve that.

Engines are those that were looked at: vLLM 0.33 (0.32 for Medusa), SGLang 0.5.23, transformers 5.23, speculators 0.9.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from headway.interop.headers import Header, config_of, counted, headers
from headway.model.native_mtp.names import MTP_TENSOR_NAMES

RECORD = "headway_heads"  # what headway.json would say, in config.json
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
SERVED = ("eagle3", "peagle", "dflash", "dflash2", "dspark")  # of speculators' types, by vLLM


Config: TypeAlias = Mapping[str, Any]
Tensors: TypeAlias = Mapping[str, Header]


@dataclass(frozen=True)
class Found:
    """What a folder is."""

    layout: str
    engines: str
    format: str | None = None  # that Headway imports it as
    family: str | None = None
    count: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what to look out for
    names: frozenset[str] | None = None  # of the heads' tensors; None for all


def recognise(folder: str | Path) -> dict[str, Any]:
    """Layout, engines and tensors of any folder.

    Returns: `format` that Headway imports it as, `family` and `count` of the heads where these are known; `layout`; `engines`;
        `notes`; number and types of what the heads hold, and each tensor of theirs.
    Raises: CheckpointError where there is no such folder, something is damaged, or weights are there as pickles alone.
    """
    folder = Path(folder)
    tensors, config = headers(folder), config_of(folder)
    found = next(known for one in READERS if (known := one(config, tensors)) is not None)
    held = {name: tensors[name] for name in sorted(tensors if found.names is None else found.names)}
    parameters, dtype = counted(held)
    kept = {"format": found.format, "family": found.family, "count": found.count}
    return {
        **{name: value for name, value in kept.items() if value is not None},
        "layout": found.layout,
        "engines": found.engines,
        **found.about,
        "notes": list(found.notes),
        "parameters": parameters,
        "dtype": dtype,
        "tensors": [{"name": name, "shape": list(one.shape), "dtype": one.dtype} for name, one in held.items()],
    }


def _speculator(config: Config, tensors: Tensors) -> Found | None:
    kind = config.get("speculators_model_type")
    if kind is None:
        return None
    notes, verifier = [], None
    match config.get("speculators_config"):
        case {"verifier": {"name_or_path": str(name)}}:
            verifier = name
    if kind in SERVED and (verifier is None or Path(verifier).exists() or verifier.startswith((".", "/"))):
        notes.append(
            "`vllm serve` on this folder alone wants the hub id of the verifier: else give --model and --speculative-config"
        )
    served = "vLLM 0.33" if kind in SERVED else "no engine as it is: vLLM's reader has no such type, and wants it within its model"
    about = {"verifier": verifier} if verifier else {}
    if kind != "eagle3":
        return Found(f"speculators, {kind}", f"{served}; speculators 0.9 to train on", None, kind, None, about, tuple(notes))
    engines = f"{served}, speculators 0.9 to train on, Headway after import"
    notes += _of_eagle3(config, tensors, "vLLM takes true and speculators false")
    return Found("speculators, eagle3", engines, "speculators", "eagle3", None, about, tuple(notes))


def _eagle(config: Config, tensors: Tensors) -> Found | None:
    layer = next((prefix for prefix in ("midlayer.", "layers.0.") if f"{prefix}self_attn.q_proj.weight" in tensors), None)
    if "fc.weight" not in tensors or layer is None:
        return None
    if f"{layer}hidden_norm.weight" in tensors:
        engines = 'vLLM 0.33 ({"method": "eagle3"}), SGLang 0.5.23 (EAGLE3), SafeAILab\'s EAGLE, Headway after import'
        notes = _of_eagle3(config, tensors, "engines take false")
        if "LlamaForCausalLMEagle3" not in (config.get("architectures") or []):
            notes.append("SGLang wants LlamaForCausalLMEagle3 in architectures")
        return Found("EAGLE-3, native", engines, "eagle3", "eagle3", notes=tuple(notes))
    engines = 'vLLM 0.33 ({"method": "eagle"}), SGLang 0.5.23 (EAGLE), SafeAILab\'s EAGLE, Headway after import'
    notes = ["vLLM passes over the bias of fc"] if "fc.bias" in tensors else []
    if any("_layernorm" in name and "." not in name.removesuffix(".weight") for name in tensors):
        notes.append("norms beside the layer are HASS': vLLM needs add_para_norm for them, and Headway's heads have none")
    return Found("EAGLE-1", engines, "eagle", "eagle", notes=tuple(notes))


def layer_ids(config: Config) -> Any:
    """Which of the trunk's states an EAGLE-3 drafter reads, if its config says so."""
    nested = config.get("eagle_config")
    return config.get(LAYER_IDS) or (nested.get(LAYER_IDS) if isinstance(nested, dict) else None)


def _of_eagle3(config: Config, tensors: Tensors, otherwise: str) -> list[str]:
    notes = [f"{name} is EAGLE-3.1's: Headway cannot import it" for name in EAGLE31 if config.get(name)]
    if "norm_before_residual" not in config:
        notes.append(f"norm_before_residual is not given: {otherwise}")
    if not layer_ids(config):
        notes.append(f"{LAYER_IDS} is not given: engines read states 2, n/2 and n - 3 of a trunk of n layers")
    said, head = config.get("draft_vocab_size"), tensors.get("lm_head.weight")
    if said is not None and head is not None and head.shape[:1] != (said,):
        notes.append(f"draft_vocab_size is {said}, and lm_head is {' x '.join(map(str, head.shape))}")
    return notes


def _medusa(config: Config, tensors: Tensors) -> Found | None:
    within = {name: WITHIN.sub("", name) for name in tensors if WITHIN.match(name)}
    whole = 0 < len(within) < len(tensors)
    names = within if whole else {name: WITHIN.sub("", name) for name in tensors}
    parts = [found for name in names.values() if (found := BLOCK.fullmatch(name) or UNEMBEDDING.fullmatch(name))]
    if not parts or not (whole or len(parts) >= len(names) - 2):  # beside token_map and lm_head
        return None
    plain = any(part[0].startswith(("blocks.", "lm_heads.")) for part in parts)
    count = 1 + max(_first_number(part[0]) for part in parts)
    notes = []
    said = [config[name] for name in ("num_heads", "medusa_num_heads") if isinstance(config.get(name), int)]
    if said and said[0] != count:
        notes.append(f"config.json speaks of {said[0]} heads, and the tensors are of {count}: Headway goes by the tensors")
    if any(name.endswith(".bias") for name in names) and not config.get("medusa_fc_bias") and not whole:
        notes.append("vLLM leaves out the biases, for config.json lacks medusa_fc_bias")
    if whole:
        layout, engines = "Medusa, within the model's own checkpoint (ModelOpt's naming)", "none as it is; Headway after import"
    else:
        layout, engines = f"Medusa, {'vLLM' if plain else 'FasterDecoding'}'s naming", MEDUSA
    return Found(layout, engines, "medusa", "medusa", count, {}, tuple(notes), frozenset(names))


def _mtp(config: Config, tensors: Tensors) -> Found | None:
    text = config.get("text_config") or config
    depth = text.get("num_hidden_layers")
    if not isinstance(depth, int):
        return None
    for key, layout in MTP_TENSOR_NAMES.items():
        names = frozenset(name for name in tensors if layout.holds(name, depth))
        places = {name: layout.from_checkpoint_name(name, depth) for name in names}
        if not any(place and place[1] == "eh_proj.weight" for place in places.values()):
            continue
        notes = [f"{name} has no place in this layout" for name, place in sorted(places.items()) if place is None][:1]
        count = 1 + max((place[0] for place in places.values() if place), default=-1)
        said = [text[name] for name in COUNTS if text.get(name)]
        if said and count not in said:
            notes.append(f"config.json speaks of {said[0]} layers, and {count} are there")
        exported = MODULE in str(config.get("auto_map"))
        engines = MTP["exported" if exported else key]
        note = ", exported for transformers" if exported or RECORD in text else ""
        about = {"architecture": config.get("model_type"), "layers": depth}
        return Found(f"{key} ({layout.about}){note}", engines, "transformers", "sequential", count, about, tuple(notes), names)
    return None


def _plain(config: Config, tensors: Tensors) -> Found | None:
    if "model_type" not in config or not any(name.endswith(EMBEDDINGS) for name in tensors):
        return None
    text = config.get("text_config") or config
    notes = tuple(
        f"config.json says {name}: {text[name]}, and no tensor is theirs: they were lost (transformers and mergekit drop them)"
        for name in COUNTS
        if text.get(name)
    )
    about = {"architecture": config["model_type"], "layers": text.get("num_hidden_layers")}
    engines = "whatever serves the model; there is nothing to draft with: headway heads train makes it"
    return Found("a plain model without heads", engines, about=about, notes=notes, names=frozenset())


def _unknown(config: Config, tensors: Tensors) -> Found:
    said = [f"{name} {config[name]}" for name in ("model_type", "architectures") if config.get(name)]
    seen = f"{len(tensors)} tensors such as {_some(tensors)}" if tensors else "no tensors"
    notes = (f"config.json says {', '.join(said)}" if said else "config.json is missing or names no model", f"there are {seen}")
    return Found("unknown", "none that Headway knows of", notes=notes)


READERS: tuple[Callable[[Config, Tensors], Found | None], ...] = (_speculator, _eagle, _medusa, _mtp, _plain, _unknown)


def _first_number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found[0]) if found else 0


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:3])
