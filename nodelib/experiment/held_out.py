"""Which cycle of a robust network's further training is kept: by attack on training images that it left out.

wide-adversarial is trained further, cycle by cycle, on all training images but the last thousand. These
choose among the cycles, so that the test images are attacked once, when the choice is made. (The network that
the cycles start from has seen them; that favours it, not them.)

The rule, written down before any of it was measured: kept is the one, the start among them, of which PGD-40
along summed gradients from one random start, at the post's epsilon, leaves the most. Square, which needs no
gradient, is shown beside it on the first of these images; were it to leave fewer than the gradient does, the
order would be its own.
"""

import copy
from typing import Any

import torch

from nodelib.attacks import Attack
from nodelib.experiment import mnist
from nodelib.experiment.evaluation import evaluating
from nodelib.experiment.measurement import BATCH
from nodelib.experiment.protocols import AVERAGED
from nodelib.experiment.records import record
from nodelib.networks import ODENet

HELD_OUT_RUNS = ("wide-adversarial", "wide-adversarial-further")
HELD_OUT, QUERIED, QUERIES = 1000, 200, 500
ATTACKS: dict[str, tuple[int, Any]] = {
    "none": (HELD_OUT, None),
    "pgd": (HELD_OUT, {**{key: AVERAGED[key] for key in ("epsilon", "steps", "step_size", "loss", "noise",
                                                         "momentum")}, "restarts": 1}),
    "square": (QUERIED, dict(epsilon=AVERAGED["epsilon"], steps=QUERIES)),
}


def held_out(model: ODENet, images: int = HELD_OUT) -> list[dict]:
    """What each of `ATTACKS` leaves of the last training images, at the network's own end time.

    images: at most so many of them, the first.
    """
    network = copy.deepcopy(model)
    pictures, labels = (x[-HELD_OUT:][:images] for x in mnist.load("train"))
    result = []
    for name, (n, settings) in ATTACKS.items():
        right = []
        with evaluating(network, "fixed", 0):
            for x, y in zip(pictures[:n].split(BATCH), labels[:n].split(BATCH)):
                there = x if settings is None else Attack(name, **settings)(network, x, y)
                with torch.no_grad():
                    right.append(network(there).argmax(1) == y)
        kept = torch.cat(right).double()
        epsilon = 0.0 if settings is None else settings["epsilon"]
        result.append(record("held_out_left", kept.mean(), model.block.t1, len(kept), "mean", attack=name,
                             epsilon=epsilon))
    return result
