"""What calls take: their time on accelerators, which run behind, and their memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


def wait(device: torch.device) -> None:
    """Until what was queued there is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """MiB in use at most, above what was before; on the CPU, as sampled every 5 ms."""
    found = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found[0] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    process, done = psutil.Process(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            found[0] = max(found[0], (process.memory_info().rss - start) / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
