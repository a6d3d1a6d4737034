"""`HeadwayModel`: a Hugging Face causal language model with a stack of heads that look further ahead."""

import dataclasses
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from headway import model_path
from headway.decoding import Generation, generate
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.files import replacing_folder
from headway.heads import (
    CONFIG_FILE,
    FAMILIES,
    TENSORS_FILE,
    HeadsConfig,
    HeadStack,
    read_config,
)
from headway.model.native_mtp import classes
from headway.model.native_mtp.checkpoint import NativeMTPCheckpoint, find_native_mtp, load_native_mtp, native_source, save_with
from headway.ops import Unembedding
from headway.trunk import ForwardContext, HiddenStates, Masks, TrunkView
from headway.trunk.quantization import NO_TORCHAO, adapt, quantize, trunk_is_quantized


@dataclass(frozen=True)
class MTPOutput:
    """states[k], (batch, seq, hidden), predicts the token k + 1 ahead once unembedded; states[0] is the trunk's own."""

    states: list[Tensor]


class HeadwayModel(nn.Module):
    """A trunk, unmodified, and heads beside it.

    The trunk predicts the next token, head k (0-based) the token at offset k + 2. A checkpoint is an ordinary Hugging Face
    folder with `headway.json` and `headway.safetensors` beside the trunk's own files. Heads that a checkpoint shipped with, as
    MTP layers among the trunk's tensors, go back there under their names.
    """

    def __init__(self, trunk: PreTrainedModel, heads: HeadStack | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = heads
        self.shipped: NativeMTPCheckpoint | None = find_native_mtp(
            _folder_of(trunk)
        )  # MTP layers that stand beside the trunk where it came from
        # FSDP wraps by these class names, heads and trunk layers alike
        self._no_split_modules = sorted({type(layer).__name__ for layer in self.view.layers})
        self.train(trunk.training)

    @classmethod
    def from_trunk(cls, trunk: str | Path | PreTrainedModel, family: str = "parallel", count: int = 2, **options: Any) -> Self:
        """Attach `count` fresh heads of a family to a model, folder or hub id. count=0 attaches none.

        Raises: ConfigError for an unknown family or option, CheckpointError where the trunk cannot be loaded,
            UnsupportedModelError where it is built in a way Headway does not know.
        """
        model = trunk if isinstance(trunk, PreTrainedModel) else load_trunk(trunk)
        if family not in FAMILIES:
            raise ConfigError(f"There is no head family {family!r}; there are: {', '.join(FAMILIES)}.")
        if count < 0:
            raise ConfigError(f"The number of heads cannot be negative, got {count}.")
        heads = FAMILIES[family].from_trunk(TrunkView(model), count, options) if count else None
        return cls(model, heads)

    @classmethod
    def from_pretrained(cls, folder: str | Path, count: int | None = None, dtype: torch.dtype | None = None) -> Self:
        """Load trunk and heads as saved; a folder without heads gives the plain model.

        MTP layers that the checkpoint ships with become `sequential` heads; where these cannot run on its trunk, a UserWarning
        says why, and the model is the plain one.

        Args:
            folder: a local folder, a hub id, or `embedded`.
            count: keep only the first `count` heads.
            dtype: of the weights; default: as saved.
        Raises: CheckpointError where something is missing, damaged or does not fit.
        """
        path = Path(model_path(folder))
        if not path.is_dir():
            path = _download(str(folder))
        model = cls(load_trunk(path, dtype), None)
        if (path / CONFIG_FILE).is_file():
            model.attach(path, count)
        elif model.shipped is not None and count != 0:
            try:
                model._attach_shipped(model.shipped, count)
            except UnsupportedModelError as error:
                warnings.warn(f"{error} The model is used without them.", UserWarning, stacklevel=2)
        return model

    def attach(self, folder: str | Path, count: int | None = None) -> None:
        """Attach the heads saved in `folder`, replacing those there are.

        Raises: CheckpointError where they do not fit; UnsupportedModelError for MTP layers that cannot run on this trunk.
        """
        path = Path(model_path(folder))
        if not (path / CONFIG_FILE).is_file() and (shipped := find_native_mtp(path)) is not None:
            self._attach_shipped(shipped, count)
            return
        config = read_config(path)
        config.check_fits(self.view, str(path))
        if config.family not in FAMILIES:
            raise CheckpointError(f"{path} holds {config.family!r} heads; this version knows: {', '.join(FAMILIES)}.")
        if count is not None and count > config.count:
            raise CheckpointError(f"{path} holds {config.count} heads, fewer than the {count} asked for.")
        count = config.count if count is None else count
        # names on disk count from the depth of the trunk that the heads were trained on
        heads = FAMILIES[config.family].from_trunk(self.view, count, config.options)
        ours, heads.config = heads.config, dataclasses.replace(config, count=count)
        heads.read_tensors(path)
        heads.config = dataclasses.replace(ours, training=config.training)
        self.heads = heads.train(self.training) if count else None
        adapt(self.trunk, self.heads)

    def _attach_shipped(self, shipped: NativeMTPCheckpoint, count: int | None) -> None:
        heads = load_native_mtp(self.view, shipped)
        count = heads.count if count is None else count
        if count > heads.count:
            raise CheckpointError(f"{shipped.folder} holds {heads.count} MTP layers, fewer than the {count} asked for.")
        if shipped != self.shipped:  # the checkpoint that the trunk goes back to has no place for them
            heads.origin = None
        heads.layers = heads.layers[:count]
        heads.config = dataclasses.replace(heads.config, count=count)
        self.heads = heads.train(self.training) if count else None

    @cached_property
    def view(self) -> TrunkView:
        return TrunkView(self.trunk)

    @property
    def count(self) -> int:
        """How many heads there are."""
        return self.heads.count if self.heads is not None else 0

    @property
    def device(self) -> torch.device:
        return self.trunk.device

    @property
    def unembedding(self) -> Unembedding:
        return self.view.unembedding

    @property
    def unembeddings(self) -> list[Unembedding]:
        """What the states of `forward` are read through: the trunk's, then one for each head."""
        return [self.view.unembedding, *(self.heads.unembeddings(self.view) if self.heads is not None else [])]

    def forward(
        self, input_ids: Tensor, segments: Tensor | None = None, count: int | None = None, prefix: Tensor | None = None
    ) -> MTPOutput:
        """States of the trunk and of the first `count` heads (default: all) over whole sequences.

        Args:
            input_ids: (batch, seq).
            segments: number of the document each token belongs to, in one run each, -1 for padding, (batch, seq);
                documents do not see each other, and positions start anew in each. Without it a row is one document.
            prefix: bool, (batch, seq): what is true sees its own document's prefix both ways; without it attention is causal.
        """
        positions, masks = self.layout(input_ids, segments, prefix)
        return self.run_heads(self.run(input_ids, positions, masks), input_ids, positions, masks, count)

    def run(self, inputs: Tensor, position_ids: Tensor | None, masks: Masks, cache: Cache | None = None) -> HiddenStates:
        """One pass over the trunk, as `TrunkView.run`, keeping what the heads read."""
        return self.view.run(inputs, position_ids, masks, cache, self.heads.hidden_state_layers if self.heads is not None else ())

    def layout(self, input_ids: Tensor, segments: Tensor | None = None, prefix: Tensor | None = None) -> tuple[Tensor, Masks]:
        """Position of each token within its document, (batch, seq), and what each may look at; arguments as of `forward`."""
        positions = positions_of(segments) if segments is not None else _arange_like(input_ids)
        one_document = segments is None or bool((segments.clamp(min=0) == 0).all())
        if one_document and prefix is None and self.view.plain_causal(input_ids.shape[1]):
            return _arange_like(input_ids), None
        return positions, self.view.masks(positions, positions, segments, segments, prefix=prefix)

    def run_heads(
        self, hidden_states: HiddenStates, input_ids: Tensor, positions: Tensor, masks: Masks, count: int | None = None
    ) -> MTPOutput:
        """States of the first `count` heads (default: all) beside the trunk's own of one pass."""
        count = self.count if count is None else count
        states = [hidden_states.last]
        if self.heads is not None and count:
            states += self.heads.states(
                self.heads.reads(hidden_states), input_ids, ForwardContext(self.view, positions, masks), count
            )
        return MTPOutput(states)

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Generation:
        """Decode with the heads as drafters; see `headway.decoding.generate` for arguments, defaults and what is returned."""
        return generate(self, input_ids, attention_mask, **kwargs)

    def quantize(self, scheme: str) -> None:
        """Quantise the linear layers of trunk and heads in place; see `headway.trunk.quantization` for the schemes.

        From here on "the model's own output" means the quantised model's. `save_pretrained` and `from_pretrained` keep it so.

        Raises: ConfigError where the scheme is unknown or does not run here, or where the model is quantised already;
            UnsupportedModelError where there is nothing to quantise.
        """
        quantize(self.trunk, self.heads, scheme)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Recompute layers in the backward pass, in the trunk and in the heads."""
        kwargs = gradient_checkpointing_kwargs or {"use_reentrant": False}
        self.trunk.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
        last = self.view.layers[-1]
        for module in self.heads.modules() if self.heads is not None else ():
            if isinstance(module, (GradientCheckpointingLayer, type(last))):
                setattr(module, "gradient_checkpointing", True)  # noqa: B010  nn.Module declares no such attribute
                module._gradient_checkpointing_func = last._gradient_checkpointing_func

    def save_pretrained(self, folder: str | Path, training: dict[str, Any] | None = None) -> None:
        """Write the trunk as transformers would and the heads beside it, whole or not at all.

        MTP layers that the trunk's checkpoint shipped with are kept among its tensors, under their names: as they were, or, where
        they are the heads, as they are now. Then there is no `headway.json`, and nothing stands twice.

        Args: training: a record of how it was made, kept in `headway.json`.
        Raises: CheckpointError where MTP layers would have to be kept as they were, and the folder they came from is gone.
        """
        home = native_source(self.heads)
        shipped = home or self.shipped
        if trunk_is_quantized(self.trunk):  # what was shipped belongs to another trunk now
            if shipped is not None and home is None:
                warnings.warn(f"The MTP layers in {shipped.folder} are not kept beside a quantised trunk.", stacklevel=2)
            home = shipped = None
        with replacing_folder(folder) as temporary:
            if shipped is not None:
                save_with(self.trunk, self.heads, shipped, temporary)
            else:
                # transformers 5.23 cannot turn back what it did to load a quantised checkpoint, and need not: names are as before
                self.trunk.save_pretrained(temporary, save_original_format=not trunk_is_quantized(self.trunk))
            if self.heads is not None and home is None:
                if training is not None:
                    self.heads.config = dataclasses.replace(self.heads.config, training=training)
                self.heads.write_files(temporary)
        if self.heads is None or home is not None:  # an older save in the same folder may have left heads of another model
            for name in (CONFIG_FILE, TENSORS_FILE):
                (Path(folder) / name).unlink(missing_ok=True)


def positions_of(segments: Tensor) -> Tensor:
    """Position of each token within its own segment, (batch, seq); a segment is one unbroken run."""
    index = _arange_like(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(starts, index, 0).cummax(dim=1).values


def has_heads(folder: str | Path) -> bool:
    """Whether a folder holds heads, saved by Headway or shipped with the model."""
    path = Path(model_path(folder))
    return (path / CONFIG_FILE).is_file() or find_native_mtp(path) is not None


def best_device() -> torch.device:
    """The accelerator, where there is one."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def load_trunk(source: str | Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a causal language model from safetensors. Raises CheckpointError with the reason where that fails."""
    source = model_path(source)
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise CheckpointError(f"{source} is no model folder: config.json is missing.")
    try:
        with _skipping_shipped(source):
            trunk = AutoModelForCausalLM.from_pretrained(source, dtype=dtype or "auto", use_safetensors=True)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, ImportError, json.JSONDecodeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "torchao" in reason:
            reason = NO_TORCHAO
        raise CheckpointError(f"The model {str(source)!r} cannot be loaded: {reason}") from error
    if trunk_is_quantized(trunk):
        adapt(trunk, None)
    return trunk


classes.register()


@contextmanager
def _skipping_shipped(source: str) -> Iterator[None]:
    """Within, transformers does not report as unexpected the MTP layers in that folder, whatever class it loads."""
    shipped = find_native_mtp(source)
    if shipped is None:
        yield
        return
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(source))]
    skipped = [*(kind._keys_to_ignore_on_load_unexpected or []), shipped.naming.pattern(shipped.names)]
    with patch.object(kind, "_keys_to_ignore_on_load_unexpected", skipped):
        yield


def _folder_of(trunk: PreTrainedModel) -> str:
    """Where the trunk's files are: the folder it was loaded from, or the hub's cache of it; empty for one made in memory."""
    name = trunk.config.name_or_path or ""
    if not name or Path(name).is_dir():
        return name
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return ""
    return str(Path(found).parent) if isinstance(found, str) else ""


def _download(repository: str) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{repository!r} is neither a folder here nor a model that can be fetched from the hub.") from error


def _arange_like(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)


__all__ = ["HeadsConfig", "HeadwayModel", "MTPOutput", "load_trunk", "positions_of"]
