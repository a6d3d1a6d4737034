"""The models of a fine-tuning run: as it started, at each checkpoint that was kept, and as it ended."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from headway import model_path
from headway.data import Example, load_examples
from headway.errors import CheckpointError, ConfigError
from headway.model import HeadwayModel
from headway.training.checkpoints import MARKER, steps_of
from headway.training.configs import FinetuneConfig
from headway.training.loop import CONFIG, read_settings
from headway.training.stages.finetune import cast, freeze, load_model
from headway.training.trainer import WEIGHTS

Load = Callable[[], HeadwayModel]


def stages(run: Path) -> list[tuple[str, str, Load]]:
    """(name, folder, how to load it) in the order of training; a run without checkpoints has only its start and end.

    Raises: CheckpointError where the folder is of no fine-tuning run.
    """
    config = settings_of(run)
    whole = sorted((folder for folder in run.glob("checkpoint-*") if (folder / MARKER).is_file()), key=steps_of)
    found: list[tuple[str, str, Load]] = [("start", model_path(config.model), partial(saved, config.model))]
    found += [(f"step {steps_of(folder)}", str(folder), partial(load_checkpoint, config, folder)) for folder in whole]
    if not whole:  # the last checkpoint of a finished run is its end
        if not (run / "config.json").is_file():
            raise CheckpointError(f"{run} holds neither a whole checkpoint nor a finished model.")
        found.append(("end", str(run), partial(saved, run)))
    return found


def settings_of(run: Path) -> FinetuneConfig:
    """Raises CheckpointError where the folder is of no fine-tuning run."""
    if not (run / CONFIG).is_file():
        raise CheckpointError(f"{run} is no folder of a run: {CONFIG} is missing. Give --models FOLDER ... in its place.")
    try:
        return read_settings(FinetuneConfig, run / CONFIG)
    except ConfigError as error:
        raise CheckpointError(f"{run} is not of `headway finetune` ({error}). Give --models FOLDER ... in its place.") from error


def learnt_by(run: Path) -> list[Example]:
    """The examples that a run learns from."""
    config = settings_of(run)
    return [e for source in config.sources for e in load_examples(source, config.split, config.limit, config.columns)]


def saved(folder: str | Path) -> HeadwayModel:
    return HeadwayModel.from_pretrained(folder).eval()


def load_checkpoint(config: FinetuneConfig, folder: Path) -> HeadwayModel:
    """The model as `headway finetune` would have saved it there: what learnt over what it started with, adapters merged.

    Raises: CheckpointError where the checkpoint is damaged or of another model.
    """
    model = load_model(config)
    dtype = model.trunk.dtype
    cast(model, torch.float32)
    adapters = freeze(config, model)
    try:
        # what an objective learns for itself, such as registers, is no part of the model
        tensors = {name: t for name, t in load_file(folder / WEIGHTS).items() if not name.startswith("objective.")}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}.") from error
    parameters = {f"model.{name}": parameter for name, parameter in model.named_parameters()}
    if unknown := [name for name, tensor in tensors.items() if name not in parameters or tensor.shape != parameters[name].shape]:
        raise CheckpointError(f"{folder} does not fit the model that its run started with: {unknown[0]}.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    if adapters is not None:
        adapters.merge_and_unload()
    cast(model, dtype)
    return model.eval()
