"""Settings so small that a run takes a moment."""

from typing import Any

SIZES: dict[str, Any] = {
    "sizes": ["0.05M"],
    "tokens": [1, 2],
    "seeds": 2,
    "steps": 4,
    "batch_size": 2,
    "points": 2,
    "test_examples": 4,
}
