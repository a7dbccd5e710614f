"""The common drift: what the last group normalisation forces on every state alike.

With weight g_c and bias b_c of the last GroupNorm (g_c nonzero), every f = func(t, y) satisfies, in every
group, exactly and for any eps,

    sum_c mean(f_c) / g_c = sum_c b_c / g_c,

mean over the pixels. With the vector a of a group, which is 1 / (g_c H W) on its channels and zero
elsewhere, that is <a, f> = beta. So <a, y(t)> = <a, y(0)> + beta t whatever the image: a drift
without information. Proof and consequences: the chapter *Equilibrium or drift*.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nodelib.networks import ODEFunc


@dataclass(frozen=True)
class Drift:
    """The forced drift of one dynamics, for states of one size.

    vectors: a, one per group, shape (G, C, H, W); their supports do not overlap.
    rates: beta, shape (G,): growth of <a, y> per unit of time (for leaky dynamics its limit).
    """

    vectors: Tensor
    rates: Tensor

    @property
    def velocity(self) -> Tensor:
        """The drift's velocity: the shortest f with <a, f> = beta in every group, shape (C, H, W)."""
        squares = self.vectors.flatten(1).pow(2).sum(1)
        return torch.einsum("g,gchw->chw", self.rates / squares, self.vectors)


def common_drift(func: ODEFunc, size: int) -> Drift | None:
    """The drift that func's last normalisation forces; None where it has no last normalisation.

    Args:
        func: dynamics with `norm4` as its last layer.
        size: height and width of the state.

    Raises:
        ValueError: a weight of the last normalisation is exactly zero (then that channel of f is constant and
            the sum with 1 / g_c does not exist).
    """
    if not func.last_norm:
        return None
    weight, bias = func.norm4.weight.detach(), func.norm4.bias.detach()
    if bool((weight == 0).any()):
        raise ValueError(f"weight {int((weight == 0).nonzero()[0])} of the last normalisation is 0; the "
                         "common drift needs all of them nonzero")
    groups, channels = func.norm4.num_groups, func.channels
    member = torch.eye(groups, dtype=weight.dtype,
                       device=weight.device).repeat_interleave(channels // groups, dim=1)
    vectors = (member / weight / size**2)[:, :, None, None].expand(groups, channels, size, size)
    return Drift(vectors.contiguous(), (member * (bias / weight)).sum(1))


def drift_coordinates(func: ODEFunc, y: Tensor) -> Tensor:
    """<a, y> for every group: (..., C, H, W) to (..., G)."""
    return torch.einsum("gchw,...chw->...g", _vectors(func, y), y)


def drift_part(func: ODEFunc, y: Tensor) -> Tensor:
    """The orthogonal projection of states (or velocities) on the span of the vectors a, same shape."""
    vectors = _vectors(func, y)
    squares = vectors.flatten(1).pow(2).sum(1)
    return torch.einsum("...g,gchw->...chw", drift_coordinates(func, y) / squares, vectors)


def remove_drift(func: ODEFunc, y: Tensor) -> Tensor:
    """States or velocities without the common drift: the part that can carry information.

    For the small network, one channel per group, this subtracts every channel's mean over the pixels.
    Where func has no last normalisation there is no forced drift, and y is returned as it is.

    Args:
        func: the dynamics; y: shape (..., C, H, W), same shape out.
    """
    return y - drift_part(func, y) if func.last_norm else y


def _vectors(func: ODEFunc, y: Tensor) -> Tensor:
    drift = common_drift(func, y.shape[-1])
    if drift is None:
        raise ValueError("these dynamics have no last normalisation, hence no forced drift")
    return drift.vectors.to(y.dtype)
