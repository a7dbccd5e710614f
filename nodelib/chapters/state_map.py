"""A map of trajectories: how the directions of many images' states differ, in the plane that shows most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nodelib.dynamics import direction, remove_drift, states_at
from nodelib.networks import ODENet


@dataclass(frozen=True)
class StateMap:
    """Points of N images at T times.

    points: coordinates in the plane, shape (T, N, 2), of the centred unit states less their mean over images
        at each time.
    common: share of the variance of the directions, over images and times together, that is their mean's over
        images: the motion that all images share, 0 to 1.
    explained: share of these differences' variance, over images and times together, that lies in the plane.
    times: the T times; labels: the N classes.
    """

    points: np.ndarray
    common: float
    explained: float
    times: tuple[float, ...]
    labels: tuple[int, ...]


def plane(directions: np.ndarray) -> tuple[np.ndarray, float]:
    """Coordinates in the first two principal components, by scikit-learn's PCA, and the share of variance in
    them.

    Args:
        directions: shape (M, features), M at least 3.

    Returns:
        shape (M, 2), each axis turned so that its largest entry in size is positive (components have no sign
        of their own), and the share, 0 to 1.
    """
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="randomized", random_state=0)
    found = pca.fit_transform(directions)
    sign = np.sign(found[np.abs(found).argmax(0), range(2)])
    return found * np.where(sign == 0, 1, sign), float(pca.explained_variance_ratio_.sum())


def trace(model: ODENet, images: Tensor, labels: Tensor, times: Sequence[float], batch: int = 50) -> StateMap:
    """Follow images and project the directions of their centred states onto one plane for all times.

    The mean direction of all images at each time is the origin: what every image does alike tells no classes
    apart and would hide what does.

    Args:
        model: in eval mode with fixed pooling; images: (N, 1, 28, 28) in [0, 1]; labels: (N,).
        times: increasing, at least 0.
        batch: images per solve.
    """
    func = model.block.func
    parts = [direction(remove_drift(func, states_at(model, part, times))) for part in images.split(batch)]
    units = torch.cat(parts, 1).flatten(2)  # (T, N, features)
    mean, origin = units.mean(1, keepdim=True), units.mean((0, 1))
    common = ((mean - origin).pow(2).sum(2).mean() / (units - origin).pow(2).sum(2).mean()).item()
    apart = units - mean
    points, explained = plane(apart.flatten(0, 1).numpy())
    return StateMap(points.reshape(*units.shape[:2], 2), common, explained, tuple(times),
                    tuple(labels.tolist()))
