"""Do states of one class point one way? Nearest class direction, silhouette, linear probe."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nodelib.dynamics.geometry import angle, cosines, direction
from nodelib.solver.errors import InputError


@dataclass(frozen=True)
class ClassDirections:
    """Every class's mean direction: `means`, unit states (K, C, H, W), for `labels`, shape (K,)."""

    means: Tensor
    labels: Tensor

    def nearest(self, y: Tensor) -> Tensor:
        """Label of the class direction at the smallest angle, for states (N, C, H, W), shape (N,)."""
        return self.labels[cosines(y, self.means).argmax(1)]


def class_directions(y: Tensor, labels: Tensor) -> ClassDirections:
    """Mean of the unit states of each class that occurs, normalised.

    Args:
        y: shape (N, C, H, W), usually without the common drift; labels: shape (N,), N at least 1.

    Raises:
        InputError: there are no states.
    """
    if not len(labels):
        raise InputError("there are 0 states, of which no class has a direction; give more images")
    present = labels.unique()
    units = direction(y)
    means = torch.stack([units[labels == label].mean(0) for label in present])
    return ClassDirections(direction(means), present)


def nearest_class(reference: tuple[Tensor, Tensor], y: Tensor, labels: Tensor) -> Tensor:
    """Whether each state's direction is nearest to its own class's mean direction.

    Args:
        reference: states and labels of other images, from which the class directions come.
        y, labels: states (N, C, H, W) and labels (N,) to judge.

    Returns:
        bool, shape (N,).
    """
    return class_directions(*reference).nearest(y) == labels


def silhouette(y: Tensor, labels: Tensor) -> Tensor:
    """Silhouette of each state under the distance 1 - cosine (Rousseeuw, 1987), in [-1, 1], shape (N,).

    (b - a) / max(a, b), a the mean distance to the others of its class, b the smallest mean distance to
    another class; 0 for the only member of a class. Takes N^2 memory: a thousand states are plenty.
    """
    present = labels.unique()
    if len(present) < 2:
        raise InputError(f"all {len(labels)} states have label {present.tolist()}; a silhouette needs two "
                         "classes")
    if len(present) == len(labels):  # each alone in its class, which scikit-learn refuses
        return torch.zeros(len(labels), dtype=y.dtype, device=y.device)
    from sklearn.metrics import silhouette_samples

    values = silhouette_samples(y.flatten(1).double().cpu().numpy(), labels.cpu().numpy(), metric="cosine")
    return torch.from_numpy(values).to(y)


def class_angles(y: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean angle in degrees between two states of the same class and between two of different classes, each
    from 0 to 180.

    Args:
        y: shape (N, C, H, W); labels: shape (N,), at least two classes and one class with two states.
    """
    # row by row: all pairs at once would hold N^2 states
    apart = torch.stack([angle(state, y) for state in y])
    same = labels[:, None] == labels
    other = ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    return apart[same & other].mean().item(), apart[~same].mean().item()


def linear_probe(reference: tuple[Tensor, Tensor], y: Tensor, labels: Tensor, ridge: float = 1e-3) -> Tensor:
    """Whether a linear classifier of directions, fitted to the reference, gets each state right.

    Ridge regression on the classes of unit states; what is linearly readable, with no training to tune.
    `ridge` is relative to the mean square of the centred states.

    Returns:
        bool, shape (N,).
    """
    from sklearn.linear_model import RidgeClassifier

    x, judged = (direction(states).flatten(1).double().cpu().numpy() for states in (reference[0], y))
    spread = ((x - x.mean(0)) ** 2).sum(1).mean()
    probe = RidgeClassifier(alpha=ridge * spread).fit(x, reference[1].cpu().numpy())
    return torch.from_numpy(probe.predict(judged)).to(labels.device) == labels
