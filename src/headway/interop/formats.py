"""Formats of heads by name; export and import.

To add a format: a module of this package with `export` and `import_`, and a row of FORMATS. The command line reads the table, so
importing this module must not import torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.config import nearest
from headway.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from headway.interop.report import ConversionReport
    from headway.model import HeadwayModel


@dataclass(frozen=True)
class Format:
    """A row of the table.

    module: module of this package with `export(model, folder, options) -> ConversionReport` and
        `import_(folder, trunk) -> HeadwayModel`; trunk is None for a folder that holds the trunk.
    about: description in a line.
    engines: software that reads the format.
    holds_trunk: True if a folder of this format holds the trunk beside the heads.
    """

    module: str
    about: str
    engines: str
    holds_trunk: bool = False


FORMATS: dict[str, Format] = {
    "transformers": Format(
        "native_mtp",
        "MTP layers among the trunk's own tensors, as DeepSeek-V3 has them",
        "transformers >= 5.20 (generate(use_mtp=True)), vLLM with --model-impl transformers",
        holds_trunk=True,
    ),
    "medusa": Format(
        "medusa",
        "Medusa heads as vLLM reads them; import knows FasterDecoding's and ModelOpt's names too",
        'vLLM up to 0.32 ({"method": "medusa"}; 0.33 dropped Medusa)',
    ),
    "eagle": Format("eagle", "EAGLE-1 drafters as published", 'vLLM ({"method": "eagle"}), SGLang (EAGLE), SafeAILab\'s EAGLE'),
    "eagle3": Format("eagle3", "EAGLE-3 drafters as published", 'vLLM ({"method": "eagle3"}), SGLang (EAGLE3), SafeAILab\'s EAGLE'),
    "speculators": Format(
        "speculators",
        "EAGLE-3 drafters in the format of vllm-project/speculators",
        "vLLM (vllm serve FOLDER, where the verifier is named by its hub id), speculators 0.9 (to train on)",
    ),
}


def format_list() -> str:
    """Table of all formats as text, one format a line."""
    width = max(map(len, FORMATS))
    return "\n".join(f"{name:<{width}}  {row.about}; read by {row.engines}" for name, row in FORMATS.items())


def export(model: "HeadwayModel", to: str, folder: str | Path, options: Mapping[str, Any] | None = None) -> "ConversionReport":
    """Write the model's heads in a format.

    Args:
        to: name of the format.
        folder: folder to write.
        options: options of the format.
    Raises:
        ConfigError: for an unknown format or option.
        UnsupportedModelError: for heads that the format cannot hold.
        CheckpointError: if a tensor would be lost.
    """
    report: ConversionReport = _module(to).export(model, Path(folder), options or {})
    return report


def import_(folder: str | Path, source: str, trunk: str | None = None) -> "HeadwayModel":
    """The model with the heads in a folder.

    Args:
        source: name of the folder's format.
        trunk: folder or hub id of the model for the heads; default: the trunk in the folder.
    Raises:
        ConfigError: for an unknown format.
        CheckpointError: for a folder that is damaged, of another format, or does not fit the trunk.
    """
    from headway.interop.recognition import recognise

    module, layout = _module(source), recognise(folder)
    if layout.get("format", source) != source:
        raise CheckpointError(f"{folder} holds {layout['layout']}: import it --from {layout['format']}.")
    model: HeadwayModel = module.import_(Path(folder), trunk)
    return model


def _module(name: str) -> Any:
    if name not in FORMATS:
        raise ConfigError(f"There is no format {name!r}{nearest(name, FORMATS)}; there are: {', '.join(FORMATS)}.")
    return import_module(f"headway.interop.{FORMATS[name].module}")
