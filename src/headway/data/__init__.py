"""Where examples come from and how they become batches."""

from headway.data.collators import Collator
from headway.data.generated.word_problems import word_problems
from headway.data.packing import PackedRow, pack, row_of
from headway.data.readers import Example, load_examples, load_rows
from headway.data.tokenize import Encoded, encode, encode_all, encode_prompt

__all__ = [
    "Collator",
    "Encoded",
    "Example",
    "PackedRow",
    "encode",
    "encode_all",
    "encode_prompt",
    "load_examples",
    "load_rows",
    "pack",
    "row_of",
    "word_problems",
]
