"""Examples from data sources, their tokens, and batches of rows."""

from headway.data.collators import Collator
from headway.data.examples import Chat, Example, Preference, PromptCompletion, Scored, Text, example_of, row_of_example
from headway.data.generated.word_problems import word_problems
from headway.data.load import load_examples
from headway.data.packing import PackedRow, pack, row_of
from headway.data.readers import load_rows
from headway.data.tokenize import Encoded, tokenize, tokenize_all, tokenize_prompt

__all__ = [
    "Chat",
    "Collator",
    "Encoded",
    "Example",
    "PackedRow",
    "Preference",
    "PromptCompletion",
    "Scored",
    "Text",
    "example_of",
    "load_examples",
    "load_rows",
    "pack",
    "row_of",
    "row_of_example",
    "tokenize",
    "tokenize_all",
    "tokenize_prompt",
    "word_problems",
]
