"""What every head family offers, and the two files that heads live in on disk."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from headway.errors import CheckpointError, ConfigError, UnsupportedModelError, first_line
from headway.files import replacing_folder, write_json
from headway.ops import Unembedding
from headway.trunk import ForwardContext, HiddenStates, TrunkView
from headway.trunk.quantization import dequantized, from_safetensors, is_quantized, to_safetensors

CONFIG_FILE = "headway.json"
TENSORS_FILE = "headway.safetensors"


@dataclass(frozen=True)
class HeadsConfig:
    """What `headway.json` says: the heads, and the trunk they fit."""

    family: str
    count: int
    architecture: str  # model_type of the trunk
    hidden_size: int
    layers: int  # of the trunk
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)  # how they were trained, for the reader
    version: int = 1

    @property
    def default_draft_vocab(self) -> Tensor | None:
        """As many tokens as a reduced vocabulary has, until it is known which."""
        size = self.options.get("draft_vocabulary")
        return None if size is None else torch.arange(size)

    def check_fits(self, view: TrunkView, source: str) -> None:
        """Raise CheckpointError, naming both sides, unless these heads fit that trunk."""
        ours = (self.architecture, self.hidden_size)
        theirs = (view.config.model_type, view.config.hidden_size)
        if ours != theirs:
            raise CheckpointError(
                f"The heads in {source} were made for a {ours[0]} trunk of width {ours[1]}, but this trunk is "
                f"{theirs[0]} of width {theirs[1]}. Use heads of the same architecture and width, or train new ones."
            )


class HeadStack(nn.Module):
    """Heads 0..count-1; head k at position i predicts the token at i + k + 2 (the trunk predicts i + 1).

    Heads are drafted with (`headway.decoding`) in one of these ways:
        parallel: all at once; head k at i depends on the text up to i alone.
        chained: head k at i reads head k - 1 at i and the token at i + k + 1, and attends to head k at earlier positions.
        recursive: head k goes on from what head k - 1 carried and the token that followed, as if it stood at i + k;
            it attends to nothing, or to the text up to i and to the drafts it goes on from.
        masked: recursive, and what head 0 starts from are the trunk's own states of mask tokens behind i.
    """

    family: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()  # beside those that all families have
    drafting: ClassVar[Literal["parallel", "chained", "recursive", "masked"]]
    predicts_hidden_states: ClassVar[bool] = False  # head k's state at i is of the kind of the trunk's last state at i + k + 1
    draft_tokens: Tensor | None  # of a reduced vocabulary: which the heads know, (tokens,), ascending

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("draft_tokens", config.default_draft_vocab)

    @property
    def count(self) -> int:
        return self.config.count

    @property
    def hidden_state_layers(self) -> tuple[int, ...]:
        """The trunk's layers whose input `select_inputs` needs."""
        return ()

    @property
    def attends(self) -> bool:
        """Whether heads look at other positions; where they do not, drafting keeps nothing of them."""
        return True

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        """Fresh heads for that trunk, initialised from its weights. Raises ConfigError for an option that the family has not."""
        raise TypeError(f"{cls.__name__} is not a head family")

    @classmethod
    def config_for(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> HeadsConfig:
        """What `from_trunk` writes down. Raises ConfigError for an option that the family does not have."""
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
        """What the heads start from, (batch, seq, width)."""
        raise TypeError(f"{type(self).__name__} is not a head family")

    def states(self, hidden: Tensor, input_ids: Tensor, context: ForwardContext, count: int | None = None) -> list[Tensor]:
        """States of the first `count` heads (default: all) over whole sequences, each (batch, seq, hidden), normed and ready
        for the unembedding; `hidden` is what `select_inputs` gives."""
        found = []
        for k in range(self.count if count is None else count):
            # past the end of a row or a segment the token is a wrong one: no label reads those positions
            tokens = torch.roll(input_ids, -(k + 1), dims=1)
            hidden, state = self.step(k, hidden, tokens, context)
            found.append(state)
        return found

    def step(self, k: int, carried: Tensor, tokens: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor]:
        """Head k of a chained or recursive family at positions i, given the token at i + k + 1.

        Args: carried: what head k - 1 carried on, for k = 0 what `select_inputs` gives, (batch, seq, width); tokens (batch, seq);
            context: at i where heads are chained, at i + k where they are recursive.
        Returns: what head k + 1 goes on from, (batch, seq, width), and the state that its unembedding reads.
        """
        raise TypeError(f"{type(self).__name__} heads have no steps")

    def run_with_mask_tokens(
        self, input_ids: Tensor, context: ForwardContext, count: int | None = None, groups: int | None = None
    ) -> HiddenStates:
        """One pass of the trunk over tokens and, behind all of them, groups of the first `count` mask tokens.

        Args:
            input_ids: (batch, seq). context: of (batch, seq + groups * count).
            groups: in a row; default: one for each token.
        """
        raise TypeError(f"{type(self).__name__} heads have no mask tokens")

    def unembeddings(self, view: TrunkView) -> list[Unembedding]:
        """What each head's states are read through to choose a token: the trunk's, or what a reduced vocabulary leaves of it."""
        shared = view.unembedding
        return [shared if self.draft_tokens is None else shared.restricted(self.draft_tokens)] * self.count

    def set_draft_vocab(self, tokens: Tensor) -> None:
        """Let the heads know these tokens alone; (tokens,), all different. What they draft is verified by the whole trunk."""
        self.draft_tokens = tokens.sort().values
        self.config = replace(self.config, options={**self.config.options, "draft_vocabulary": len(tokens)})

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: parameters, what layers of the trunk's kind keep beside them (the biases that balance experts),
        and the tokens of a reduced vocabulary."""
        buffers = {name: value for name, value in self.state_dict(keep_vars=True).items() if not isinstance(value, nn.Parameter)}
        return dict(self.named_parameters()) | buffers

    def checkpoint_names(self) -> dict[str, str]:
        """Name of what is kept -> name on disk."""
        return {name: name for name in self.checkpoint_tensors()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `headway.json` and `headway.safetensors`, whole or not at all."""
        with replacing_folder(folder) as temporary:
            self.write_files(temporary)

    def write_files(self, folder: Path) -> None:
        names = self.checkpoint_names()
        tensors, metadata = to_safetensors({names[name]: value.detach().cpu() for name, value in self.checkpoint_tensors().items()})
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        save_file(tensors, folder / TENSORS_FILE, metadata={"format": "pt", **metadata})
        write_json(folder / CONFIG_FILE, asdict(self.config))

    def read_tensors(self, folder: Path) -> None:
        """Fill what is kept from disk, quantised ones as they are; a tensor missing or of another shape is a CheckpointError."""
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
    """Read `headway.json`. Raises CheckpointError where it is missing or not what Headway writes."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no heads: {CONFIG_FILE} is missing.")
    try:
        return HeadsConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged or of another version: {error}.") from error


def check_layer_runs(view: TrunkView) -> None:
    """Raise UnsupportedModelError where a layer of this trunk needs more than states, positions and a mask (as BLOOM's does)."""
    layer = view.layers[-1]
    like = next(layer.parameters())
    hidden = torch.zeros(1, 2, view.config.hidden_size, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad():
            view.norm(view.run_layer(layer, hidden, torch.arange(2, device=like.device)[None], None))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"A layer of {type(view.model).__name__} cannot be run as a head: {first_line(error)}"
        ) from error


def copy_layer(layer: nn.Module, index: int) -> nn.Module:
    """A copy of a trunk layer, with weights in full precision, that uses its own entry `index` of a cache."""
    shared = {id(module.config): module.config for module in layer.modules() if hasattr(module, "config")}
    copied = dequantized(copy.deepcopy(layer, dict(shared)))  # attends as the trunk does, whatever it is switched to
    for module in copied.modules():
        if hasattr(module, "layer_idx"):
            setattr(module, "layer_idx", index)  # noqa: B010  nn.Module declares no such attribute
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
    return copied
