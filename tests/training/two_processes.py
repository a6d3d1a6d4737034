"""Run by torchrun: the same fine-tuning on two processes, as copies and as shards."""

import dataclasses
import os
import sys
from pathlib import Path

from headway.training import finetune
from headway.training.configs import FinetuneConfig


def config_of(model: str, data: str, out: Path) -> FinetuneConfig:
    return FinetuneConfig(
        model=model,
        data=data,
        output_dir=out,
        family="sequential",
        num_heads=2,
        max_steps=6,
        batch_size=4,
        max_length=48,
        pack=False,
        learning_rate=5e-3,
        save_steps=3,
        log_steps=1,
        quiet=True,
    )


RUNS = {
    "plain": {},
    "lora": {"lora": True},
    "registers": {"objective": "registers"},
    "medusa": {"family": "medusa"},  # parameters that are no layers
    "eagle3": {"family": "eagle3"},  # steps over keys of the steps before
    "gated-lora": {"family": "gated-lora"},  # adapters on the trunk's layers
    "detached": {"heads_gradient": "detached", "max_grad_norm": 0.5},  # heads clipped by themselves
}


def main(model: str, data: str, out: str) -> None:
    for kind in ("ddp", "fsdp"):
        for name, changes in RUNS.items():
            config = config_of(model, data, Path(out) / f"{kind}-{name}")
            batches = {"batch_size": 1, "gradient_accumulation": 2} if name == "lora" else {"batch_size": 2}
            finetune(dataclasses.replace(config, sharding=kind, **changes, **batches))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # gloo's threads have nothing to say after this
