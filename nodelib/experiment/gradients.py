"""How far a gradient of an ODE-net is from the flow's, and how far the state re-solved backwards strays."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.experiment.gradient_health import cosines
from nodelib.experiment.measurement import REFERENCE_TOLERANCE
from nodelib.networks import ODENet
from nodelib.solver.adjoints import continuous_adjoint
from nodelib.solver.errors import InputError
from nodelib.solver.integrate import odeint, rms_norm

REFERENCE = REFERENCE_TOLERANCE  # in float64: kinks of the ReLU make a tighter one expensive


@dataclass(frozen=True)
class Gradient:
    """Gradients of the mean cross-entropy of a batch.

    images: with respect to the images, their shape; parameters: to the weights of f, one vector;
    nfe: evaluations forward and backward together.
    """

    images: Tensor
    parameters: Tensor
    nfe: int


def loss_gradient(model: ODENet, images: Tensor, labels: Tensor, t1: float, gradient: str = "exact", *,
                  rtol: float = 1e-3, atol: float = 1e-3, scale: float = 1.0,
                  backward_tolerance: float | None = None) -> Gradient:
    """The gradient of a network's mean cross-entropy at end time t1, by one of the methods of `odeint`.

    Args:
        model: in eval mode, fixed pooling; images: (N, 1, 28, 28) of the model's type; labels: (N,).
        gradient: one of `nodelib.solver.integrate.GRADIENTS`.
        scale: the loss is multiplied by this before the backward pass and the gradient divided by it
            after: no change on paper, but the adjoint's atol is compared with what it multiplies.
        backward_tolerance: rtol and atol of the adjoint's own solve; only for "adjoint".

    Raises:
        InputError: backward_tolerance with another method.
    """
    if backward_tolerance is not None and gradient != "adjoint":
        raise InputError(f"backward_tolerance is {backward_tolerance} with gradient {gradient!r}; only the "
                         "continuous adjoint has a tolerance of its own")
    func = model.block.func
    params = [p for p in func.parameters() if p.requires_grad]
    images = images.detach().requires_grad_()
    y0 = model.stem(images)
    start = y0.detach().requires_grad_()

    def loss(y: Tensor) -> Tensor:
        return scale * F.cross_entropy(model.head(y), labels)

    if backward_tolerance is None:
        solution = odeint(func, start, (0.0, t1), rtol=rtol, atol=atol, gradient=gradient)
        a, *found = torch.autograd.grad(loss(solution.y[-1]), (start, *params))
        nfe = solution.nfe + (solution.nfe_backward or 0)  # torchdiffeq's backprop does not count
    else:
        with torch.no_grad():
            solution = odeint(func, y0, (0.0, t1), rtol=rtol, atol=atol)
        end = solution.y[-1].detach().requires_grad_()
        (end_bar,) = torch.autograd.grad(loss(end), end)
        a, found, nfe = continuous_adjoint(func, (0.0, t1), solution.y,
                                           torch.stack([torch.zeros_like(end_bar), end_bar]),
                                           params, rtol=backward_tolerance, atol=backward_tolerance,
                                           norm=rms_norm, max_steps=100_000)
        nfe += solution.nfe
    (images_bar,) = torch.autograd.grad(y0, images, a)
    return Gradient(images_bar / scale, torch.cat([g.reshape(-1) for g in found]) / scale, nfe)


def reference_gradient(model: ODENet, images: Tensor, labels: Tensor, t1: float,
                       tolerance: float = REFERENCE) -> Gradient:
    """The flow's gradient, as well as float64 and a tight tolerance give it (exact discrete adjoint)."""
    return loss_gradient(copy.deepcopy(model).double(), images.double(), labels, t1, rtol=tolerance,
                         atol=tolerance)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, Euclidean norms over all elements."""
    return float((found.double() - expected).norm() / expected.norm())


def sign_disagreement(found: Tensor, expected: Tensor) -> float:
    """Share of elements whose signs differ: the pixels that FGSM would move the wrong way."""
    return float((found.sign() != expected.to(found.dtype).sign()).double().mean())


def gradient_errors(model: ODENet, images: Tensor, labels: Tensor, times: Sequence[float],
                    methods: dict[str, dict], references: dict[float, Gradient]) -> pd.DataFrame:
    """Errors of several gradients at several end times, as tidy data.

    Args:
        times: end times; methods: name -> keyword arguments of `loss_gradient`.
        references: end time -> `reference_gradient`.

    Returns:
        one row per method and end time: method, t1, input_error, parameter_error (relative), signs (share
        of the image gradient's signs that differ), cosine (of the angle between image gradients), nfe.
    """
    rows = []
    for t1 in times:
        expected = references[t1]
        for name, settings in methods.items():
            found = loss_gradient(model, images, labels, t1, **settings)
            rows.append({"method": name, "t1": t1,
                         "input_error": relative_error(found.images, expected.images),
                         "parameter_error": relative_error(found.parameters, expected.parameters),
                         "signs": sign_disagreement(found.images, expected.images),
                         "cosine": float(cosines(found.images.flatten()[None],
                                                 expected.images.flatten()[None])), "nfe": found.nfe})
    return pd.DataFrame(rows)


def backward_state(func: Callable, y0: Tensor, t1: float, times: Sequence[float], *, rtol: float = 1e-3,
                   atol: float = 1e-3) -> pd.DataFrame:
    """How far the state solved backwards from y(t1) is from the state it passed on the way forward.

    Args:
        func: (t, y) -> dy/dt; y0: initial state; t1: end time; times: increasing, inside (0, t1).

    Returns:
        tidy data: t, forward (|y|), error (|backward - forward| / |forward|); t = 0 included.
    """
    grid = [0.0, *times, t1]
    with torch.no_grad():
        forward = odeint(func, y0, grid, rtol=rtol, atol=atol).y
        back = odeint(func, forward[-1], grid[::-1], rtol=rtol, atol=atol, compiled=False).y.flip(0)
    return pd.DataFrame({"t": grid, "forward": [float(y.norm()) for y in forward],
                         "error": [float((b - f).norm() / f.norm()) for b, f in zip(back, forward)]})
