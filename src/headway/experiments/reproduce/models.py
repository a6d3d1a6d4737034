"""Small models from scratch, with the same number of parameters for any number of predicted tokens."""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from headway.errors import ConfigError
from headway.experiments.reproduce.configs import Shape
from headway.model import HeadwayModel

SPECIAL = ("<pad>", "<eos>", "<unk>")


def word_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Tokenizer with a token per word; words are separated by spaces. <pad> is 0, <eos> is 1, <unk> is 2."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def fresh_model(shape: Shape, n: int, vocabulary: int, length: int, seed: int) -> HeadwayModel:
    """Llama with random weights and n - 1 heads of one layer.

    As in the paper (section 2), n - 1 heads replace n - 1 trunk layers, so that the number of parameters does not depend on n.
    Embeddings are untied.

    Args:
        shape: width, attention heads, and the number of layers, heads included.
        n: number of predicted tokens.
        vocabulary: number of tokens in the vocabulary.
        length: maximum number of positions.
        seed: seed of the weights.
    Raises: ConfigError for a shape with fewer than `n` layers.
    """
    if n > shape.layers:
        raise ConfigError(f"A model of {shape.layers} layers cannot predict {n} tokens with one layer each.")
    set_seed(seed)
    trunk = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers - (n - 1),
            num_attention_heads=shape.attention_heads,
            num_key_value_heads=shape.attention_heads,
            intermediate_size=shape.width * 8 // 3 // 8 * 8,
            max_position_embeddings=length,
            initializer_range=shape.width**-0.5,  # for narrow models, 0.02 is a slow start
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    model = HeadwayModel.from_trunk(trunk, "parallel", n - 1)
    randomise_heads(model)
    return model


def randomise_heads(model: HeadwayModel) -> None:
    """Replace the weights of the heads, copies of the trunk's last layer, by random weights as of a new trunk."""
    for head in model.heads.modules() if model.heads is not None else ():
        model.trunk._init_weights(head)


def parameters_beside_embeddings(model: nn.Module) -> int:
    """Number of parameters without embedding and unembedding, as in the paper."""
    return sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name and "lm_head" not in name)
