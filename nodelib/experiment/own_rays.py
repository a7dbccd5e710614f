"""A penalty that gives each class a ray of its own, which attracts: f(w_c) = w_c for every class c.

The ray of a class is built from the network's own weights. Its direction w_c is what the last normalisation
makes of the class's row of the head, less the mean of all rows: every ray is a value of that normalisation,
and in this direction the logit of the class grows fast. Nothing is stored beside the weights, and as the
rows without their mean add up to zero, the ten cannot become one.

If f were w_c, a scaled state w = y / t would move straight to w_c (dw/ds = w_c - w in log time). So f is
asked to be w_c on all of that way, and around it. From a point

    p = (1 - b) ((1 - a) y(t) / t + a w_c + noise) + b w_k,

y(t) the state of a training image of class c where the loss reads it, a uniform on [0, 1], b on [0, `PUSH`]
and k any class, f is applied `TIMES` times over, and the penalty is the mean square of the distances of
f(p), f(f(p)), ... to w_c, in units of the spread of the ten. At a = 1 and b = 0 this asks for a ray; the
noise and the push towards another class's ray, that it attracts, and how far; to apply f again, that what
is left of a deviation, which lies along the leading eigenvectors of its Jacobian, shrinks further.

The head must tell the rays apart as well, where they lie at the end time: to that the cross-entropy of the
states t w_c is added. (A row's own direction need not be the one that its logit wins: of a network trained
without this, the head took the rays of 8 and 9 for those of 1 and 4.)

Penalties on the field for attractors by construction: Kang et al., 2021 (SODEF), and Rodriguez et al., 2022
(LyaNet). This one costs `TIMES` evaluations of f on the batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.dynamics.geometry import norm
from nodelib.dynamics.rays import LATE, normalised_field
from nodelib.networks import ODENet

NOISE = 0.5  # its length, in units of the spread of the rays
PUSH = 0.4  # towards another ray; half way there begins the other one's basin
TIMES = 2


def own_rays(model: ODENet) -> Tensor:
    """The directions w_c that the classes are given, shape (10, C, H, W)."""
    func, rows = model.block.func, model.linear.weight
    rows = (rows - rows.mean(0)).view(len(rows), func.channels, model.size, model.size)
    return func.norm4(LATE * rows)


def penalty(model: ODENet, states: Tensor, labels: Tensor, t1: float, generator: torch.Generator) -> Tensor:
    """The penalty above, at least 0; 0 where f maps all points to their class's ray and the head is sure.

    Args:
        states: y(t1), shape (N, C, H, W); labels: shape (N,), 0 to 9; t1: the end time, above 0.
        generator: of the points, on the CPU, so that one seed gives the same ones everywhere.
    """
    rays, field = own_rays(model), normalised_field(model.block.func)
    target, spread = rays[labels], norm(rays - rays.mean(0)).square().mean().sqrt()
    a, b = torch.rand(2, len(states), 1, 1, 1, generator=generator).to(states)
    noise = torch.randn(states.shape, generator=generator).to(states) / states[0].numel() ** 0.5
    other = rays[torch.randint(len(rays), (len(states),), generator=generator).to(labels.device)]
    point = torch.lerp(torch.lerp(states / t1, target, a) + NOISE * spread * noise, other, PUSH * b)
    total = states.new_zeros(())
    for _ in range(TIMES):
        point = field(point)
        total = total + (norm(point - target) / spread).square().mean()
    classes = torch.arange(len(rays), device=labels.device)
    return total / TIMES + F.cross_entropy(model.head(t1 * rays), classes)
