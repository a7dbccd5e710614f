"""How it is measured: interleaved rounds, ratios within a round, peak memory, the machine's throughput."""

import dataclasses
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nodelib.bench.cases import Case
from nodelib.experiment.progress import say


def clock() -> float:
    """Seconds, when a GPU is done with all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(step: Callable[[], object]) -> float:
    """Wall time of one step."""
    start = clock()
    step()
    return clock() - start


def interleave(steps: Mapping[str, Callable[[], object]], rounds: int,
               limit: float) -> dict[str, list[float]]:
    """The seconds of every method in every round.

    Each round runs every method once, in an order that rotates, so that a slow spell of the machine hits
    all of them. A method whose rounds would take more than `limit` seconds in all runs in fewer of them,
    at least two.
    """
    first = {name: seconds(step) for name, step in steps.items()}
    warm = {name: seconds(step) if first[name] < limit / 4 else first[name] for name, step in steps.items()}
    allowed = {name: max(2, min(rounds, int(limit / warm[name]))) for name in steps}
    found: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for i in range(rounds):
        gc.collect()
        for name in names[i % len(names):] + names[: i % len(names)]:
            if i < allowed[name]:
                found[name].append(seconds(steps[name]))
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median, and the lower and upper quartile (the extremes of fewer than four values)."""
    if len(values) < 4:
        return {"median": statistics.median(values), "low": min(values), "high": max(values)}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def ratios(mine: list[float], theirs: list[float]) -> dict[str, float]:
    """Spread of theirs over mine, round by round."""
    return spread([b / a for a, b in zip(mine, theirs)])


def row(case: Case, method: str, times: Mapping[str, list[float]]) -> dict[str, Any]:
    """What is stored of a method: the case, seconds, and their ratio to those of the exact gradient."""
    return {**dataclasses.asdict(case), "method": method, "seconds": spread(times[method]),
            "ratio": ratios(times["exact"], times[method])}


def say_medians(label: str, times: Mapping[str, list[float]]) -> None:
    """Tell the median seconds of every method."""
    medians = (f"{name} {statistics.median(values):.3f} s" for name, values in times.items())
    say(f"{label}: " + ", ".join(medians))


def convolution_throughput(repeats: int = 15) -> dict[str, float]:
    """Operations per second (in 1e9) of torch's 3x3 convolution: in the three networks' shapes, and the best
    of several shapes and layouts, for what this machine's convolutions can reach.
    """
    def rate(n: int, channels: int, size: int, layout: torch.memory_format) -> float:
        x = torch.randn(n, channels, size, size).contiguous(memory_format=layout)
        weight = torch.randn(channels, channels, 3, 3).contiguous(memory_format=layout)
        with torch.no_grad():
            times = [seconds(lambda: F.conv2d(x, weight, padding=1)) for _ in range(repeats)]
        return 2 * n * size**2 * 9 * channels**2 / min(times) / 1e9

    layouts = (torch.contiguous_format, torch.channels_last)
    shapes = {"small-100": (128, 16, 7), "large-100": (32, 128, 7), "wide-standard": (64, 64, 10)}
    found = {name: max(rate(*shape, layout) for layout in layouts) for name, shape in shapes.items()}
    others = ((16, 64, 28), (16, 64, 56), (16, 128, 14), (16, 128, 28), (16, 256, 14), (32, 256, 7))
    found["best"] = max(*found.values(), *(rate(*shape, layout) for shape in others for layout in layouts))
    return found


def resident() -> int:
    """Bytes of memory this process holds; 0 where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


def peak_bytes(step: Callable[[], object]) -> int:
    """Most memory that a step takes beyond what the process held before it, sampled every millisecond."""
    gc.collect()
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        step()
    finally:
        done.set()
        thread.join()
    return max(0, max(peak[0], resident()) - before)


def in_new_process(arguments: list[str], timeout: float) -> dict:
    """{"bytes": `peak_bytes`} of a first step in a process of its own, or {"error": why there is none}.

    Nothing is pooled there yet, and large blocks are mapped one by one, so that freed memory leaves it.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536",
                   **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(torch.get_num_threads()))}
    command = [sys.executable, "-m", "nodelib", "bench", "--peak", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"a first step takes more than {timeout:g} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return {"bytes": int(done.stdout.split()[-1])}
