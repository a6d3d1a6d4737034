"""MTP layers that a model's own checkpoint holds: their names, reading, writing."""
