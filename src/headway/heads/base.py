"""Interface of a head family, and the two files of saved heads: `headway.json` and `headway.safetensors`."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line
from headway.files import read_json, replacing_folder, write_json
from headway.ops import Unembedding
from headway.trunk import ForwardContext, HiddenStates, TrunkView
from headway.trunk.quantization import dequantized, from_safetensors, is_quantized, to_safetensors

CONFIG_FILE = "headway.json"
TENSORS_FILE = "headway.safetensors"
VERSION = 1  # of the format of both files


@dataclass(frozen=True)
class HeadsConfig:
    """Contents of `headway.json`: the heads, and the trunk that the heads fit."""

    family: str
    count: int
    architecture: str  # model_type of the trunk
    hidden_size: int
    layers: int  # of the trunk
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)  # record of the training run, for readers
    version: int = VERSION

    @property
    def default_draft_vocab(self) -> Tensor | None:
        """Placeholder token ids for a reduced vocabulary, (size,); None for the whole vocabulary."""
        size = self.options.get("draft_vocabulary")
        return None if size is None else torch.arange(size)

    def check_fits(self, view: TrunkView, source: str) -> None:
        """Raise CheckpointError, naming both sides, unless the heads fit the trunk."""
        ours = (self.architecture, self.hidden_size)
        theirs = (view.config.model_type, view.config.hidden_size)
        if ours != theirs:
            raise CheckpointError(
                f"The heads in {source} were made for a {ours[0]} trunk of width {ours[1]}, but this trunk is "
                f"{theirs[0]} of width {theirs[1]}. Use heads of the same architecture and width, or train new ones."
            )


class HeadStack(nn.Module):
    """Heads 0..count-1; head k at position i predicts the token at i + k + 2 (the trunk predicts i + 1).

    `headway.decoding` drafts with heads in four ways:
        parallel: all heads at once; head k at i depends only on the text up to i.
        chained: head k at i takes the state of head k - 1 at i and the token at i + k + 1, and attends to head k at earlier
            positions.
        recursive: head k takes the recurrent state of head k - 1 and the next token, as if the head stood at position i + k;
            attention, if any, covers the text up to i and the drafts before.
        masked: recursive; head 0 starts from the trunk's own hidden states of mask tokens after i.
    """

    family: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()  # in addition to the options of all families
    drafting: ClassVar[Literal["parallel", "chained", "recursive", "masked"]]
    predicts_hidden_states: ClassVar[bool] = False  # head k's state at i approximates the trunk's last state at i + k + 1
    draft_tokens: Tensor | None  # token ids of a reduced vocabulary, (tokens,), ascending

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("draft_tokens", config.default_draft_vocab)

    @property
    def count(self) -> int:
        return self.config.count

    @property
    def hidden_state_layers(self) -> tuple[int, ...]:
        """Trunk layers with inputs that `select_inputs` needs."""
        return ()

    @property
    def attends(self) -> bool:
        """True if heads attend to earlier positions: drafting then needs a KV cache for the heads."""
        return True

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        """Untrained heads, initialised from the trunk's weights. Raises ConfigError for an unknown option."""
        raise TypeError(f"{cls.__name__} is not a head family")

    @classmethod
    def config_for(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> HeadsConfig:
        """Config of untrained heads. Raises ConfigError for an option that the family does not have."""
        known = cls.options | {"draft_vocabulary"}
        if unknown := set(options) - known:
            raise ConfigError(
                f"{cls.family} heads have no option {', '.join(sorted(unknown))}; they have: {', '.join(sorted(known))}."
            )
        size, all_tokens = options.get("draft_vocabulary"), view.unembedding.size
        if size is not None and not 0 < size <= all_tokens:
            raise ConfigError(f"draft_vocabulary is a number of tokens, from 1 to the {all_tokens} of the trunk, not {size}.")
        config = view.config
        return HeadsConfig(cls.family, count, config.model_type, config.hidden_size, config.num_hidden_layers, dict(options))

    def select_inputs(self, hidden_states: HiddenStates) -> Tensor:
        """Inputs of the heads, (batch, seq, width)."""
        raise TypeError(f"{type(self).__name__} is not a head family")

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        """Hidden states of the first heads over whole sequences, normed for the unembedding, (batch, seq, hidden) a head.

        Args:
            hidden: inputs from `select_inputs`, (batch, seq, width).
            input_ids: (batch, seq).
            context: positions, masks and trunk.
            count: number of heads; default: all.
        """
        found = []
        for k in range(self.count if count is None else count):
            # past the end of a row or a segment the token is wrong; no label reads the state there
            tokens = torch.roll(input_ids, -(k + 1), dims=1)
            hidden, state = self.step(k, hidden, tokens, context)
            found.append(state)
        return found

    def step(self, k: int, recurrent_state: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        """Head k of a chained or recursive family at positions i.

        Args:
            k: index of the head, from 0.
            recurrent_state: result of head k - 1, (batch, seq, width); for k = 0 the result of `select_inputs`.
            tokens: tokens at i + k + 1, (batch, seq).
            context: positions i for chained heads, i + k for recursive heads.
        Returns: recurrent state for head k + 1, (batch, seq, width), and the state for the unembedding, (batch, seq, hidden).
        """
        raise TypeError(f"{type(self).__name__} heads have no steps")

    def run_with_mask_tokens(
        self, input_ids: Tensor, context: ForwardContext, count: int | None = None, groups: int | None = None
    ) -> HiddenStates:
        """A forward of the trunk over tokens and groups of mask tokens; all mask tokens come after all tokens.

        Args:
            input_ids: (batch, seq).
            context: positions and masks of (batch, seq + groups * count).
            count: number of mask tokens a group; default: `count` of the heads.
            groups: number of groups a row; default: a group for every token.
        """
        raise TypeError(f"{type(self).__name__} heads have no mask tokens")

    def unembeddings(self, view: TrunkView) -> list[Unembedding]:
        """Unembeddings of the heads: the trunk's, restricted to the reduced vocabulary."""
        shared = view.unembedding
        return [shared if self.draft_tokens is None else shared.restricted(self.draft_tokens)] * self.count

    def set_draft_vocab(self, tokens: Tensor) -> None:
        """Restrict drafts to `tokens`, distinct ids, (tokens,). The trunk verifies with the whole vocabulary."""
        self.draft_tokens = tokens.sort().values
        self.config = replace(self.config, options={**self.config.options, "draft_vocabulary": len(tokens)})

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint: parameters and persistent buffers (biases that balance experts, a reduced vocabulary)."""
        buffers = {name: value for name, value in self.state_dict(keep_vars=True).items() if not isinstance(value, nn.Parameter)}
        return dict(self.named_parameters()) | buffers

    def checkpoint_names(self) -> dict[str, str]:
        """Name in `checkpoint_tensors` -> name on disk."""
        return {name: name for name in self.checkpoint_tensors()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `headway.json` and `headway.safetensors`, completely or not at all."""
        with replacing_folder(folder) as temporary:
            self.write_files(temporary)

    def write_files(self, folder: Path) -> None:
        """Write `headway.json` and `headway.safetensors` into `folder`."""
        names = self.checkpoint_names()
        tensors, metadata = to_safetensors({names[name]: value.detach().cpu() for name, value in self.checkpoint_tensors().items()})
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        save_file(tensors, folder / TENSORS_FILE, metadata={"format": "pt", **metadata})
        write_json(folder / CONFIG_FILE, asdict(self.config))

    def read_tensors(self, folder: Path) -> None:
        """Fill `checkpoint_tensors` from disk; quantised tensors stay quantised.

        Raises: CheckpointError if a tensor is missing or of another shape.
        """
        path = folder / TENSORS_FILE
        try:
            with safe_open(path, framework="pt") as file:
                found = from_safetensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
                names = self.checkpoint_names()
                for name, parameter in self.checkpoint_tensors().items():
                    on_disk = names[name]
                    if on_disk not in found:
                        raise CheckpointError(f"{path} has no tensor {on_disk}, which a {self.family} head needs.")
                    value = found[on_disk]
                    if value.shape != parameter.shape:
                        raise CheckpointError(
                            f"{path}: {on_disk} is {tuple(value.shape)}, but this trunk needs {tuple(parameter.shape)}."
                        )
                    if is_quantized(value):
                        owner, _, last = name.rpartition(".")
                        quantized = nn.Parameter(value.to(parameter.device), requires_grad=False)
                        setattr(self.get_submodule(owner), last, quantized)
                    else:
                        parameter.data.copy_(value)
        except (SafetensorError, FileNotFoundError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}. Save the heads again.") from error


def read_config(folder: Path) -> HeadsConfig:
    """Contents of `headway.json`, of this version of the format or earlier.

    Raises: CheckpointError if the file is missing, damaged, or written by a newer Headway.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no heads: {CONFIG_FILE} is missing.")
    values = read_json(path)
    version = values.get("version", 1)
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer Headway: its format is version {version}, and this Headway reads up to {VERSION}. "
            "Install a newer Headway."
        )
    if unknown := sorted(set(values) - {item.name for item in fields(HeadsConfig)}):
        raise CheckpointError(f"{path} is damaged: Headway does not know its setting {', '.join(unknown)}.")
    kinds = {"family": str, "count": int, "architecture": str, "hidden_size": int, "layers": int}
    optional = {"options": dict, "training": dict, "version": int}
    for name, kind in (kinds | {name: kind for name, kind in optional.items() if name in values}).items():
        if not isinstance(values.get(name), kind) or isinstance(values[name], bool):
            problem = f"is {values[name]!r}" if name in values else "is missing"
            raise CheckpointError(f"{path} is damaged: its setting {name} {problem}, and must be of type {kind.__name__}.")
    return HeadsConfig(**values)


def check_layer_runs(view: TrunkView) -> None:
    """Raise UnsupportedModelError for a trunk with layers that need more than states, positions and a mask (as BLOOM's)."""
    layer = view.layers[-1]
    like = next(layer.parameters())
    hidden = torch.zeros(1, 2, view.config.hidden_size, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad():
            view.norm(view.run_layer(layer, hidden, torch.arange(2, device=like.device)[None], None))
    except UnsupportedModelError:
        raise
    except Exception as error:  # another library's code: a layer that lacks something raises any error (KeyError in Beam)
        raise UnsupportedModelError(
            f"A layer of {type(view.model).__name__} cannot be run as a head: {type(error).__name__}: {first_line(error)}"
        ) from error


def copy_layer(layer: nn.Module, index: int) -> nn.Module:
    """Copy of a trunk layer, with weights in full precision, for the entry `index` of a cache."""
    shared = {id(module.config): module.config for module in layer.modules() if hasattr(module, "config")}
    copied = dequantized(copy.deepcopy(layer, dict(shared)))  # shares the config: attention follows the trunk's implementation
    for module in copied.modules():
        if hasattr(module, "layer_idx"):
            setattr(module, "layer_idx", index)  # noqa: B010  nn.Module declares no such attribute
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
    return copied
