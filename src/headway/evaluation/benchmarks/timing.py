"""Time and memory of calls, on the CPU and on accelerators with a queue of their own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


def wait(device: torch.device) -> None:
    """Wait until the queued work of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Yield a list that holds the peak memory in MiB above the memory in use at the start, once the context ends.

    On the CPU, memory is sampled every 5 ms.
    """
    peak = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak[0] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        return
    process, done = psutil.Process(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], (process.memory_info().rss - start) / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
