"""Speculative decoding: heads, n-grams or an assistant draft, and the trunk verifies all drafts of all sequences in one forward."""

from headway.decoding.completing import complete
from headway.decoding.drafters.assistant import assistant_drafter
from headway.decoding.drafters.fallback import fallback_drafter
from headway.decoding.drafters.heads import heads_drafter
from headway.decoding.drafters.limits import limit_draft_tokens, proposes_trees
from headway.decoding.drafters.ngram import ngram_drafter
from headway.decoding.engine import Engine
from headway.decoding.exactness import exactness_issue
from headway.decoding.generate import Generation, generate
from headway.decoding.kv_cache import RaggedKVCache
from headway.decoding.requests import Completion, FinishReason, Handle, Request, SamplingParams
from headway.decoding.stats import DecodeStats

__all__ = [
    "Completion",
    "DecodeStats",
    "Engine",
    "FinishReason",
    "Generation",
    "Handle",
    "RaggedKVCache",
    "Request",
    "SamplingParams",
    "assistant_drafter",
    "complete",
    "exactness_issue",
    "fallback_drafter",
    "generate",
    "heads_drafter",
    "limit_draft_tokens",
    "ngram_drafter",
    "proposes_trees",
]
