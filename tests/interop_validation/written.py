"""Write tiny drafters in every format, and what Headway computes with them: `python -m tests.interop_validation.written FOLDER`.

Runs in Headway's environment; `read_by_others.py` reads the folder in another.
"""

import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers.utils import logging

from headway import HeadwayModel
from headway.interop import export
from headway.trunk import ForwardContext
from tests.interop.checks import shaken
from tests.tiny import tiny_trunk

STEPS = 3
MODELS = {
    "whole": ({}, None),
    "reduced": ({}, torch.arange(3, 60, 4)),
    "normed": ({"norm_before_residual": True, "layer": {"intermediate_size": 40}}, torch.arange(0, 61, 3)),
}


@torch.no_grad()
def main(folder: Path) -> None:
    torch.manual_seed(0)
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*vLLM wants a hub id")
    ids = torch.randint(3, 60, (1, 24), generator=torch.Generator().manual_seed(1))
    for architecture in ("llama", "qwen3"):
        trunk = folder / architecture
        tiny_trunk(architecture).save_pretrained(trunk)
        for name, (options, tokens) in MODELS.items():
            model = shaken("eagle3", HeadwayModel.from_pretrained(trunk).trunk, STEPS, **options)
            if tokens is not None:
                model.heads.set_draft_vocab(tokens)
            home = folder / f"{architecture}-{name}"
            export(model, "speculators", home / "speculators")
            export(model, "eagle3", home / "eagle3")
            save_file(computed(model, ids), home / "computed.safetensors")
    for family in ("medusa", "eagle"):
        export(shaken(family), family, folder / family)


def computed(model: HeadwayModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a reader is given, and what it should find: logits of each step at each position, and the loss against the trunk.

    The loss is that of EAGLE-3's training: the mean of KL(trunk || drafter) over the positions with a target, summed over steps.
    """
    positions, masks = model.layout(ids)
    hidden_states = model.run(ids, positions, masks)
    states = model.heads.states(model.heads.select_inputs(hidden_states), ids, ForwardContext(model.view, positions, masks))
    logits = [u.known_logits(s)[0] for u, s in zip(model.unembeddings[1:], states, strict=True)]
    shared = model.unembedding
    known = shared if model.heads.draft_tokens is None else shared.restricted(model.heads.draft_tokens)
    targets = known.known_logits(hidden_states.last)[0, 1:]  # at i, what the trunk says of token i + 2
    loss = torch.tensor(0.0)
    for k, each in enumerate(logits):
        drafted = each[: len(targets) - k].log_softmax(-1)
        loss += F.kl_div(drafted, targets[k:].softmax(-1), reduction="batchmean")
    unnormed = []
    hook = model.view.norm.register_forward_pre_hook(lambda _, inputs: unnormed.append(inputs[0]))
    model.run(ids, positions, masks)
    hook.remove()
    read = model.heads.select_inputs(hidden_states)
    return {"ids": ids, "read": read, "unnormed": unnormed[0], "loss": loss, "logits": torch.stack(logits).clone()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
