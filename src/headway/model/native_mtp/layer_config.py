"""Settings of MTP layers in a trunk's config, under the names of transformers and of published models."""

from contextlib import AbstractContextManager
from typing import Any

from headway.temporarily import temporarily

COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
KINDS = ("layer_types", "mlp_layer_types")


def declared_counts(config: Any) -> set[int]:
    """Numbers of MTP layers that a (text) config declares; empty without the setting."""
    return {count for name in COUNTS if (count := getattr(config, name, None))}


def mtp_layer_settings(config: Any, count: int) -> dict[str, Any]:
    """Settings that make transformers build `count` MTP layers like the trunk's last layer."""
    settings: dict[str, Any] = {config.attribute_map.get("num_mtp_layers", "num_mtp_layers"): count}
    for kinds in KINDS:
        if getattr(config, kinds, None):
            settings[f"mtp_{kinds}"] = [getattr(config, kinds)[-1]] * count
    return settings


def with_mtp_layer_config(config: Any, count: int) -> AbstractContextManager[None]:
    """Within, a (text) config declares `count` MTP layers like the trunk's last layer."""
    return temporarily(config, **mtp_layer_settings(config, count))


def remove_mtp_layer_config(config: Any) -> None:
    """Remove the MTP layers from a (text) config, for a trunk without MTP layers on disk."""
    for name in COUNTS:
        if name in type(config).attribute_map or hasattr(type(config), name):
            setattr(config, name, 0)
        else:
            vars(config).pop(name, None)
    for kinds in KINDS:
        vars(config).pop(f"mtp_{kinds}", None)
