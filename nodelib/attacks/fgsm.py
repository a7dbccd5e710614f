"""The fast gradient sign method."""

from typing import Any

from torch import Tensor, nn

from nodelib.attacks.attack import Attack, method
from nodelib.attacks.common import input_gradient, project


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, **options: Any) -> Tensor:
    """One step of length epsilon along the sign of the loss's input gradient.

    Goodfellow, Shlens and Szegedy, Explaining and harnessing adversarial examples, ICLR 2015, section 4:
    x + epsilon * sign(d loss / d x). A pixel whose gradient is exactly zero does not move. One step is
    the weakest gradient attack: never call a network robust on its word alone, use `pgd`.

    Args:
        model: any classifier, in eval mode: images (N, C, H, W) in [0, 1] to logits (N, K).
        images, labels: shapes (N, C, H, W), float32 or float64, and (N,), integers from 0 to K - 1.
        epsilon: radius of the l-infinity ball in pixel units, 0 to 1 (the post: 0.3).
        options: fields of `Attack`: t1, clip, gradient, loss, logit_scale, draws, allow_random_forward.

    Returns:
        adversarial images, same shape, within epsilon of `images` in every pixel.

    Raises:
        as `Attack`.
    """
    return Attack("fgsm", epsilon, **options)(model, images, labels)


@method("fgsm", uses="loss logit_scale draws", random_start=False)
def _step(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    slope, _ = input_gradient(model, images, labels, attack.end_times, attack.loss, attack.logit_scale,
                              attack.draws)
    return project(images + attack.epsilon * slope.sign(), images, attack.epsilon, attack.clip)
