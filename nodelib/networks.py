"""The networks: the ODE-net of the post in three sizes, and the residual networks it is compared with."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodelib.solver.errors import (
    InputError,
    check_choice,
    check_flag,
    check_whole,
    is_number,
    is_whole,
    plain,
)
from nodelib.solver.integrate import check_arguments, check_constant, check_settings, odeint
from nodelib.solver.kernel import register

IMAGE_SIZE = 28
CLASSES = 10
POOLING_KERNEL = 2
POOLINGS = ("random", "fixed")
REDRAWING = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)  # torch's, unless given _random_samples


def check_end_time(t1: float) -> float:
    """Return t1 as a float, or raise an InputError unless it is a finite number above 0; TimesError if it
    requires gradients, which no solve gives.
    """
    check_constant([t1])
    value = plain(t1)
    if not (is_number(value) and value > 0):
        raise InputError(f"the end time t1 is {t1!r}; it must be a finite number above 0 (the post used 1 to "
                         "500)")
    return float(value)


def check_channels(channels: int) -> int:
    """Return channels as an int, or raise an InputError unless min(32, channels) groups divide them."""
    channels = plain(channels)
    if not is_whole(channels, 1) or channels % min(32, channels):
        raise InputError(f"channels is {channels!r}; it must be from 1 to 32, or a multiple of 32, for the "
                         "groups of the normalisation (the post used 16, 64 and 128)")
    return channels


def described(value: object) -> str:
    """The shape of a tensor, the type of anything else, for an error."""
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"


def check_mode(model: nn.Module, allow_training_mode: bool = False,
               allow_random_forward: bool = False) -> None:
    """InputError for a model in training mode, or whose forward pass is random, where nobody asked for it."""
    parts = list(model.modules())  # a part of the network may be in another mode than the whole
    if not allow_training_mode and any(part.training for part in parts):
        raise InputError("the model, or a part of it, is in training mode, where batch statistics leak "
                         "between images; call model.eval() first")
    if not allow_random_forward and any(getattr(part, "pooling", "fixed") == "random" for part in parts):
        raise InputError("the model's forward pass is random (pooling='random'); set model.pooling = "
                         "'fixed', or, for an attack, pass allow_random_forward=True")
    if not allow_random_forward and any(isinstance(part, FractionalPool) and part.mode == "random"
                                        for part in parts):
        raise InputError("the model's forward pass is random (FractionalPool with mode='random'); set its "
                         "mode = 'fixed', or, for an attack, pass allow_random_forward=True")
    redrawn = [part for part in parts if isinstance(part, REDRAWING) and part._random_samples is None]
    if redrawn and not allow_random_forward:
        raise InputError(f"the model's forward pass is random ({type(redrawn[0]).__name__} draws its regions "
                         "anew at each pass, in eval mode too); set its _random_samples, one draw for each "
                         "image and channel, or, for an attack, pass allow_random_forward=True")


def check_labels(labels: Tensor, count: int, classes: int | None = None) -> Tensor:
    """The labels as int64; InputError unless they are `count` integers from 0 to classes - 1."""
    if not isinstance(labels, Tensor) or labels.ndim != 1 or len(labels) != count:
        raise InputError(f"labels have {described(labels)}; expected shape ({count},), one per image")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise InputError(f"labels have dtype {labels.dtype}; expected integers, the number of each image's "
                         "class")
    low, high = (labels.min().item(), labels.max().item()) if count else (0, 0)
    if low < 0 or classes is not None and high >= classes:
        raise InputError(f"labels reach from {low} to {high}; the allowed range is 0 to "
                         f"{'the number of classes - 1' if classes is None else classes - 1}")
    return labels.long()


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in min(32, channels) groups (Wu and He, 2018)."""
    return nn.GroupNorm(min(32, channels), channels)


def conv3x3(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)


@register
class ODEFunc(nn.Module):
    """The dynamics f of dy/dt = f(y): GroupNorm, then four times [ReLU, Conv3x3, GroupNorm].

    Time-invariant. Because it begins and ends with a normalisation, f ignores the scale of y (up to
    the normalisation's eps) and its own size is bounded.

    Args:
        channels: number of channels C of the state, 1 to 32 or a multiple of 32; GroupNorm uses min(32, C)
            groups.
        leaky: use f(y) - y instead, the control in which an equilibrium must exist.
        last_norm: False leaves out the last normalisation, the control in which the speed is free.

    `nfe` counts calls (number of function evaluations); set it to 0 before counting.
    """

    norm4: nn.GroupNorm

    def __init__(self, channels: int, leaky: bool = False, last_norm: bool = True) -> None:
        super().__init__()
        self.channels = channels = check_channels(channels)
        self.leaky = check_flag("leaky", leaky)
        self.last_norm = last_norm = check_flag("last_norm", last_norm)
        self.norm0 = group_norm(channels)
        for i in range(1, 5):
            setattr(self, f"conv{i}", conv3x3(channels))
            if i < 4 or last_norm:
                setattr(self, f"norm{i}", group_norm(channels))
        self.nfe = 0

    def forward(self, t: Tensor | float, y: Tensor) -> Tensor:
        """dy/dt at state y, shape (N, C, H, W), same shape out; t is not used."""
        self.nfe += 1
        x = self.layers(y, F.relu)
        return x - y if self.leaky else x

    def layers(self, y: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
        """f without the leak, with that function for the ReLUs: shape (N, C, H, W) in and out."""
        x = self.norm0(y)
        for i in range(1, 5):
            x = getattr(self, f"conv{i}")(relu(x))
            if i < 4 or self.last_norm:
                x = getattr(self, f"norm{i}")(x)
        return x


class ODEBlock(nn.Module):
    """y(t1) for dy/dt = func(t, y), y(0) = y0 (Chen et al., 2018, eq. 2), solved by adaptive dopri5, or by
    another method of `nodelib.solver.integrate.odeint`.

    Args:
        func: module (t, y) -> dy/dt.
        t1: end time, above 0; `forward` may override it per call.
        rtol, atol: relative and absolute tolerance of the solver, above 0.
        gradient: how the backward pass is computed, one of `nodelib.solver.integrate.GRADIENTS`.
        method: "dopri5", or a method of fixed steps, such as "rk4", which needs the next.
        step_size: longest step of a method of fixed steps, above 0; dopri5 chooses its own.

    Raises:
        InputError, ToleranceError: a setting that `odeint` refuses, here and not at the first solve.

    The state may be a tuple of tensors, as with `odeint`: func then takes and returns tuples, and so does
    the block. After a forward pass `nfe` holds its number of function evaluations, after a backward pass
    `nfe_backward` holds those and the vector-Jacobian products of the gradient.
    """

    def __init__(self, func: nn.Module, t1: float = 1.0, rtol: float = 1e-3, atol: float = 1e-3,
                 gradient: str = "exact", method: str = "dopri5", step_size: float | None = None) -> None:
        super().__init__()
        check_arguments({"func": func}, {"rtol": rtol, "atol": atol, "step_size": step_size})
        rtol, atol, step_size = map(plain, (rtol, atol, step_size))
        check_settings(rtol, atol, method, gradient, step_size)
        self.func: Any = func
        self.method = method
        self.step_size = step_size
        self.t1 = check_end_time(t1)
        self.rtol = rtol
        self.atol = atol
        self.gradient = gradient
        self.nfe = 0
        self._backward_counts: list[int] = []

    @property
    def nfe_backward(self) -> int | None:
        """Evaluations and vector-Jacobian products of the last solve's backward passes; None where none was
        counted, as in `nodelib.Solution`.
        """
        return sum(self._backward_counts) if self._backward_counts else None

    def forward(self, y0: Tensor | tuple[Tensor, ...], t1: float | None = None) -> Any:
        """State at the end time, shape of y0; of a tuple, a tuple of such tensors."""
        path = self.trajectory(y0, [self.t1 if t1 is None else t1])
        return tuple(part[0] for part in path) if isinstance(path, tuple) else path[0]

    def trajectory(self, y0: Tensor | tuple[Tensor, ...], times: Sequence[float]) -> Any:
        """States at increasing `times` above 0, from one integration; shape (T, *y0.shape), of a tuple a
        tuple of such tensors.
        """
        times = [check_end_time(t) for t in times]
        solution = odeint(self.func, y0, [0.0, *times], rtol=self.rtol, atol=self.atol,
                          gradient=self.gradient, method=self.method, step_size=self.step_size)
        # the counts only: keeping the solution would keep its graph alive
        self.nfe, self._backward_counts = solution.nfe, solution.backward_counts
        if isinstance(solution.y, tuple):
            return tuple(part[1:] for part in solution.y)
        return solution.y[1:]


class FractionalPool(nn.Module):
    """FractionalMaxPool2d(2) to a given size, with its random regions under control.

    torch's module redraws its pooling regions at every call, also in eval mode, which makes the
    network random at test time: an undeclared defence. Here `mode="random"` does the same, drawing from
    `generator` (torch's default CPU generator if None), and `mode="fixed"` uses one stored draw.

    Args:
        channels: number of channels C of what is pooled, at least 1.
        size: height and width of the result in pixels, at least 1; what is pooled must be larger.
        mode: "fixed" or "random", one of `POOLINGS`; may be set later, too.

    Raises:
        InputError: another mode, also where one is set later.

    Source: Graham, Fractional max-pooling, 2014.
    """

    def __init__(self, channels: int, size: int, mode: str = "fixed") -> None:
        super().__init__()
        self.size = size
        self.mode = mode
        self.generator: torch.Generator | None = None
        self._held: Tensor | None = None
        # one draw for all images; stored with the weights
        self.samples: Tensor
        self.register_buffer("samples", torch.rand(1, channels, 2))

    @property
    def mode(self) -> str:
        """"fixed" (one stored draw of the regions) or "random" (fresh regions for every image)."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        check_choice("mode", mode, POOLINGS)
        self._mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, size, size)."""
        shared = self._held if self.mode == "random" else self.samples
        samples = self._draw(*x.shape[:2]) if shared is None else shared.expand(len(x), -1, -1)
        return F.fractional_max_pool2d(x, POOLING_KERNEL, output_size=self.size,
                                       _random_samples=samples.to(x))

    def _draw(self, count: int, channels: int) -> Tensor:
        # on the CPU for every device, so that one seed gives the same regions everywhere
        return torch.rand(count, channels, 2, generator=self.generator)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Draw random regions once, for all images of all forward passes within the block."""
        self._held = self._draw(1, self.samples.shape[1])
        try:
            yield
        finally:
            self._held = None


class _Classifier(nn.Module):
    """Stem, a map that keeps the state's shape, linear head. Pixels enter shifted to [-0.5, 0.5]."""

    def __init__(self, channels: int, size: int, pooling: str) -> None:
        super().__init__()
        self.channels = channels = check_channels(channels)
        size = plain(size)
        if not is_whole(size, 1) or size > IMAGE_SIZE - POOLING_KERNEL + 1:
            raise InputError(f"size is {size!r}; pooling images of {IMAGE_SIZE} pixels gives 1 to "
                             f"{IMAGE_SIZE - POOLING_KERNEL + 1} (the post used 7 and 10)")
        self.size = size
        self.conv = nn.Conv2d(1, channels, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = FractionalPool(channels, size)
        self.linear = nn.Linear(channels * size * size, CLASSES)
        self.pooling = pooling

    @property
    def pooling(self) -> str:
        """"fixed" (one stored draw of the pooling regions) or "random" (fresh regions for every image)."""
        return self.pool.mode

    @pooling.setter
    def pooling(self, mode: str) -> None:
        check_choice("pooling", mode, POOLINGS)
        self.pool.mode = mode

    def stem(self, images: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) to the initial state (N, C, size, size)."""
        if images.ndim != 4 or tuple(images.shape[1:]) != (1, IMAGE_SIZE, IMAGE_SIZE):
            raise InputError(f"images have shape {tuple(images.shape)}; expected (N, 1, {IMAGE_SIZE}, "
                             f"{IMAGE_SIZE})")
        return self.pool(self.norm(self.conv(images - 0.5)))

    def head(self, y: Tensor) -> Tensor:
        """State (N, C, size, size) to logits (N, 10)."""
        return self.linear(y.flatten(1))


class ODENet(_Classifier):
    """The post's classifier: stem, ODE block, linear head.

    Args:
        channels, size: the state is (channels, size, size): small 16 x 7 x 7 (17,418 parameters),
            large 128 x 7 x 7 (655,370), wide 64 x 10 x 10 (212,874).
        t1: end time of the integration, above 0.
        rtol, atol: solver tolerances, above 0.
        gradient: see `nodelib.solver.integrate.GRADIENTS`.
        pooling: "fixed" or "random", see `FractionalPool`.
        leaky, last_norm: controls, see `ODEFunc`.
    """

    def __init__(self, channels: int, size: int, t1: float = 1.0, rtol: float = 1e-3, atol: float = 1e-3,
                 gradient: str = "exact", pooling: str = "fixed", leaky: bool = False,
                 last_norm: bool = True) -> None:
        super().__init__(channels, size, pooling)
        self.block = ODEBlock(ODEFunc(channels, leaky, last_norm), t1, rtol, atol, gradient)

    def forward(self, images: Tensor, t1: float | None = None) -> Tensor:
        """Logits (N, 10) of images (N, 1, 28, 28) in [0, 1] at end time t1 (default: the network's own)."""
        return self.head(self.block(self.stem(images), t1))

    def trajectory(self, images: Tensor, times: Sequence[float]) -> Tensor:
        """States at increasing `times`, shape (T, N, C, size, size), from one integration."""
        return self.block.trajectory(self.stem(images), times)


class ResidualBlock(nn.Module):
    """y + g(y), g = twice [GroupNorm, ReLU, Conv3x3] (He et al., 2016, pre-activation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            group_norm(channels), nn.ReLU(), conv3x3(channels),
            group_norm(channels), nn.ReLU(), conv3x3(channels))

    def forward(self, y: Tensor) -> Tensor:
        return y + self.branch(y)


class EulerBlock(nn.Module):
    """y + f(y) with the ODE-net's own f: one residual block with exactly the ODE-net's parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.func = ODEFunc(channels)

    def forward(self, y: Tensor) -> Tensor:
        return y + self.func(0.0, y)


class ResNet(_Classifier):
    """Residual baselines with the ODE-net's stem and head.

    Args:
        channels, size: shape of the state, as in `ODENet`.
        blocks: 0 leaves stem and head alone; 1 builds one block with the ODE-net's dynamics as its branch
            (the same parameters); more build that many two-convolution blocks.
        pooling: "fixed" or "random".
    """

    def __init__(self, channels: int, size: int, blocks: int, pooling: str = "fixed") -> None:
        super().__init__(channels, size, pooling)
        blocks, channels = check_whole("blocks", blocks, 0), self.channels
        self.blocks = nn.Sequential(
            *([EulerBlock(channels)] if blocks == 1 else [ResidualBlock(channels) for _ in range(blocks)]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 1, 28, 28) in [0, 1]."""
        return self.head(self.blocks(self.stem(images)))


def count_parameters(model: nn.Module) -> int:
    """Number of trained parameters (buffers not counted)."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
