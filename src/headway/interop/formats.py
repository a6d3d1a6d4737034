"""Formats by name, and the two things one does with them. A format is one file of this room and one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.config import nearest
from headway.errors import CheckpointError, ConfigError
from headway.interop import eagle, eagle3, medusa, native_mtp, speculators
from headway.interop.recognition import recognise
from headway.interop.report import ConversionReport
from headway.model import HeadwayModel


@dataclass(frozen=True)
class Format:
    """One way that others keep heads.

    whole: whether such a folder holds the trunk as well.
    export: (model, folder to write, options) -> what became of each tensor of the heads.
    import_: (folder, trunk to attach to, or None where the folder holds one) -> the model with the heads.
    """

    about: str
    engines: str  # what reads it
    whole: bool
    export: Callable[[HeadwayModel, Path, Mapping[str, Any]], ConversionReport]
    import_: Callable[[Path, str | None], HeadwayModel]


FORMATS: dict[str, Format] = {
    "transformers": Format(native_mtp.ABOUT, native_mtp.ENGINES, True, native_mtp.export, native_mtp.import_),
    "medusa": Format(medusa.ABOUT, medusa.ENGINES, False, medusa.export, medusa.import_),
    "eagle": Format(eagle.ABOUT, eagle.ENGINES, False, eagle.export, eagle.import_),
    "eagle3": Format(eagle3.ABOUT, eagle3.ENGINES, False, eagle3.export, eagle3.import_),
    "speculators": Format(speculators.ABOUT, speculators.ENGINES, False, speculators.export, speculators.import_),
}


def export(model: HeadwayModel, to: str, folder: str | Path, options: Mapping[str, Any] | None = None) -> ConversionReport:
    """Write the model's heads in that format.

    Raises: ConfigError for an unknown format or option, UnsupportedModelError where the format has no place for these heads,
        CheckpointError where a tensor would be lost.
    """
    return _format(to).export(model, Path(folder), options or {})


def import_(folder: str | Path, source: str, trunk: str | None = None) -> HeadwayModel:
    """The model with the heads that a folder of that format holds.

    Args: trunk: folder or hub id of the model to attach them to; default: the one in the folder, where the format has one.
    Raises: ConfigError for an unknown format, CheckpointError where the folder is damaged, of another format, or does not fit.
    """
    one, found = _format(source), recognise(folder)
    if found.get("format", source) != source:
        raise CheckpointError(f"{folder} holds {found['layout']}: import it --from {found['format']}.")
    return one.import_(Path(folder), trunk)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"There is no format {name!r}{nearest(name, FORMATS)}; there are: {', '.join(FORMATS)}.")
    return FORMATS[name]
