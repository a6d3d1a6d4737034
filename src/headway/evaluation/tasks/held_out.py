"""Losses on held-out text, and agreement of the heads with the trunk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headway.data import Collator, Example, load_examples, pack, tokenize_all
from headway.errors import DataError
from headway.evaluation.benchmarks.quantization_effect import quantize_and_compare
from headway.evaluation.benchmarks.speed import timed_prompts
from headway.evaluation.configs import EvalConfig
from headway.evaluation.loading import load_evaluated
from headway.evaluation.prompts import prompt_tokens
from headway.evaluation.results import INLINE, Scored, TaskResult
from headway.evaluation.tasks import TASKS
from headway.model import HeadwayModel
from headway.ops import IGNORE, linear_cross_entropy, shift_labels
from headway.trunk import eval_mode


@dataclass(frozen=True)
class HeldOut:
    """Metrics over held-out tokens. Head k predicts the token k + 1 positions after the trunk's next token.

    losses: nats a token; losses[0] is the trunk's next-token loss, losses[k + 1] the loss of head k.
    agreement: by head, top-1 agreement with the trunk's own prediction of the same token.
    accuracy: by head, share of positions at which the top-1 prediction is the token of the text.
    tokens: number of next-token labels.
    """

    losses: list[float]
    agreement: list[float]
    accuracy: list[float]
    tokens: int


@dataclass(frozen=True, kw_only=True)
class HeldOutResult(TaskResult):
    data: str
    examples: int
    metrics: HeldOut = field(metadata=INLINE)


def score(config: EvalConfig) -> Scored:
    """Held-out metrics of the model, after quantisation if the settings ask for quantisation.

    Raises:
        DataError: no token is left to score.
    """
    model, tokenizer = load_evaluated(config, config.dtype)
    source = config.data or TASKS[config.task].data
    examples = load_examples(source, config.split, config.limit)
    prompts = [prompt_tokens(example, tokenizer) for example in examples]

    def metrics() -> HeldOut:
        return held_out_on(model, tokenizer, examples, config.max_length, config.batch_size)

    effect = None
    if config.quantize == "none":
        measured = metrics()
    else:
        timed = timed_prompts(prompts, config)
        effect, measured = quantize_and_compare(model, config.quantize, metrics, timed, config.timed_tokens)
    result = HeldOutResult(
        model=config.model, task=config.task, data=source, examples=len(examples), quantized=effect, metrics=measured
    )
    return Scored(result, model, prompts)


def held_out_on(
    model: HeadwayModel, tokenizer: Any, examples: Sequence[Example], max_length: int = 512, batch_size: int = 8
) -> HeldOut:
    """Held-out metrics on examples, packed into rows of `max_length` tokens.

    Raises:
        DataError: no token is left to score.
    """
    rows = pack(tokenize_all(examples, tokenizer, max_length)[0], max_length)
    collate = Collator(0)  # a token that every model embeds; no label depends on padding
    metrics = held_out(model, (collate(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)))
    if not metrics.tokens:
        raise DataError(
            f"No token is left to score: each of the {len(examples)} examples is empty or longer than {max_length} tokens. "
            "Raise --max-length or give other data."
        )
    return metrics


@torch.no_grad()
def held_out(model: HeadwayModel, batches: Iterable[dict[str, Tensor]]) -> HeldOut:
    """Held-out metrics on batches of input_ids, labels and segments, all (batch, seq)."""
    count = model.count + 1
    sums, items = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    agreed, correct = torch.zeros(count - 1, dtype=torch.float64), torch.zeros(count - 1, dtype=torch.float64)
    unembeddings = model.unembeddings
    with eval_mode(model):
        for batch in batches:
            ids, labels, segments = (batch[name].to(model.device) for name in ("input_ids", "labels", "segments"))
            states = model(ids, segments).hidden_states
            shifted = [shift_labels(labels, k + 1, segments) for k in range(count)]
            for k, (state, target) in enumerate(zip(states, shifted, strict=True)):
                number = int((target != IGNORE).sum())
                if number:
                    _, means = linear_cross_entropy([state.flatten(0, 1)], [target.flatten()], unembeddings[k], [1.0])
                    sums[k] += float(means[0]) * number
                    items[k] += number
            trunk_top1 = torch.stack([unembeddings[0].logits(row).argmax(-1) for row in states[0]])  # logits of one row at a time
            for k in range(1, count):
                head_top1 = torch.stack([unembeddings[k].logits(row).argmax(-1) for row in states[k]])
                valid = shifted[k] != IGNORE
                same_target = torch.roll(trunk_top1, -k, dims=1)  # the trunk predicts the same token k positions later
                agreed[k - 1] += int(((head_top1 == same_target) & valid).sum())
                correct[k - 1] += int(((head_top1 == shifted[k]) & valid).sum())
    per = items.clamp(min=1)
    return HeldOut((sums / per).tolist(), (agreed / per[1:]).tolist(), (correct / per[1:]).tolist(), int(items[0]))
