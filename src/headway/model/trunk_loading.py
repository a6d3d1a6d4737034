"""Trunks from local folders and from the hub: adapters are merged, code inside a checkpoint never runs."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from headway import model_path
from headway.errors import CheckpointError, first_line
from headway.files import ADAPTER_CONFIG, ADAPTER_TENSORS, INDEX, SINGLE, read_json
from headway.model.native_mtp import classes
from headway.model.native_mtp.checkpoint import find_native_mtp
from headway.temporarily import temporarily
from headway.trunk.quantization import NO_TORCHAO, replace_with_fast_kernels, trunk_is_quantized

DOWNLOADED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
# transformers looks for an adapter in this subfolder, finds none, and leaves the adapter to `_merge_adapter`
NO_ADAPTER = {"subfolder": "no-adapter"}
LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError, StrictDataclassError)

classes.register()


def load_trunk(source: str | Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a causal language model from safetensors, with the folder's adapter merged.

    A folder with an adapter and no weights is loaded from the adapter's base model.

    Args:
        source: folder, hub id, or `embedded`.
        dtype: dtype of the weights; default: as saved.
    Raises: CheckpointError with the reason if the model cannot be loaded, or needs code from the checkpoint.
    """
    folder = model_folder(source)
    adapter = adapter_base(folder)
    trunk = load_trunk(adapter, dtype) if adapter is not None else _load(folder, dtype)
    if (folder / ADAPTER_CONFIG).is_file():
        if adapter is None:
            warnings.warn(f"The adapter in {folder} is merged into the weights beside it.", UserWarning, stacklevel=2)
        trunk = _merge_adapter(trunk, folder)
    # exports name the model that heads belong to: the hub id, not the folder of the hub's cache
    trunk.config.name_or_path = str(folder) if Path(model_path(source)).is_dir() else str(source)
    return trunk


def model_folder(source: str | Path) -> Path:
    """Local folder of a model; files of a hub repository are fetched.

    Raises: CheckpointError for a name that is neither a folder nor a repository within reach.
    """
    path = Path(model_path(source))
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(DOWNLOADED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{str(source)!r} is neither a folder here nor a model that can be fetched from the hub.") from error


def adapter_base(folder: Path) -> str | None:
    """Base model of a folder that holds an adapter and no weights; None for a folder with weights or without adapter.

    Raises: CheckpointError if the adapter names no base model.
    """
    if not (folder / ADAPTER_CONFIG).is_file() or any((folder / name).is_file() for name in (SINGLE, INDEX)):
        return None
    base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base or Path(base).resolve() == folder.resolve():
        raise CheckpointError(f"{folder} holds an adapter without weights, and {ADAPTER_CONFIG} names no base model.")
    return str(base)


def folder_of(trunk: PreTrainedModel) -> str:
    """Folder that the trunk was loaded from, in the hub's cache for a hub id; empty for a trunk built in memory."""
    name = trunk.config.name_or_path or ""
    if not name or Path(name).is_dir():
        return name
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return ""
    return str(Path(found).parent) if isinstance(found, str) else ""


def ignoring_tensors(folder: Path, patterns: Sequence[str]) -> AbstractContextManager[None]:
    """Within, transformers does not report tensors of `folder` that match `patterns` as unexpected."""
    try:
        kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(folder, trust_remote_code=False))]
    except (KeyError, OSError, ValueError):  # loading the model reports the defect
        return nullcontext()
    return temporarily(kind, _keys_to_ignore_on_load_unexpected=[*(kind._keys_to_ignore_on_load_unexpected or []), *patterns])


def custom_code_reason(folder: Path, error: Exception, *config_files: str) -> str:
    """First line of a loading error; for a checkpoint that needs code, a sentence that names the code."""
    if "trust_remote_code" not in str(error):
        return first_line(error)
    wanted: set[str] = set()
    for file in config_files:
        settings = read_json(folder / file) if (folder / file).is_file() else {}
        for value in (settings.get("auto_map") or {}).values():
            wanted |= {name for name in (value if isinstance(value, list) else [value]) if name}
    named = f" ({', '.join(sorted(wanted))})" if wanted else ""
    return (
        f"it runs only with code of its own{named}, and Headway never runs code from a checkpoint. "
        "Use a model that transformers has classes for, or convert this one."
    )


def _load(folder: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no model folder: config.json is missing.")
    native = find_native_mtp(folder)
    try:
        with nullcontext() if native is None else ignoring_tensors(folder, [native.naming.pattern(native.names)]):
            trunk = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False, adapter_kwargs=NO_ADAPTER
            )
    except LOADING_ERRORS as error:
        reason = custom_code_reason(folder, error, "config.json")
        if "torchao" in reason:
            reason = NO_TORCHAO
        raise CheckpointError(f"The model {str(folder)!r} cannot be loaded: {reason}") from error
    if trunk_is_quantized(trunk):
        replace_with_fast_kernels(trunk, None)
    return trunk


def _merge_adapter(trunk: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Add the adapter in `folder` to the trunk's weights. Raises CheckpointError if the adapter cannot be merged."""
    if trunk_is_quantized(trunk):
        raise CheckpointError(f"The adapter in {folder} cannot be merged into quantised weights: load the model it was made for.")
    if not (folder / ADAPTER_TENSORS).is_file():
        raise CheckpointError(f"{folder} holds {ADAPTER_CONFIG} without {ADAPTER_TENSORS}. Remove the one or add the other.")
    from peft import PeftModel  # takes a second to import

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            merged: Any = PeftModel.from_pretrained(trunk, str(folder))
        trunk = merged.merge_and_unload(safe_merge=True)
    except (*LOADING_ERRORS, AttributeError, TypeError, Warning) as error:
        raise CheckpointError(
            f"The adapter in {folder} cannot be merged into {type(trunk).__name__}: {first_line(error)}"
        ) from error
    return trunk.requires_grad_(True)  # peft had frozen the weights
