"""`HeadwayModel`: a trunk with prediction heads beside it, loading and saving."""

from headway.model.headway_model import HeadwayModel, MTPOutput, best_device, has_heads, load_trunk, positions_of

__all__ = ["HeadwayModel", "MTPOutput", "best_device", "has_heads", "load_trunk", "positions_of"]
