"""Decoding with foresight: the trunk's own output in fewer passes."""

from headway.decoding.cache import RaggedCache
from headway.decoding.generate import Generation, generate
from headway.decoding.probe import can_be_served
from headway.decoding.stats import DecodeStats

__all__ = ["DecodeStats", "Generation", "RaggedCache", "can_be_served", "generate"]
