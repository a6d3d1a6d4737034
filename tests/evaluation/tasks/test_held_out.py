"""Held-out figures equal those of full logits, position by position."""

import torch

from headway import HeadwayModel
from headway.evaluation.tasks.held_out import held_out
from tests.tiny import tiny_trunk


def test_losses_agreement_and_accuracy_equal_a_walk_over_positions():
    model = HeadwayModel.from_trunk(tiny_trunk(), count=2)
    ids = torch.randint(3, 60, (3, 15), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([[0] * 15, [0] * 8 + [1] * 7, [0] * 12 + [-1] * 3])
    labels = ids.masked_fill(segments < 0, -100)
    found = held_out(model, [{"input_ids": ids, "labels": labels, "segments": segments}])
    with torch.no_grad():
        logits = [model.unembedding.logits(state) for state in model(ids, segments).hidden_states]
    for k in range(3):
        losses, agreed, right = [], [], []
        for r in range(3):
            for i in range(15 - k - 1):
                j = i + k + 1
                if segments[r, i] != segments[r, j] or segments[r, i] < 0:
                    continue
                losses.append(-logits[k][r, i].log_softmax(-1)[ids[r, j]].item())
                guess = logits[k][r, i].argmax()
                agreed.append(bool(guess == logits[0][r, j - 1].argmax()))
                right.append(bool(guess == ids[r, j]))
        assert abs(found.losses[k] - sum(losses) / len(losses)) < 1e-4
        if k:
            assert found.agreement[k - 1] == sum(agreed) / len(agreed)
            assert found.accuracy[k - 1] == sum(right) / len(right)


def test_a_frozen_trunk_stays_in_eval_mode_when_its_heads_are_measured_in_training() -> None:
    model = HeadwayModel.from_trunk(tiny_trunk(), count=1)
    model.train()
    model.trunk.eval()
    ids = torch.arange(3, 11)[None]
    held_out(model, [{"input_ids": ids, "labels": ids, "segments": torch.zeros_like(ids)}])
    assert model.heads is not None and model.heads.training and not any(part.training for part in model.trunk.modules())
