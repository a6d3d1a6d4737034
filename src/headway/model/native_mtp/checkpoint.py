"""MTP layers in a checkpoint folder (DeepSeek-V3, arXiv 2412.19437; GLM-4-MoE; Qwen3-Next; MiMo, arXiv 2505.07608).

The tensors lie among the trunk's own. transformers skips MTP tensors on loading and drops MTP tensors on saving.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from headway.errors import UnsupportedModelError
from headway.files import read_json
from headway.heads.sequential import SequentialHeads
from headway.model.checkpoint_files import checkpoint_files, read_tensors
from headway.model.native_mtp.names import MTP_TENSOR_NAMES, MTPTensorNames


@dataclass(frozen=True)
class NativeMTPCheckpoint:
    """A checkpoint folder with MTP layers; tensors are read on demand."""

    folder: Path
    layout: str  # key of MTP_TENSOR_NAMES
    depth: int  # number of layers of the trunk
    files: Mapping[str, str]  # tensor -> file, of the whole checkpoint

    @property
    def naming(self) -> MTPTensorNames:
        return MTP_TENSOR_NAMES[self.layout]

    @cached_property
    def names(self) -> list[str]:
        """Names of all tensors of the MTP layers."""
        return sorted(name for name in self.files if self.naming.holds(name, self.depth))

    @cached_property
    def tensor_map(self) -> dict[str, tuple[int, str]]:
        """Name on disk -> index of the head and name in the head.

        Raises: UnsupportedModelError for a tensor without a counterpart in the heads.
        """
        found = {name: self.naming.from_checkpoint_name(name, self.depth) for name in self.names}
        if unknown := [name for name, target in found.items() if target is None]:
            raise UnsupportedModelError(f"Headway does not know {unknown[0]} among the MTP layers in {self.folder}.")
        return {name: target for name, target in found.items() if target is not None}

    @cached_property
    def count(self) -> int:
        """Number of MTP layers."""
        return max(k for k, _ in self.tensor_map.values()) + 1

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and value of the tensors in `names`. Raises CheckpointError if a file is missing or damaged."""
        return read_tensors(self.folder, self.files, names)


@dataclass(frozen=True)
class Provenance:
    """Heads read from a checkpoint's MTP layers, with the details that saving has to restore."""

    checkpoint: NativeMTPCheckpoint
    heads: SequentialHeads
    dtypes: Mapping[str, torch.dtype]  # tensors stored in another dtype than most
    untied_copies: frozenset[str]  # copies of embedding or unembedding that differ from the trunk's, stored unchanged


def find_native_mtp(folder: str | Path) -> NativeMTPCheckpoint | None:
    """MTP layers in a folder, recognised by the names of their projections; None without MTP layers or without the folder.

    Raises: CheckpointError if config or tensor files are damaged.
    """
    if not str(folder):
        return None
    folder = Path(folder).resolve()
    if not folder.is_dir() or not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    depth = (config.get("text_config") or config).get("num_hidden_layers")
    if depth is None:
        return None
    files = checkpoint_files(folder)
    for name, naming in MTP_TENSOR_NAMES.items():
        if any((naming.from_checkpoint_name(tensor, depth) or (0, ""))[1] == "eh_proj.weight" for tensor in files):
            return NativeMTPCheckpoint(folder, name, depth, files)
    return None
