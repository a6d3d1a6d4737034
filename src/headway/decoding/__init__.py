"""Speculative decoding: heads, n-grams or an assistant draft, the trunk verifies all drafts of all rows in one forward."""

from headway.decoding.assistant import assistant_drafter
from headway.decoding.cache import RaggedCache
from headway.decoding.combined import first_of
from headway.decoding.engine import Engine
from headway.decoding.generate import Generation, generate
from headway.decoding.heads_drafter import heads_drafter
from headway.decoding.limited import at_most, drafts_trees
from headway.decoding.ngram import ngram_drafter
from headway.decoding.probe import why_not_exact
from headway.decoding.stats import DecodeStats

__all__ = [
    "DecodeStats",
    "Engine",
    "Generation",
    "RaggedCache",
    "assistant_drafter",
    "at_most",
    "drafts_trees",
    "first_of",
    "generate",
    "heads_drafter",
    "ngram_drafter",
    "why_not_exact",
]
