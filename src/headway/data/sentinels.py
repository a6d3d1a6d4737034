"""Which tokens stand for the modes and holes of denoising: special ones, or plain text where the vocabulary must not grow."""

from typing import Literal

from transformers import PreTrainedTokenizerBase

from headway.data.denoising import Marks, longest, most_spans
from headway.errors import DataError

# the names in the tokenizers of T5 and UL2, whose checkpoints know them already
MODES = {"R": "[NLU]", "S": "[S2S]", "X": "[NLG]"}
SENTINEL = "<extra_id_{}>"


def marks_of(tokenizer: PreTrainedTokenizerBase, length: int, kind: Literal["special", "text"]) -> Marks:
    """Modes and as many sentinels as a document that fills a row of `length` tokens may need.

    special: the tokenizer's own, or added to it: the model's embeddings may then have to grow to `len(tokenizer)`.
    text: spelt in the tokenizer's ordinary tokens, several each.

    Raises: DataError if the tokenizer has no eos token, or a row is too short for any document.
    """
    if tokenizer.eos_token_id is None:
        raise DataError("The tokenizer has no eos token, so nothing could tell the model where a document ends.")
    most = most_spans(longest(length, lambda size: size + 2 * most_spans(size) + 2))
    names = [SENTINEL.format(number) for number in range(most)]
    if kind == "special":
        vocabulary = tokenizer.get_vocab()
        tokenizer.add_tokens([name for name in [*MODES.values(), *names] if name not in vocabulary], special_tokens=True)
        vocabulary = tokenizer.get_vocab()
        spelt = {name: [vocabulary[name]] for name in [*MODES.values(), *names]}
    else:
        spelt = {name: tokenizer(name, add_special_tokens=False)["input_ids"] for name in [*MODES.values(), *names]}
    marks = Marks(
        {mode: spelt[name] for mode, name in MODES.items()},
        [spelt[name] for name in names],
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
    )
    if longest(length, marks.grown) < 2:
        raise DataError(f"Rows of {length} tokens are too short to hold a text beside its modes and holes: raise length.")
    return marks
