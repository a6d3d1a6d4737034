"""The command `headway` with settings small enough for a test, and otherwise as it was called."""

from headway.cli import main

TRAINING = ["--max-steps", "2", "--batch-size", "2", "--max-length", "128", "--limit", "8", "--quiet"]
REPRODUCED = ["--seeds", "2", "--steps", "2", "--batch-size", "2", "--test-examples", "2"]
FROM_SCRATCH = [*REPRODUCED, "--sizes", "0.05M", "--tokens", "1", "2", "--points", "1"]
SMALL = {
    "pretrain": [*TRAINING, "--hidden-size", "32", "--attention-heads", "2", "--key-value-heads", "2"],
    "heads train": TRAINING,
    "heads distill": ["--limit", "4", "--max-new-tokens", "8", "--quiet"],
    "heads compare": ["--limit", "8", "--prompts", "1", "--test-examples", "4", "--repeats", "1", "--batch-size", "2"],
    "finetune": TRAINING,
    "eval": ["--limit", "4", "--max-new-tokens", "8", "--max-length", "64"],
    "generate": ["--max-new-tokens", "8"],
    "bench plan": ["--heads", "1", "--batches", "1", "--max-new-tokens", "4", "--context", "8", "--repeats", "1"],
    "bench decode": ["--prompts", "4", "--max-new-tokens", "4", "--repeats", "1"],
    "compare": ["--speed-prompts", "1", "--points", "1", "--point-examples", "2"],
    "reproduce induction": FROM_SCRATCH,
    "reproduce polynomial": FROM_SCRATCH,
    "reproduce scale": FROM_SCRATCH,
    "reproduce finetuning": [*REPRODUCED, "--examples", "20"],
    "demo": ["--seeds", "3", "--steps", "2", "--examples", "40", "--test-examples", "4", "--speed-prompts", "1"],
}


def run(words: list[str]) -> int:
    verb = " ".join(words[:2]) if words[0] in ("heads", "bench", "reproduce") else words[0]
    return main([*words, *SMALL.get(verb, [])])
