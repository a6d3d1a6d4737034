"""Settings of the training verbs. Importing this is fast: no torch, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headway.config import at_least, field
from headway.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What all stages share. Raises ConfigError where a number is out of range or settings contradict."""

    data: list[str] | str = field(
        help="what to learn from: gsm8k, stdlib, word-problems[:level], files, folders, mixtures (.yaml) or hub ids"
    )
    output_dir: Path = field(help="folder to write; its checkpoints are continued")
    split: str = field("train", help="split of hub and preset data sets")
    limit: int | None = field(None, help="use only this many examples of each source")
    columns: dict[str, str] | None = field(None, help="names of the data's own columns, as {prompt: question}")
    validation: str | None = field(None, help="data whose loss is measured at every save and at the end")
    validation_split: str = field("test", help="split of the validation data, where it has several")
    max_steps: int | None = field(None, help="optimiser steps; overrides epochs")
    epochs: float = field(1.0, help="passes over the data")
    batch_size: int = field(8, help="rows in one forward pass of one process")
    gradient_accumulation: int = field(1, help="forward passes in one optimiser step")
    learning_rate: float = field(2e-5, help="peak learning rate")
    warmup_ratio: float = field(0.03, help="share of the steps in which the learning rate rises")
    lr_scheduler: Literal["cosine", "constant", "linear"] = field("cosine", help="learning rate after the warm-up")
    weight_decay: float = field(0.01, help="of matrices; norms and biases have none")
    beta2: float = field(0.999, help="AdamW's second moment decay")
    max_grad_norm: float = field(1.0, help="largest gradient norm; 0 switches clipping off")
    max_length: int = field(512, help="tokens in a row; longer documents are cut")
    pack: bool = field(True, help="fill rows with several whole documents, which do not see each other")
    denoising: Literal["none", "ul2", "prefix-lm"] = field(
        "none", help="text with holes to fill (ul2, a mixture), or split into what is read and what is learnt (prefix-lm)"
    )
    denoising_tokens: Literal["special", "text"] = field(
        "special", help="of ul2: modes and holes are tokens of their own, added where missing, or spelt in ordinary ones"
    )
    denoising_sequential: float = field(1 / 7, help="of ul2: share of documents that are just continued")
    bidirectional_prefix: bool = field(False, help="of denoising: what is only read is seen both ways; decoding never does so")
    bf16: bool = field(False, help="compute in bfloat16; weights and optimiser stay in float32")
    gradient_checkpointing: bool = field(False, help="recompute layers in the backward pass: less memory, more time")
    sharding: Literal["ddp", "fsdp"] = field("ddp", help="under torchrun: copies of the model (ddp) or shards (fsdp)")
    seed: int = field(0, help="of initialisation, data order and dropout")
    save_steps: int = field(500, help="steps between checkpoints")
    save_limit: int = field(2, help="how many checkpoints to keep, the last ones; 0 keeps all")
    log_steps: int = field(10, help="steps between lines of the log")
    resume: bool = field(True, help="continue from the newest whole checkpoint in `output_dir`; else delete them and start over")
    report_to: Literal["none", "tensorboard", "wandb"] = field("none", help="where the log goes besides history.json")
    quiet: bool = field(False, help="no progress bar")

    def __post_init__(self) -> None:
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
        if not 0 <= self.denoising_sequential <= 1:
            raise ConfigError(f"denoising_sequential is a share, from 0 to 1, got {self.denoising_sequential}.")
        if self.bidirectional_prefix and self.denoising == "none":
            raise ConfigError("bidirectional_prefix is of denoising, and denoising is none: set ul2 or prefix-lm.")
        if not self.sources:
            raise ConfigError("data names nothing to learn from.")

    @property
    def sources(self) -> list[str]:
        return [self.data] if isinstance(self.data, str) else list(self.data)

    @property
    def heads_lr(self) -> float:
        return self.learning_rate


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """A Llama-architecture model from scratch; the defaults are the embedded model's."""

    tokenizer: str = field(help="folder or hub id of the tokenizer")
    hidden_size: int = field(192, help="width of the model")
    layers: int = field(6, help="number of layers")
    attention_heads: int = field(6, help="attention heads in a layer")
    key_value_heads: int = field(2, help="key-value heads in a layer")
    intermediate_size: int = field(512, help="width inside a layer's MLP")
    tie: bool = field(True, help="one matrix for embedding and unembedding")
    learning_rate: float = field(2e-3, help="peak learning rate")
    batch_size: int = field(16, help="rows in one forward pass of one process")
    beta2: float = field(0.95, help="AdamW's second moment decay")
    weight_decay: float = field(0.1, help="of matrices; norms and biases have none")
    bf16: bool = field(True, help="compute in bfloat16; weights and optimiser stay in float32")


@dataclass(frozen=True, kw_only=True)
class HeadsTrainConfig(TrainingConfig):
    """Heads learn, the trunk stays as it is. What is None is filled in by a recipe (`headway.training.recipes`) before training."""

    model: str = field(help="folder or hub id of the model to put heads on, or `embedded`")
    heads: str | None = field(None, help="train these saved heads on, instead of fresh ones")
    family: str | None = field(
        None, help="family of fresh heads, see --list-recipes (none: the MTP layers that the model ships with, else parallel)"
    )
    num_heads: int | None = field(None, help="number of heads (none: as many fresh ones as the recipe says, or all saved ones)")
    options: dict[str, Any] | None = field(None, help="options of the family, such as {linear: true} or {shared: true}")
    recipe: str | None = field(None, help="published recipe that fills in what is not given (none: that of the heads' family)")
    objective: Literal["multi-token", "distillation"] = field(None, help="labels, or the trunk's distribution (none: the recipe's)")
    head_weights: Literal["constant", "medusa", "beta"] = field(None, help="1, 0.8^k, or normalised beta^k (none: the recipe's)")
    beta: float = field(None, help="of head_weights=beta (none: the recipe's)")
    feature_weight: float = field(None, help="of the distance of heads' states from the trunk's later ones (none: the recipe's)")
    learning_rate: float = field(None, help="peak learning rate of the heads (none: the recipe's)")
    warmup_ratio: float = field(None, help="share of the steps in which the learning rate rises (none: the recipe's)")
    lr_scheduler: Literal["cosine", "constant", "linear"] = field(None, help="learning rate after the warm-up (none: the recipe's)")
    weight_decay: float = field(None, help="of matrices; norms and biases have none (none: the recipe's)")
    beta2: float = field(None, help="AdamW's second moment decay (none: the recipe's)")
    max_grad_norm: float = field(None, help="largest gradient norm; 0 switches clipping off (none: the recipe's)")
    draft_vocabulary: int | None = field(
        None,
        help="heads know only so many tokens, those learnt most often, and all special ones (none: all of the trunk's)",
    )
    completion_only: bool = field(False, help="learn completions only, where the data has prompts")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "num_heads", "draft_vocabulary")
        if "draft_vocabulary" in (self.options or {}):
            raise ConfigError("draft_vocabulary is no option of a family here but a setting: which tokens is counted in the data.")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The model's own samples, for heads to learn from. Raises ConfigError where settings are out of range or contradict."""

    model: str = field(help="folder or hub id of the model, or `embedded`; its own heads draft, if it has any")
    data: list[str] | str = field(help="where prompts come from: whatever `headway heads train` learns from")
    output_file: Path = field(help="file to write, .jsonl; what an interrupted run has is kept beside it and gone on with")
    split: str = field("train", help="split of hub and preset data sets")
    limit: int | None = field(None, help="use only this many examples of each source")
    columns: dict[str, str] | None = field(None, help="names of the data's own columns, as {prompt: question}")
    prompt_tokens: int = field(32, help="of texts without prompts: their first so many tokens are the prompt")
    max_prompt_tokens: int | None = field(
        None, help="longer prompts are left out (none: those that leave no room for max_new_tokens in the model's context)"
    )
    max_new_tokens: int = field(256, help="longest sample; what is cut off there is marked, and learnt without an end")
    samples: int = field(1, help="samples of each prompt")
    temperature: float = field(0.3, help="Medusa's for its own samples; 1 is the model's own distribution, 0 takes the likeliest")
    top_p: float = field(1.0, help="draw from the likeliest tokens that together have this probability")
    batch_size: int = field(16, help="rows decoded at once; it changes the speed, not the samples")
    float32: bool = field(False, help="compute in float32, where sums in half precision would let company change a sample")
    seed: int = field(0, help="of the samples: each depends on it, on the number of its prompt and on its own number alone")
    resume: bool = field(True, help="go on with what an interrupted run has; else delete it, and `output_file`, and start over")
    quiet: bool = field(False, help="no progress bar")

    def __post_init__(self) -> None:
        at_least(self, 1, "limit", "prompt_tokens", "max_prompt_tokens", "max_new_tokens", "samples", "batch_size")
        at_least(self, 0, "temperature")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if self.temperature == 0 and self.samples > 1:
            raise ConfigError(f"samples: {self.samples} with temperature: 0 would write the same text again and again.")
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
    """Trunk and heads learn a task together. What a recipe says is None until training begins, as in `HeadsTrainConfig`."""

    model: str = field(help="folder or hub id of the model, or `embedded`; its own heads are used if it has any")
    heads: str | None = field(None, help="folder of trained heads to attach")
    family: str | None = field(None, help="attach fresh heads of this family, see headway heads train --list-recipes")
    num_heads: int | None = field(None, help="number of heads (of saved ones, the first so many)")
    options: dict[str, Any] | None = field(None, help="options of the family of fresh heads")
    recipe: str | None = field(None, help="published recipe that fills in what is not given (none: that of the heads' family)")
    objective: Literal["multi-token", "next-token", "distillation", "registers"] = field("multi-token", help="what is learnt")
    head_weights: Literal["constant", "medusa", "beta"] = field(None, help="1, 0.8^k, or normalised beta^k (none: the recipe's)")
    beta: float = field(None, help="of head_weights=beta (none: the recipe's)")
    feature_weight: float = field(None, help="of the distance of heads' states from the trunk's later ones (none: the recipe's)")
    total_weight: float = field(None, help="factor of all heads' losses (none: the recipe's, which tells fresh heads from trained)")
    weight_schedule: Literal["constant", "sine", "fade-out", "forward", "reverse"] = field(
        None, help="how the total weight changes over the run (none: the recipe's)"
    )
    teacher: Literal["online", "frozen"] = field(
        "online",
        help="for objective distillation: heads learn from the trunk as it learns (online), or trunk and heads learn from the "
        "trunk as it was at the start (frozen)",
    )
    heads_gradient: Literal["joint", "detached", "none"] = field(
        "joint",
        help="joint: losses of heads train the trunk too; detached: heads learn and the trunk learns as if there were no heads; "
        "none: heads do not learn",
    )
    register_offsets: int = field(4, help="of objective registers: the furthest that they look ahead")
    register_weight: float = field(0.3, help="of objective registers: their share of the loss, next-token prediction has the rest")
    register_share: float = field(1.0, help="of objective registers: how many of the tokens that are learnt have one")
    heads_learning_rate: float | None = field(None, help="peak learning rate of the heads (none: 4 times the trunk's)")
    lora: bool = field(False, help="train low-rank adapters of the trunk, merged into it at the end")
    lora_rank: int = field(16, help="rank of the adapters")
    lora_alpha: int = field(32, help="scale of the adapters, divided by their rank")
    freeze_trunk: bool = field(False, help="only the heads learn")
    completion_only: bool = field(True, help="learn completions only, where the data has prompts")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads is not None and self.family is not None:
            raise ConfigError("Give either heads (trained ones) or family (fresh ones), not both.")
        if self.num_heads is not None and self.num_heads < 0:
            raise ConfigError(f"num_heads cannot be negative, got {self.num_heads}.")
        if self.freeze_trunk and (self.lora or self.objective in ("next-token", "registers")):
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
    def heads_lr(self) -> float:
        return 4 * self.learning_rate if self.heads_learning_rate is None else self.heads_learning_rate
