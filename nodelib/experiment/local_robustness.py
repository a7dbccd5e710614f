"""How robust a network is to first order, blind to the scale of its logits; and what its flow does to nudges.

    python -m nodelib measure small-10 resnet-1 --part local

An image of margin m = z_y - max of the wrong z_j falls, to first order, to a change of every pixel by m / g,
g the l1 norm of the gradient of m (dual to the l-infinity ball). Multiply all logits by a constant: m and g
change, m / g does not. What a head does through the scale of the logits alone cannot show in it.

Expected, written down before any of it was measured (known then: clean accuracy and what the stored attacks
leave). Each can fail:

- *It says what attacks say.* Over the networks without adversarial training whose clean accuracy is within a
  point of each other's, the median of m / g and the mean smallest epsilon of the stored attacks have a rank
  correlation of at least 0.7. Refuted below 0.3.
- *The slow head acts through the features.* small-100 (head's scale 0.1) has a larger median of m / g than
  small-100-unscaled, and small-10-scaled than small-10, their 95 % intervals apart. Refuted if a median is
  smaller: then what the head changes is not to be seen at the image.
- *Not the flow's expansion.* If the scaled head worked by a flow that expands less, the relative expansion of
  small-100 would be below that of small-100-unscaled; refuted if it is not.
- *The end time alone helps nothing.* small-100-unscaled has no larger median of m / g than small-10.

Written later, when all of that was known and the ladder's figures too, and before either network was trained:

- *The rate does it.* Of the slow head's two halves, initial weights of a tenth and a rate of a tenth, the
  rate is what makes small-100 withstand more than small-100-unscaled: small-100-slow-rate, with the rate
  alone, has at least half of that lead, seed 0, in the mean smallest epsilon of the ladder and in the median
  of m / g, and small-100-small-start, with the weights alone, less than half in both. (Adam moves every
  weight by about the rate a step, so that initial weights are soon forgotten.) Refuted if the halves change
  places in both.

And of a residual network, before resnet-1-scaled was trained, with the ladder's figures of resnet-1 known:

- *The slow head needs no solver.* resnet-1-scaled, three seeds, has a larger mean smallest epsilon than
  resnet-1 in each, and a larger median of m / g; the lead is at least a thousandth, and less than the five
  thousandths that the slow head buys small-10. (What acts is that logits which grow slowly leave the features
  more to learn; a state that does not grow with the end time gives the head less to slow down.) Refuted if
  the mean of the three differences is not above 0.
"""

import torch
from torch import Tensor

from nodelib.attacks.common import attacking, input_gradient
from nodelib.attacks.losses import margins
from nodelib.dynamics.geometry import direction, inner, norm
from nodelib.experiment.measurement import SEED_BATCH
from nodelib.networks import ODENet, ResNet


def local_robustness(model: ODENet | ResNet, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Per image what `nodelib.experiment.contract.LOCAL_MEASUREMENTS` defines, each of shape (N,).

    Args:
        model: in eval mode with fixed pooling; an ODE-net at its own end time.
        images: shape (N, 1, 28, 28), in [0, 1]; labels: shape (N,), 0 to 9.
    """
    found: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(0)
    middle = model.block if isinstance(model, ODENet) else model.blocks
    with attacking(model, "exact"):
        for x, y in zip(images.split(SEED_BATCH), labels.split(SEED_BATCH)):
            ascent, logits = input_gradient(model, x, y, None, loss="margin")
            margin, slope = margins(logits, y), len(x) * ascent.flatten(1).abs().sum(1)
            start = model.stem(x).requires_grad_(True)
            end = middle(start)
            u = direction(torch.randn(end.shape, generator=generator, dtype=end.dtype))
            # no state depends on another's start but through the step sizes, which the gradient holds fixed
            expansion = norm(torch.autograd.grad(inner(end, u).sum(), start)[0])
            relative = expansion * norm(start) / norm(end)
            values = dict(margin=margin, margin_slope=slope, local_robustness=margin / slope,
                          expansion=expansion, relative_expansion=relative)
            for name, part in values.items():
                found.setdefault(name, []).append(part.detach())
    return {name: torch.cat(parts) for name, parts in found.items()}
