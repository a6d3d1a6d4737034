"""Self-speculative decoding: the heads draft, the trunk verifies all drafts of all rows in one forward."""

from headway.decoding.cache import RaggedCache
from headway.decoding.generate import Generation, generate
from headway.decoding.probe import why_not_exact
from headway.decoding.stats import DecodeStats

__all__ = ["DecodeStats", "Generation", "RaggedCache", "generate", "why_not_exact"]
