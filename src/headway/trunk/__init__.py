"""The trunk: layers, norm, unembedding, masks, attention and quantisation of any `PreTrainedModel`."""

from headway.trunk.adapter import ForwardContext, HiddenStates, Masks, StopAfterKVWrite, TrunkView, eval_mode, num_embeddings

__all__ = ["ForwardContext", "HiddenStates", "Masks", "StopAfterKVWrite", "TrunkView", "eval_mode", "num_embeddings"]
