"""A step along random signs: what a gradient that is all noise would do."""

import torch
from torch import Tensor, nn

from nodelib.attacks.attack import Attack, method
from nodelib.attacks.common import project


@method("random-signs", uses="seed", random_start=False)
def _step(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    signs = 2 * torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(attack.seed)) - 1
    return project(images + attack.epsilon * signs.to(images), images, attack.epsilon, attack.clip)
