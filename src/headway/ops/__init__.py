"""Pure tensor functions: losses, labels, sampling, trees and verification rules."""

from headway.ops.labels import IGNORE, shift_labels
from headway.ops.linear_cross_entropy import SoftTargets, linear_cross_entropy
from headway.ops.linear_log_probs import LogProbs, linear_log_probs
from headway.ops.unembedding import Unembedding

__all__ = [
    "IGNORE",
    "LogProbs",
    "SoftTargets",
    "Unembedding",
    "linear_cross_entropy",
    "linear_log_probs",
    "shift_labels",
]
