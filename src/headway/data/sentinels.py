"""Mode tokens and sentinels of denoising: special tokens, or ordinary tokens if the vocabulary must not grow."""

from typing import Literal

from transformers import PreTrainedTokenizerBase

from headway.data.denoising import DenoisingTokens, max_document_length, max_spans
from headway.errors import DataError

# the names of T5's and UL2's tokenizers, so that their checkpoints know the tokens
MODES = {"R": "[NLU]", "S": "[S2S]", "X": "[NLG]"}
SENTINEL = "<extra_id_{}>"


def build_denoising_tokens(
    tokenizer: PreTrainedTokenizerBase, max_length: int, kind: Literal["special", "text"]
) -> DenoisingTokens:
    """Mode tokens, and enough sentinels for a document that fills a row.

    Args:
        tokenizer: with kind "special", missing tokens are added, and the model's embeddings may have to grow to `len(tokenizer)`.
        max_length: tokens of a row.
        kind: "special" for special tokens, "text" for names spelled in ordinary tokens.
    Raises:
        DataError: the tokenizer has no eos token, or a row is too short for any document.
    """
    if tokenizer.eos_token_id is None:
        raise DataError("The tokenizer has no eos token, so nothing could tell the model where a document ends.")
    count = max_spans(max_document_length(max_length, lambda length: length + 2 * max_spans(length) + 2))
    sentinels = [SENTINEL.format(number) for number in range(count)]
    names = [*MODES.values(), *sentinels]
    if kind == "special":
        vocabulary = tokenizer.get_vocab()
        tokenizer.add_tokens([name for name in names if name not in vocabulary], special_tokens=True)
        vocabulary = tokenizer.get_vocab()
        ids = {name: [vocabulary[name]] for name in names}
    else:
        ids = {name: tokenizer(name, add_special_tokens=False)["input_ids"] for name in names}
    tokens = DenoisingTokens(
        {mode: ids[name] for mode, name in MODES.items()},
        [ids[name] for name in sentinels],
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
    )
    if max_document_length(max_length, tokens.max_denoised_length) < 2:
        raise DataError(f"Rows of {max_length} tokens are too short for a text with mode tokens and sentinels: raise max_length.")
    return tokens
