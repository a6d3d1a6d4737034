"""MTP layers among a checkpoint's own tensors: names, reading, writing."""
