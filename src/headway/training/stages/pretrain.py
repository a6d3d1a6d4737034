"""A small Llama-architecture model from scratch: the recipe of the embedded model's trunk."""

from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, set_seed

from headway.errors import ConfigError
from headway.model import HeadwayModel, load_tokenizer
from headway.objectives import NextToken
from headway.training.configs import PretrainConfig
from headway.training.datasets import build_dataset, build_validation_dataset
from headway.training.denoising import resize_embeddings_for
from headway.training.distributed import gather
from headway.training.loop import run, save_run


def pretrain(config: PretrainConfig) -> Path:
    """Train a randomly initialised model on packed documents and save it as an ordinary Hugging Face folder. Returns the folder.

    Raises:
        ConfigError: shapes do not fit together.
        CheckpointError: the tokenizer cannot be loaded.
        DataError: the data cannot be read.
        HeadwayError, KeyboardInterrupt: as `run`.
    """
    tokenizer = load_tokenizer(config.tokenizer)
    set_seed(config.seed)
    rows = build_dataset(config, tokenizer, cache=Path(config.output_dir) / "cache")
    validation = build_validation_dataset(config, tokenizer)
    model = HeadwayModel.from_trunk(fresh_trunk(config, tokenizer), count=0)
    resize_embeddings_for(rows, model, tokenizer)
    trainer = run(config, model, NextToken(), rows, validation)
    gather(trainer.step)
    model.eval()
    return save_run(config, trainer, model, tokenizer, {"stage": "pretrain", "objective": "next-token"})


def fresh_trunk(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Randomly initialised Llama in float32 with the vocabulary of the tokenizer."""
    if config.hidden_size % config.attention_heads or config.attention_heads % config.key_value_heads:
        raise ConfigError(
            f"hidden_size {config.hidden_size}, attention_heads {config.attention_heads} and key_value_heads "
            f"{config.key_value_heads}: each must be a multiple of the next."
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.attention_heads,
            num_key_value_heads=config.key_value_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=max(config.max_length, 2048),
            tie_word_embeddings=config.tie,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
