"""How the cost of a training step grows with channels, pixels and threads, and two larger problems."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodelib.bench import measure
from nodelib.bench.cases import Case, Problem, Settings
from nodelib.bench.methods import ours
from nodelib.experiment.progress import say
from nodelib.networks import ODEBlock, ODEFunc
from nodelib.solver.seeding import seeded

T1, BATCH = 1.0, 16
CHANNELS, SIDES = (16, 32, 64, 128, 256, 512), (5, 7, 10, 12, 16, 32)
TENFOLD, TENFOLD_BATCH = 1280, 8  # ten times the channels of the large network


def growth(settings: Settings) -> dict:
    """Seconds of a solve and its gradient by what grows, from random states by random weights to t = `T1`."""
    quick = settings.quick
    rows = [_solve("channels", n, n, 7, settings) for n in (CHANNELS[:2] if quick else CHANNELS)]
    rows += [_solve("side", side, 64, side, settings) for side in (SIDES[:1] if quick else SIDES)]
    if not quick:
        rows.append(_solve("tenfold", TENFOLD, TENFOLD, 7, settings, TENFOLD_BATCH))
        rows += [_colour(side, settings) for side in (8, 32)]
    return {"rows": rows, "threads": _threads(settings), "t1": T1}


def _solve(grows: str, value: int, channels: int, side: int, settings: Settings, batch: int = BATCH) -> dict:
    with seeded(0):
        block, y = ODEBlock(ODEFunc(channels), T1), torch.randn(batch, channels, side, side)

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(block(y).square().mean(), tuple(block.func.parameters()))

    return _row(grows, value, batch, block, step, settings)


def _colour(side: int, settings: Settings) -> dict:
    """A classifier of 32 x 32 x 3 images in ten classes whose state has 64 channels of side x side pixels."""
    with seeded(0):
        images, labels = torch.rand(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
        stride = 32 // side
        block = ODEBlock(ODEFunc(64), T1)
        model = nn.Sequential(nn.Conv2d(3, 64, stride + 2, stride, 1), nn.GroupNorm(32, 64), block,
                              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.cross_entropy(model(images), labels), tuple(model.parameters()))

    return _row("colour", side, BATCH, block, step, settings)


def _row(grows: str, value: int, batch: int, block: ODEBlock, step, settings: Settings) -> dict:
    times = measure.interleave({"step": step}, min(settings.rounds, 5), settings.limit)
    row: dict[str, Any] = {"grows": grows, "value": value, "batch": batch, "nfe": block.nfe,
                           "products": block.nfe_backward, "seconds": measure.spread(times["step"])}
    say(f"{grows} {value}: {row['seconds']['median']:.3f} s, {block.nfe} evaluations")
    return row


def _threads(settings: Settings) -> list[dict]:
    """A training step on one thread and on as many as there are."""
    rows, most = [], torch.get_num_threads()
    chosen = [Case("small-100", 8, 1.0)] if settings.quick else [
        Case("small-100", 128, 100.0), Case("large-100", 32, 100.0), Case("wide-standard", 64, 1.0)]
    for case in chosen:
        step = ours()(Problem(case))

        def on(threads: int):
            def run() -> None:
                torch.set_num_threads(threads)
                step()
            return run

        try:
            times = measure.interleave({str(n): on(n) for n in sorted({1, most})}, settings.rounds,
                                          settings.limit)
        finally:
            torch.set_num_threads(most)
        rows += [{"network": case.network, "threads": int(n), "seconds": measure.spread(values),
                  "speed_up": measure.ratios(values, times["1"])} for n, values in times.items()]
    return rows
