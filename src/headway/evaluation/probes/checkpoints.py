"""Models of a fine-tuning run: at the start, at the kept checkpoints, and at the end."""

from collections.abc import Callable
from dataclasses import dataclass
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
from headway.training.stages.finetune import cast_parameters, freeze, load_model
from headway.training.trainer import WEIGHTS


@dataclass(frozen=True)
class RunModel:
    """A model of a run: name in tables, folder of the weights, and loader."""

    name: str
    folder: str
    load: Callable[[], HeadwayModel]


def run_models(run: Path) -> list[RunModel]:
    """Models in the order of training. A run without checkpoints has only a start and an end.

    Raises:
        CheckpointError: the folder is of no fine-tuning run.
    """
    config = run_settings(run)
    checkpoints = sorted((folder for folder in run.glob("checkpoint-*") if (folder / MARKER).is_file()), key=steps_of)
    models = [RunModel("start", model_path(config.model), partial(load_saved, config.model))]
    for folder in checkpoints:
        models.append(RunModel(f"step {steps_of(folder)}", str(folder), partial(load_checkpoint, config, folder)))
    if not checkpoints:  # the last checkpoint of a finished run is its end
        if not (run / "config.json").is_file():
            raise CheckpointError(f"{run} holds neither a complete checkpoint nor a finished model.")
        models.append(RunModel("end", str(run), partial(load_saved, run)))
    return models


def run_settings(run: Path) -> FinetuneConfig:
    """The settings of a run. Raises CheckpointError if the folder is of no fine-tuning run."""
    if not (run / CONFIG).is_file():
        raise CheckpointError(f"{run} is no folder of a run: {CONFIG} is missing. Give --models FOLDER ... in its place.")
    try:
        return read_settings(FinetuneConfig, run / CONFIG)
    except ConfigError as error:
        raise CheckpointError(f"{run} is not of `headway finetune` ({error}). Give --models FOLDER ... in its place.") from error


def training_examples(run: Path) -> list[Example]:
    """The training data of a run."""
    config = run_settings(run)
    return [e for source in config.sources for e in load_examples(source, config.split, config.limit, config.columns)]


def load_saved(folder: str | Path) -> HeadwayModel:
    """The model of a folder or hub id, in evaluation mode."""
    return HeadwayModel.from_pretrained(folder).eval()


def load_checkpoint(config: FinetuneConfig, folder: Path) -> HeadwayModel:
    """The model that `headway finetune` would have saved at a checkpoint: trained weights over initial weights, adapters merged.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model.
    """
    model = load_model(config)
    dtype = model.trunk.dtype
    cast_parameters(model, torch.float32)
    adapters = freeze(config, model)
    try:
        # parameters of the objective, such as registers, are no part of the model
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
    cast_parameters(model, dtype)
    return model.eval()
