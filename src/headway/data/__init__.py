"""Where examples come from and how they become batches."""

from headway.data.collator import Collator
from headway.data.encoding import Encoded, encode, encode_all, encode_prompt
from headway.data.packing import Row, pack, row_of
from headway.data.sources import Example, load_examples, load_rows
from headway.data.word_problems import word_problems

__all__ = [
    "Collator",
    "Encoded",
    "Example",
    "Row",
    "encode",
    "encode_all",
    "encode_prompt",
    "load_examples",
    "load_rows",
    "pack",
    "row_of",
    "word_problems",
]
