"""The plane of a map shows what it says, the same at every call."""

import numpy as np
import pytest

from nodelib.chapters import state_map

pytest.importorskip("sklearn", reason="the book's packages are missing: make .venv/.book")


def test_the_plane_is_the_one_of_most_variance():
    rng = np.random.default_rng(0)
    data = np.zeros((200, 30))
    data[:, 3], data[:, 7] = 5 * rng.normal(size=200), 2 * rng.normal(size=200)
    data += 0.1 * rng.normal(size=data.shape)
    points, explained = state_map.plane(data)
    centred = data - data.mean(0)
    assert abs(np.corrcoef(points[:, 0], centred[:, 3])[0, 1]) > 0.999
    assert abs(np.corrcoef(points[:, 1], centred[:, 7])[0, 1]) > 0.99
    share = (centred[:, 3].var() + centred[:, 7].var()) / centred.var(0).sum()
    assert explained == pytest.approx(share, abs=0.01)


def test_a_component_has_one_sign_however_it_is_found():
    rng = np.random.default_rng(1)
    data = rng.normal(size=(50, 8)) * np.arange(1, 9)
    points, _ = state_map.plane(data)
    assert (points[np.abs(points).argmax(0), range(2)] > 0).all()
    assert np.array_equal(points, state_map.plane(data)[0])


def test_traced_images_have_a_point_at_every_time(tiny_run, test_images):
    images, labels = test_images
    found = state_map.trace(tiny_run.load_model(), images[:12], labels[:12], [0.0, 1.0, 100.0], batch=5)
    assert found.points.shape == (3, 12, 2) and 0 < found.explained <= 1
    # the origin is the mean of all images
    assert found.points.mean(1) == pytest.approx(np.zeros((3, 2)), abs=1e-6)
    assert found.labels == tuple(labels[:12].tolist()) and found.times == (0.0, 1.0, 100.0)


def test_the_shared_part_of_the_motion_is_all_of_it_for_one_image_and_less_for_many(tiny_run, test_images):
    images, labels = test_images
    model, times = tiny_run.load_model(), [0.0, 1.0, 10.0, 100.0]
    # so alike that a chaotic flow, too, keeps them together up to t = 100
    alike = images[:1] + 1e-5 * images[1:4]
    one, many = (state_map.trace(model, x, labels[:len(x)], times).common for x in (alike, images[:12]))
    assert one > 0.99 and 0 < many < one
