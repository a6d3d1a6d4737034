"""Settings of the training commands. This module imports no torch: `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from headway.config import at_least, choices_from, field
from headway.errors import ConfigError
from headway.objectives import TRUNK_OBJECTIVES

MODEL = "model and heads"
DATA = "data"
DENOISING = "denoising"
OPTIMISATION = "optimisation"
OBJECTIVE = "objective"
LORA = "low-rank adapters"
SAMPLING = "sampling"
HARDWARE = "hardware"
SAVING = "saving and logging"
RECIPE = "from the recipe"  # default of settings that `headway.training.recipes` fills in before training

GenerationConfigChoice = Literal["model", "none"]
GENERATION_CONFIG_HELP = "source of all further settings: the model's generation_config.json, or none for transformers' defaults"
Scheduler = Literal["cosine", "constant", "linear"]
HEAD_WEIGHTS = choices_from("headway.objectives.weights:HEAD_WEIGHTS")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of all stages. Raises ConfigError for a number out of range and for contradicting settings."""

    data: list[str] | str = field(
        help="training data: gsm8k, stdlib, word-problems[:level], files, folders, mixtures (.yaml) or hub ids", group=DATA
    )
    output_dir: Path = field(help="folder to write; a run resumes from its checkpoints there", group=SAVING)
    split: str = field("train", help="split of hub and preset data sets", group=DATA)
    limit: int | None = field(None, help="use only this many examples of each source", default_text="all", group=DATA)
    columns: dict[str, str] | None = field(None, help="names of the data's own columns, as {prompt: question}", group=DATA)
    validation: str | None = field(None, help="data to measure losses on at every save and at the end", group=DATA)
    validation_split: str = field("test", help="split of the validation data", group=DATA)
    max_length: int = field(512, help="tokens in a row; longer texts are cut into several", group=DATA)
    pack: bool = field(True, help="fill a row with several documents, which do not attend to each other", group=DATA)
    max_steps: int | None = field(None, help="optimiser steps; overrides epochs", group=OPTIMISATION)
    epochs: float = field(1.0, help="passes over the data", group=OPTIMISATION)
    batch_size: int = field(8, help="rows in one forward pass of one process", group=OPTIMISATION)
    gradient_accumulation: int = field(1, help="forward passes in one optimiser step", group=OPTIMISATION)
    learning_rate: float | None = field(2e-5, help="peak learning rate", group=OPTIMISATION)
    warmup_ratio: float | None = field(0.03, help="share of the steps during which the learning rate rises", group=OPTIMISATION)
    lr_scheduler: Scheduler | None = field("cosine", help="course of the learning rate after the warm-up", group=OPTIMISATION)
    weight_decay: float | None = field(0.01, help="weight decay of matrices; norms and biases have none", group=OPTIMISATION)
    beta2: float | None = field(0.999, help="AdamW's decay of the second moment", group=OPTIMISATION)
    max_grad_norm: float | None = field(1.0, help="largest norm of the gradient; 0 switches clipping off", group=OPTIMISATION)
    seed: int = field(0, help="seed of initialisation, data order and dropout", group=OPTIMISATION)
    denoising: Literal["none", "ul2", "prefix-lm"] = field(
        "none",
        help="ul2: a mixture of span corruption and continuation; prefix-lm: learn the continuation of a random prefix",
        group=DENOISING,
    )
    denoising_tokens: Literal["special", "text"] = field(
        "special",
        help="for ul2: mode tokens and sentinels are special tokens, added if missing, or spelt in ordinary tokens",
        group=DENOISING,
    )
    ul2_s_denoiser_share: float = field(1 / 7, help="for ul2: share of documents that are only continued", group=DENOISING)
    bidirectional_prefix: bool = field(
        False, help="prefixes attend in both directions while training; decoding stays causal", group=DENOISING
    )
    bf16: bool = field(False, help="compute in bfloat16; weights and optimiser stay in float32", group=HARDWARE)
    gradient_checkpointing: bool = field(
        False, help="recompute layers in the backward pass: less memory, more time", group=HARDWARE
    )
    sharding: Literal["ddp", "fsdp"] = field(
        "ddp", help="under torchrun: a copy of the model in each process (ddp) or a shard (fsdp)", group=HARDWARE
    )
    save_steps: int = field(500, help="steps between checkpoints", group=SAVING)
    save_limit: int = field(2, help="number of latest checkpoints to keep; 0 keeps all", group=SAVING)
    log_steps: int = field(10, help="steps between lines of the log", group=SAVING)
    resume: bool = field(
        True, help="resume from the newest complete checkpoint in output_dir; otherwise delete checkpoints there", group=SAVING
    )
    report_to: Literal["none", "tensorboard", "wandb"] = field("none", help="service that gets the log too", group=SAVING)
    quiet: bool = field(False, help="show no progress bar", group=SAVING)

    FILLED_IN: ClassVar[tuple[str, ...]] = ()  # settings that a recipe fills in

    def __post_init__(self) -> None:
        for name in ("learning_rate", "warmup_ratio", "lr_scheduler", "weight_decay", "beta2", "max_grad_norm"):
            if getattr(self, name) is None and name not in self.FILLED_IN:
                raise ConfigError(f"{name} cannot be none here: no recipe fills it in.")
        for name in ("batch_size", "gradient_accumulation", "save_steps", "log_steps", "max_steps", "limit", "epochs"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be above 0, got {value}.")
        if self.max_length < 2:
            raise ConfigError(f"max_length must be at least 2, got {self.max_length}.")
        for name in ("learning_rate", "weight_decay", "max_grad_norm", "warmup_ratio", "save_limit"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ConfigError(f"{name} cannot be negative, got {value}.")
        if self.warmup_ratio is not None and self.warmup_ratio >= 1:
            raise ConfigError(f"warmup_ratio is a share of all steps, below 1, got {self.warmup_ratio}.")
        if not 0 <= self.ul2_s_denoiser_share <= 1:
            raise ConfigError(f"ul2_s_denoiser_share is a share, from 0 to 1, got {self.ul2_s_denoiser_share}.")
        if self.bidirectional_prefix and self.denoising == "none":
            raise ConfigError("bidirectional_prefix needs denoising: ul2 or prefix-lm.")
        if not self.sources:
            raise ConfigError("data names nothing to learn from.")

    @property
    def sources(self) -> list[str]:
        return [self.data] if isinstance(self.data, str) else list(self.data)

    @property
    def heads_lr(self) -> float | None:
        """Peak learning rate of the heads."""
        return self.learning_rate


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """Settings of a Llama-architecture model from scratch. Defaults made the embedded model."""

    tokenizer: str = field(help="folder or hub id of the tokenizer", group=MODEL)
    hidden_size: int = field(192, help="width of the model", group=MODEL)
    layers: int = field(6, help="number of layers", group=MODEL)
    attention_heads: int = field(6, help="attention heads in a layer", group=MODEL)
    key_value_heads: int = field(2, help="key-value heads in a layer", group=MODEL)
    intermediate_size: int = field(512, help="width of the MLP in a layer", group=MODEL)
    tie: bool = field(True, help="use one matrix for embedding and unembedding", group=MODEL)
    learning_rate: float | None = field(2e-3, help="peak learning rate", group=OPTIMISATION)
    batch_size: int = field(16, help="rows in one forward pass of one process", group=OPTIMISATION)
    beta2: float | None = field(0.95, help="AdamW's decay of the second moment", group=OPTIMISATION)
    weight_decay: float | None = field(0.1, help="weight decay of matrices; norms and biases have none", group=OPTIMISATION)
    bf16: bool = field(True, help="compute in bfloat16; weights and optimiser stay in float32", group=HARDWARE)


@dataclass(frozen=True, kw_only=True)
class HeadsTrainConfig(TrainingConfig):
    """Settings of heads that learn beside a frozen trunk. A recipe (`headway.training.recipes`) replaces None."""

    model: str = field(help="folder or hub id of the trunk, or `embedded`", group=MODEL)
    heads: str | None = field(None, help="folder of pretrained heads to train on; default: randomly initialised heads", group=MODEL)
    family: str | None = field(
        None,
        help="family of randomly initialised heads, see --list-recipes",
        default_text="the model's own MTP layers, else parallel",
        group=MODEL,
    )
    num_heads: int | None = field(
        None, help="number of heads", default_text="all pretrained heads, or from the recipe", group=MODEL
    )
    options: dict[str, Any] | None = field(None, help="options of the family, as {linear: true} or {shared: true}", group=MODEL)
    draft_vocabulary: int | None = field(
        None,
        help="size of a reduced vocabulary of the heads: the most frequent labels, and all special tokens",
        default_text="all tokens of the trunk",
        group=MODEL,
    )
    recipe: str | None = field(
        None,
        help="published recipe with the settings that are not given",
        choices=choices_from("headway.training.recipes:RECIPES"),
        default_text="the recipe of the family",
        group=OBJECTIVE,
    )
    objective: Literal["multi-token", "distillation"] | None = field(
        None,
        help="multi-token: heads learn labels; distillation: heads learn the distribution of the trunk",
        default_text=RECIPE,
        group=OBJECTIVE,
    )
    head_weights: str | None = field(
        None, help="weight of head k: 1, 0.8^k, or beta^k normalised", choices=HEAD_WEIGHTS, default_text=RECIPE, group=OBJECTIVE
    )
    beta: float | None = field(None, help="base of head_weights beta", default_text=RECIPE, group=OBJECTIVE)
    feature_weight: float | None = field(
        None,
        help="weight of the distance between hidden states of heads and later hidden states of the trunk",
        default_text=RECIPE,
        group=OBJECTIVE,
    )
    completion_only: bool = field(False, help="learn completions only, if the data has prompts", group=OBJECTIVE)
    learning_rate: float | None = field(None, help="peak learning rate of the heads", default_text=RECIPE, group=OPTIMISATION)
    warmup_ratio: float | None = field(
        None, help="share of the steps during which the learning rate rises", default_text=RECIPE, group=OPTIMISATION
    )
    lr_scheduler: Scheduler | None = field(
        None, help="course of the learning rate after the warm-up", default_text=RECIPE, group=OPTIMISATION
    )
    weight_decay: float | None = field(
        None, help="weight decay of matrices; norms and biases have none", default_text=RECIPE, group=OPTIMISATION
    )
    beta2: float | None = field(None, help="AdamW's decay of the second moment", default_text=RECIPE, group=OPTIMISATION)
    max_grad_norm: float | None = field(
        None, help="largest norm of the gradient; 0 switches clipping off", default_text=RECIPE, group=OPTIMISATION
    )

    FILLED_IN: ClassVar[tuple[str, ...]] = (
        *("learning_rate", "warmup_ratio", "lr_scheduler", "weight_decay", "beta2", "max_grad_norm"),
        *("objective", "head_weights", "beta", "feature_weight"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "num_heads", "draft_vocabulary")
        if "draft_vocabulary" in (self.options or {}):
            raise ConfigError("draft_vocabulary is a setting, not an option of a family: its tokens are counted in the data.")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Settings of on-policy samples for heads. Raises ConfigError for values out of range and for contradicting settings."""

    model: str = field(help="folder or hub id of the model, or `embedded`; its heads draft, if it has any", group=MODEL)
    data: list[str] | str = field(help="source of the prompts: anything that `headway heads train` takes", group=DATA)
    output_file: Path = field(
        help="file to write, .jsonl; an interrupted run resumes from the samples kept beside it", group=SAVING
    )
    split: str = field("train", help="split of hub and preset data sets", group=DATA)
    limit: int | None = field(None, help="use only this many examples of each source", default_text="all", group=DATA)
    columns: dict[str, str] | None = field(None, help="names of the data's own columns, as {prompt: question}", group=DATA)
    prompt_tokens: int = field(32, help="for texts without prompts: number of first tokens that become the prompt", group=DATA)
    max_prompt_tokens: int | None = field(
        None,
        help="leave out longer prompts",
        default_text="prompts that leave no room for max_new_tokens in the model's context",
        group=DATA,
    )
    max_new_tokens: int = field(
        256, help="longest sample; a sample that is cut off there is marked, and has no end token", group=SAMPLING
    )
    samples: int = field(1, help="samples of each prompt", group=SAMPLING)
    temperature: float = field(
        0.3, help="sampling temperature; 1 is the model's own distribution, 0 is greedy; Medusa samples at 0.3", group=SAMPLING
    )
    top_p: float = field(1.0, help="sample from the most probable tokens that together have this probability", group=SAMPLING)
    generation_config: GenerationConfigChoice = field("model", help=GENERATION_CONFIG_HELP, group=SAMPLING)
    seed: int = field(0, help="seed; a sample depends on it, on the index of its prompt and on its own index alone", group=SAMPLING)
    batch_size: int = field(16, help="prompts decoded together; affects the speed, not the samples", group=HARDWARE)
    float32: bool = field(
        False,
        help="compute in float32; in half precision a sample can depend on the other prompts in its batch",
        group=HARDWARE,
    )
    resume: bool = field(True, help="resume an interrupted run; otherwise delete its samples and output_file", group=SAVING)
    quiet: bool = field(False, help="show no progress bar", group=SAVING)

    def __post_init__(self) -> None:
        at_least(self, 1, "limit", "prompt_tokens", "max_prompt_tokens", "max_new_tokens", "samples", "batch_size")
        at_least(self, 0, "temperature")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if self.temperature == 0 and self.samples > 1:
            raise ConfigError(f"samples: {self.samples} with temperature: 0 would write the same text {self.samples} times.")
        if not self.sources:
            raise ConfigError("data names nothing to take prompts from.")
        if self.output_file.suffix != ".jsonl":
            raise ConfigError(f"output_file is read as training data later, so its name must end in .jsonl: {self.output_file}.")
        if self.output_file.resolve() in [Path(source).resolve() for source in self.sources]:
            raise ConfigError(f"output_file is the data itself, {self.output_file}: choose another.")

    @property
    def sources(self) -> list[str]:
        return [self.data] if isinstance(self.data, str) else list(self.data)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainingConfig):
    """Settings of trunk and heads that learn a task together. A recipe replaces None, as in `HeadsTrainConfig`."""

    model: str = field(help="folder or hub id of the model, or `embedded`; its own heads are used if it has any", group=MODEL)
    heads: str | None = field(None, help="folder of pretrained heads to attach", group=MODEL)
    family: str | None = field(
        None,
        help="attach randomly initialised heads of this family, see headway heads train --list-recipes",
        group=MODEL,
    )
    num_heads: int | None = field(
        None,
        help="number of heads; of pretrained heads, how many of the first to keep",
        default_text="all, or from the recipe",
        group=MODEL,
    )
    options: dict[str, Any] | None = field(None, help="options of the family of randomly initialised heads", group=MODEL)
    freeze_trunk: bool = field(False, help="train only the heads", group=MODEL)
    recipe: str | None = field(
        None,
        help="published recipe with the settings that are not given",
        choices=choices_from("headway.training.recipes:RECIPES"),
        default_text="the recipe of the family",
        group=OBJECTIVE,
    )
    objective: str = field(
        "multi-token", help="loss to minimise", choices=choices_from("headway.objectives:OBJECTIVES"), group=OBJECTIVE
    )
    heads_gradient: Literal["joint", "detached", "none"] = field(
        "joint",
        help="joint: losses of heads train the trunk too; detached: heads learn and the trunk learns as if there were no heads; "
        "none: heads do not learn",
        group=OBJECTIVE,
    )
    head_weights: str | None = field(
        None, help="weight of head k: 1, 0.8^k, or beta^k normalised", choices=HEAD_WEIGHTS, default_text=RECIPE, group=OBJECTIVE
    )
    beta: float | None = field(None, help="base of head_weights beta", default_text=RECIPE, group=OBJECTIVE)
    feature_weight: float | None = field(
        None,
        help="weight of the distance between hidden states of heads and later hidden states of the trunk",
        default_text=RECIPE,
        group=OBJECTIVE,
    )
    total_weight: float | None = field(
        None,
        help="factor of the losses of all heads",
        default_text="from the recipe, by whether heads are pretrained",
        group=OBJECTIVE,
    )
    weight_schedule: str | None = field(
        None,
        help="course of the total weight over the run",
        choices=choices_from("headway.objectives.weights:SCHEDULES"),
        default_text=RECIPE,
        group=OBJECTIVE,
    )
    teacher: Literal["online", "frozen"] = field(
        "online",
        help="for objective distillation: heads learn from the trunk as it learns (online), or trunk and heads learn from the "
        "trunk as it was at the start (frozen)",
        group=OBJECTIVE,
    )
    register_offsets: int = field(4, help="for objective registers: largest offset that a register predicts", group=OBJECTIVE)
    register_weight: float = field(
        0.3, help="for objective registers: their share of the loss; next-token prediction has the rest", group=OBJECTIVE
    )
    register_share: float = field(1.0, help="for objective registers: share of the labels that have a register", group=OBJECTIVE)
    completion_only: bool = field(True, help="learn completions only, if the data has prompts", group=OBJECTIVE)
    heads_learning_rate: float | None = field(
        None, help="peak learning rate of the heads", default_text="4 times learning_rate", group=OPTIMISATION
    )
    lora: bool = field(False, help="train low-rank adapters of the trunk, merged into it at the end", group=LORA)
    lora_rank: int = field(16, help="rank of the adapters", group=LORA)
    lora_alpha: int = field(32, help="scale of the adapters, divided by their rank", group=LORA)

    FILLED_IN: ClassVar[tuple[str, ...]] = ("head_weights", "beta", "feature_weight", "total_weight", "weight_schedule")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads is not None and self.family is not None:
            raise ConfigError("Give either heads (pretrained) or family (randomly initialised), not both.")
        if self.num_heads is not None and self.num_heads < 0:
            raise ConfigError(f"num_heads cannot be negative, got {self.num_heads}.")
        if self.freeze_trunk and (self.lora or self.objective in TRUNK_OBJECTIVES):
            other = "lora" if self.lora else f"objective: {self.objective}"
            raise ConfigError(f"freeze_trunk and {other} contradict each other: nothing of the trunk could learn.")
        if self.freeze_trunk and self.heads_gradient == "none":
            raise ConfigError("freeze_trunk and heads_gradient: none contradict each other: nothing could learn.")
        if self.teacher == "frozen" and (self.objective != "distillation" or self.freeze_trunk):
            raise ConfigError("teacher: frozen needs objective: distillation and a trunk that learns.")
        if self.register_offsets < 1:
            raise ConfigError(f"register_offsets must be at least 1, got {self.register_offsets}.")
        if not 0 < self.register_weight < 1:
            raise ConfigError(f"register_weight must lie between 0 and 1, got {self.register_weight}.")
        if not 0 < self.register_share <= 1:
            raise ConfigError(f"register_share must be above 0 and at most 1, got {self.register_share}.")
        if self.lora_rank < 1:
            raise ConfigError(f"lora_rank must be at least 1, got {self.lora_rank}.")

    @property
    def heads_lr(self) -> float | None:
        if self.heads_learning_rate is not None or self.learning_rate is None:
            return self.heads_learning_rate
        return 4 * self.learning_rate
