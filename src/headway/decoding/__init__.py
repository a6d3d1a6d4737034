"""Speculative decoding: heads, n-grams or an assistant draft, and the trunk verifies all drafts of all sequences in one forward.

`headway.decoding.generate.generate` decodes a block of prompts; `HeadwayModel.generate` calls it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.decoding.completing import complete
    from headway.decoding.drafters.assistant import assistant_drafter
    from headway.decoding.drafters.base import DrafterFactory
    from headway.decoding.drafters.fallback import fallback_drafter
    from headway.decoding.drafters.heads import heads_drafter
    from headway.decoding.drafters.limits import limit_draft_tokens, proposes_trees
    from headway.decoding.drafters.ngram import ngram_drafter
    from headway.decoding.engine import Engine
    from headway.decoding.exactness import exactness_issue
    from headway.decoding.generate import Generation
    from headway.decoding.kv_cache import RaggedKVCache
    from headway.decoding.requests import Completion, FinishReason, Handle, Request, SamplingParams
    from headway.decoding.stats import DecodeStats

__all__ = [
    "Completion",
    "DecodeStats",
    "DrafterFactory",
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
    "heads_drafter",
    "limit_draft_tokens",
    "ngram_drafter",
    "proposes_trees",
]
_MODULES = {
    "Completion": "requests",
    "DecodeStats": "stats",
    "DrafterFactory": "drafters.base",
    "Engine": "engine",
    "FinishReason": "requests",
    "Generation": "generate",
    "Handle": "requests",
    "RaggedKVCache": "kv_cache",
    "Request": "requests",
    "SamplingParams": "requests",
    "assistant_drafter": "drafters.assistant",
    "complete": "completing",
    "exactness_issue": "exactness",
    "fallback_drafter": "drafters.fallback",
    "heads_drafter": "drafters.heads",
    "limit_draft_tokens": "drafters.limits",
    "ngram_drafter": "drafters.ngram",
    "proposes_trees": "drafters.limits",
}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; the names of the drafters need neither
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
