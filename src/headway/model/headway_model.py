"""`HeadwayModel`: a Hugging Face causal language model with a stack of heads that look further ahead."""

import dataclasses
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from headway import model_path
from headway.decoding.generate import Generation, generate
from headway.errors import CheckpointError, ConfigError, UnsupportedModelError
from headway.heads import CONFIG_FILE, FAMILIES, HeadStack, read_config
from headway.model.native_mtp.checkpoint import NativeMTPCheckpoint, Provenance, find_native_mtp
from headway.model.native_mtp.read import load_native_mtp
from headway.model.saving import check_no_adapter, save_model
from headway.model.trunk_loading import folder_of, load_trunk, model_folder
from headway.ops import Unembedding
from headway.trunk import ForwardContext, HiddenStates, Masks, TrunkView
from headway.trunk.quantization import quantize, replace_with_fast_kernels


@dataclass(frozen=True)
class MTPOutput:
    """Normed hidden states of the trunk and of every head, (batch, seq, hidden).

    `hidden_states[0]` is the trunk's. The unembedding of `hidden_states[k]` predicts the token k + 1 positions ahead.
    """

    hidden_states: list[Tensor]


class HeadwayModel(nn.Module):
    """An unmodified trunk with prediction heads.

    The trunk predicts the next token, head k (0-based) the token at offset k + 2. A checkpoint is an ordinary Hugging Face folder
    with `headway.json` and `headway.safetensors` beside the trunk's own files. Heads read from a checkpoint's MTP layers are
    saved among the trunk's tensors again, under the same names.

    Attributes:
        trunk: the language model.
        heads: None for a plain model.
        native_mtp: MTP layers in the checkpoint that the trunk came from.
    """

    def __init__(self, trunk: PreTrainedModel, heads: HeadStack | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = heads
        self.native_mtp: NativeMTPCheckpoint | None = find_native_mtp(folder_of(trunk))
        self._provenance: Provenance | None = None
        # FSDP wraps by these class names, heads and trunk layers alike
        self._no_split_modules = sorted({type(layer).__name__ for layer in self.view.layers})
        self.train(trunk.training)

    @classmethod
    def from_trunk(cls, trunk: str | Path | PreTrainedModel, family: str = "parallel", count: int = 2, **options: Any) -> Self:
        """A model with `count` randomly initialised heads.

        Args:
            trunk: a loaded model, a folder or a hub id.
            family: key of `headway.heads.FAMILIES`.
            count: number of heads; 0 attaches none.
            options: of the family.
        Raises:
            ConfigError: the family or an option is unknown.
            CheckpointError: the trunk cannot be loaded, or carries an adapter.
            UnsupportedModelError: the trunk has a structure that Headway does not know.
        """
        model = load_trunk(trunk) if isinstance(trunk, str | Path) else trunk
        check_no_adapter(model)
        if family not in FAMILIES:
            raise ConfigError(f"There is no head family {family!r}; there are: {', '.join(FAMILIES)}.")
        if count < 0:
            raise ConfigError(f"The number of heads cannot be negative, got {count}.")
        heads = FAMILIES[family].from_trunk(TrunkView(model), count, options) if count else None
        return cls(model, heads)

    @classmethod
    def from_pretrained(cls, folder: str | Path, count: int | None = None, dtype: torch.dtype | None = None) -> Self:
        """A model with trunk and heads as saved; a plain model from a folder without heads.

        MTP layers of the checkpoint become `sequential` heads. A UserWarning says why if the layers cannot run on the trunk;
        the model is then plain.

        Args:
            folder: a local folder, a hub id, or `embedded`.
            count: number of heads to keep; default: all.
            dtype: of the weights; default: as saved.
        Raises: CheckpointError if a file is missing, damaged or does not fit.
        """
        model = cls(load_trunk(folder, dtype), None)
        path = model_folder(folder)
        if (path / CONFIG_FILE).is_file():
            model.attach(path, count)
        elif model.native_mtp is not None and count != 0:
            try:
                model._attach_native(model.native_mtp, count)
            except UnsupportedModelError as error:
                warnings.warn(f"{error} The model is used without them.", UserWarning, stacklevel=2)
        return model

    def attach(self, folder: str | Path, count: int | None = None) -> None:
        """Replace the heads by the heads saved in `folder`.

        Args:
            folder: a local folder with heads or MTP layers, or `embedded`.
            count: number of heads to keep; default: all.
        Raises:
            CheckpointError: the heads are damaged or do not fit the trunk.
            UnsupportedModelError: MTP layers cannot run on the trunk.
        """
        path = Path(model_path(folder))
        if not (path / CONFIG_FILE).is_file() and (native := find_native_mtp(path)) is not None:
            self._attach_native(native, count)
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
        replace_with_fast_kernels(self.trunk, self.heads)

    def _attach_native(self, native: NativeMTPCheckpoint, count: int | None) -> None:
        provenance = load_native_mtp(self.view, native)
        heads = provenance.heads
        count = heads.count if count is None else count
        if count > heads.count:
            raise CheckpointError(f"{native.folder} holds {heads.count} MTP layers, fewer than the {count} asked for.")
        heads.layers = heads.layers[:count]
        heads.config = dataclasses.replace(heads.config, count=count)
        self.heads = heads.train(self.training) if count else None
        self._provenance = provenance

    @property
    def provenance(self) -> Provenance | None:
        """Origin of the heads if the heads are the MTP layers of the trunk's own checkpoint."""
        found = self._provenance
        return found if found is not None and found.heads is self.heads and found.checkpoint == self.native_mtp else None

    @cached_property
    def view(self) -> TrunkView:
        return TrunkView(self.trunk)

    @property
    def count(self) -> int:
        """Number of heads."""
        return self.heads.count if self.heads is not None else 0

    @property
    def device(self) -> torch.device:
        return self.trunk.device

    @property
    def unembedding(self) -> Unembedding:
        return self.view.unembedding

    @property
    def unembeddings(self) -> list[Unembedding]:
        """Unembeddings for `MTPOutput.hidden_states`, in the same order: the trunk first, then the heads."""
        return [self.view.unembedding, *(self.heads.unembeddings(self.view) if self.heads is not None else [])]

    def forward(
        self, input_ids: Tensor, segments: Tensor | None = None, count: int | None = None, prefix: Tensor | None = None
    ) -> MTPOutput:
        """Hidden states of the trunk and of the first `count` heads over whole sequences.

        Args:
            input_ids: (batch, seq).
            segments: document index of the tokens, (batch, seq), -1 for padding; a document is an unbroken run. Attention stays
                within a document, and positions start at 0 in every document. Default: a row is a document.
            count: number of heads to run; default: all.
            prefix: bool, (batch, seq): tokens of a prefix attend to the whole prefix of their document. Default: causal.
        """
        positions, masks = self.layout(input_ids, segments, prefix)
        return self.run_heads(self.run(input_ids, positions, masks), input_ids, positions, masks, count)

    def run(self, inputs: Tensor, position_ids: Tensor | None, masks: Masks, cache: Cache | None = None) -> HiddenStates:
        """`TrunkView.run`, keeping the hidden states that the heads need."""
        return self.view.run(inputs, position_ids, masks, cache, self.heads.hidden_state_layers if self.heads is not None else ())

    def layout(self, input_ids: Tensor, segments: Tensor | None = None, prefix: Tensor | None = None) -> tuple[Tensor, Masks]:
        """Positions of the tokens within their document, (batch, seq), and attention masks; arguments as in `forward`."""
        positions = positions_of(segments) if segments is not None else _arange_like(input_ids)
        one_document = segments is None or bool((segments.clamp(min=0) == 0).all())
        if one_document and prefix is None and (self.view.plain_causal(input_ids.shape[1]) or not self.view.takes_masks):
            return _arange_like(input_ids), None
        return positions, self.view.masks(positions, positions, segments, segments, prefix=prefix)

    def run_heads(
        self, hidden_states: HiddenStates, input_ids: Tensor, positions: Tensor, masks: Masks, count: int | None = None
    ) -> MTPOutput:
        """The trunk's last hidden state, and the hidden states of the first `count` heads (default: all)."""
        count = self.count if count is None else count
        found = [hidden_states.last]
        if self.heads is not None and count:
            inputs = self.heads.select_inputs(hidden_states)
            found += self.heads.states(inputs, input_ids, ForwardContext(self.view, positions, masks), count)
        return MTPOutput(found)

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Generation:
        """Decode with the heads as drafters; `headway.decoding.generate` lists arguments, defaults and results."""
        return generate(self, input_ids, attention_mask, **kwargs)

    def quantize(self, scheme: str) -> None:
        """Quantise the linear layers of trunk and heads in place; `headway.trunk.quantization` lists the schemes.

        Drafts are verified by the quantised trunk from here on. `save_pretrained` and `from_pretrained` keep weights quantised.

        Raises:
            ConfigError: the scheme is unknown or does not run here, or the model is quantised already.
            UnsupportedModelError: the trunk has no layer to quantise.
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
        """Write the trunk as transformers would, and the heads in files of their own, completely or not at all.

        MTP layers of the trunk's checkpoint stay among the trunk's tensors. If the heads are the MTP layers, the trained weights
        are written, and the folder has no `headway.json`. Weights, indices, adapters and heads of an earlier save are deleted.

        Args:
            folder: further files in an existing folder stay.
            training: record of the training run, kept in `headway.json`.
        Raises: CheckpointError if the folder of MTP layers to copy is gone, or if the written files are not complete.
        """
        provenance = self.provenance
        save_model(self.trunk, self.heads, self.native_mtp, provenance, folder, training)
        if self.native_mtp is not None and self.native_mtp.folder == Path(folder).resolve():
            self.native_mtp = find_native_mtp(folder)  # the tensors may have moved to new files
            if provenance is not None and self.native_mtp is not None:
                self._provenance = dataclasses.replace(provenance, checkpoint=self.native_mtp)


def positions_of(segments: Tensor) -> Tensor:
    """Positions of the tokens within their segment, (batch, seq); a segment is an unbroken run."""
    index = _arange_like(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(starts, index, 0).cummax(dim=1).values


def has_heads(folder: str | Path) -> bool:
    """True if a folder holds heads saved by Headway, or MTP layers."""
    path = Path(model_path(folder))
    return (path / CONFIG_FILE).is_file() or find_native_mtp(path) is not None


def _arange_like(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
