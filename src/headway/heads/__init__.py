"""Head families: modules that predict the tokens after the next token, one family a file, and the table of families."""

from headway.heads.base import CONFIG_FILE, TENSORS_FILE, HeadsConfig, HeadStack, read_config
from headway.heads.eagle import EagleHeads
from headway.heads.eagle3 import Eagle3Heads
from headway.heads.gated_lora import GatedLoraHeads
from headway.heads.hydra import HydraHeads
from headway.heads.medusa import MedusaHeads
from headway.heads.parallel import ParallelHeads
from headway.heads.redrafter import ReDrafterHeads
from headway.heads.sequential import SequentialHeads

FAMILIES: dict[str, type[HeadStack]] = {
    family.family: family
    for family in (
        ParallelHeads,
        SequentialHeads,
        MedusaHeads,
        HydraHeads,
        ReDrafterHeads,
        EagleHeads,
        Eagle3Heads,
        GatedLoraHeads,
    )
}

__all__ = [
    "CONFIG_FILE",
    "FAMILIES",
    "TENSORS_FILE",
    "Eagle3Heads",
    "EagleHeads",
    "GatedLoraHeads",
    "HeadStack",
    "HeadsConfig",
    "HydraHeads",
    "MedusaHeads",
    "ParallelHeads",
    "ReDrafterHeads",
    "SequentialHeads",
    "read_config",
]
