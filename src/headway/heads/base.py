"""What every head family offers, and the two files that heads live in on disk."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from headway.errors import CheckpointError, UnsupportedModelError
from headway.files import replacing_folder, write_json
from headway.quantization import dequantized, from_safetensors, is_quantized, to_safetensors
from headway.trunk import Masks, Tapped, TrunkView

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
    """Heads 0..count-1; head k at position i predicts the token at i + k + 2 (the trunk predicts i + 1)."""

    family: ClassVar[str]
    sequential: ClassVar[bool]  # whether head k needs the token that head k - 1 predicts

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def count(self) -> int:
        return self.config.count

    @classmethod
    def from_trunk(cls, view: TrunkView, count: int, options: Mapping[str, Any]) -> Self:
        """Fresh heads for that trunk, initialised from its weights."""
        raise TypeError(f"{cls.__name__} is not a head family")

    def reads(self, tapped: Tapped) -> Tensor:
        """Which of the trunk's states the heads read, (batch, seq, hidden)."""
        raise TypeError(f"{type(self).__name__} is not a head family")

    def states(
        self,
        hidden: Tensor,
        input_ids: Tensor,
        position_ids: Tensor,
        masks: Masks,
        view: TrunkView,
        cache: Any = None,
        count: int | None = None,
    ) -> list[Tensor]:
        """States of the first `count` heads (default: all) over whole sequences, each (batch, seq, hidden), normed and ready
        for the unembedding; `hidden` is what `reads` gives."""
        raise TypeError(f"{type(self).__name__} is not a head family")

    def disk_names(self) -> dict[str, str]:
        """Parameter name -> name on disk."""
        return {name: name for name, _ in self.named_parameters()}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `headway.json` and `headway.safetensors`, whole or not at all."""
        with replacing_folder(folder) as temporary:
            self.write_files(temporary)

    def write_files(self, folder: Path) -> None:
        names = self.disk_names()
        tensors, metadata = to_safetensors({names[name]: value.detach().cpu() for name, value in self.named_parameters()})
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        save_file(tensors, folder / TENSORS_FILE, metadata={"format": "pt", **metadata})
        write_json(folder / CONFIG_FILE, asdict(self.config))

    def read_tensors(self, folder: Path) -> None:
        """Fill the parameters from disk, quantised ones as they are; a tensor missing or of another shape is a CheckpointError."""
        path = folder / TENSORS_FILE
        try:
            with safe_open(path, framework="pt") as file:
                found = from_safetensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
                for name, parameter in list(self.named_parameters()):
                    on_disk = self.disk_names()[name]
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


def check_runs(view: TrunkView) -> None:
    """Raise UnsupportedModelError where a layer of this trunk needs more than states, positions and a mask (as BLOOM's does)."""
    layer = view.layers[-1]
    like = next(layer.parameters())
    hidden = torch.zeros(1, 2, view.config.hidden_size, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad():
            view.norm(view.run_layer(layer, hidden, torch.arange(2, device=like.device)[None], None))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedModelError(f"A layer of {type(view.model).__name__} cannot be run as a head: {reason}") from error


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
