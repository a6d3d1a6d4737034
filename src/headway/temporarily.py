"""Attributes changed for a while."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.RLock()


@contextmanager
def temporarily(target: Any, **values: Any) -> Iterator[None]:
    """Set attributes of a module, class or object; restore the earlier attributes at the end.

    An attribute that `target` only inherits, or lacks, is deleted at the end. A second thread waits until the
    first has restored: overlapping changes would be restored in the wrong order.

    Args:
        target: owner of the attributes.
        values: attribute name -> value inside the `with` block.
    """
    with _LOCK:
        own = {name: vars(target)[name] for name in values if name in vars(target)}
        try:
            for name, value in values.items():
                setattr(target, name, value)
            yield
        finally:
            for name in values:
                if name in own:
                    setattr(target, name, own[name])
                elif name in vars(target):
                    delattr(target, name)
