"""A network that draws its end time, and an attacker who knows it."""

import pytest
import torch

from nodelib.attacks import pgd
from nodelib.experiment import random_end_time
from nodelib.experiment.evaluation import test_subset
from nodelib.experiment.random_end_time import random_end_time_accuracy, share_correct
from nodelib.networks import ODENet


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ODENet(16, 7).eval()


def test_the_share_is_the_mean_over_single_end_times(model):
    images, _ = test_subset(6)
    with torch.no_grad():
        labels = model(images, 2.0).argmax(1)  # so that some are right
        singly = sum((model(images, t1).argmax(1) == labels).float() for t1 in (0.5, 2.0)) / 2
    assert share_correct(model, images, labels, [2.0, 0.5]) == pytest.approx(singly.numpy())


def test_all_attackers_are_scored_at_the_same_end_times(model):
    images, _ = test_subset(4)
    with torch.no_grad():
        labels = model(images, 1.5).argmax(1)
    frame = random_end_time_accuracy(model, images, labels, (1.0, 2.0), (0.0, 0.3), draws=2, uses=3)
    attackers = ["knows the end time", "one end time", "mean of 2"]
    assert frame[["attacker", "epsilon"]].values.tolist() == [
        [a, epsilon] for epsilon in (0.0, 0.3) for a in attackers]
    unattacked, attacked = frame["accuracy"][:3], frame["accuracy"][3:]
    assert unattacked.nunique() == 1 and attacked.max() < unattacked.min()
    assert (frame["low"] <= frame["accuracy"]).all() and (frame["accuracy"] <= frame["high"]).all()
    assert set(frame["n"]) == {4}
    known = frame.groupby("epsilon")["accuracy"].transform("first")
    assert frame["more"].tolist() == pytest.approx((frame["accuracy"] - known).tolist())
    assert (frame["more_low"] <= frame["more"]).all() and (frame["more"] <= frame["more_high"]).all()
    assert not frame[frame["attacker"] == attackers[0]][["more", "more_low", "more_high"]].any(axis=None)


def test_who_knows_the_end_time_attacks_and_is_scored_there(model, monkeypatch):
    images, _ = test_subset(4)
    with torch.no_grad():
        labels = model(images, 1.25).argmax(1)
    seen = []
    monkeypatch.setattr(random_end_time, "share_correct",
                        lambda *given: seen.append(given[-1]) or share_correct(*given))
    frame = random_end_time_accuracy(model, images, labels, (1.0, 2.0), (0.05,), draws=2, uses=2)
    known, used = [], seen[-1]
    assert seen == [[used[0]], [used[1]], used, used] and 1 < used[0] < 1.5 < used[1] < 2
    for t1 in used:
        found = pgd(model, images, labels, 0.05, step_size=0.0125, steps=10, t1=t1, seed=0)
        with torch.no_grad():
            known.append((model(found, t1).argmax(1) == labels).float().mean())
    assert frame["accuracy"].iloc[0] == pytest.approx(100 * float(sum(known) / 2))


@pytest.mark.parametrize("changes, message", [
    (dict(between=(2.0, 2.0)), "must be above the lower"), (dict(between=(0.0, 2.0)), "end time"),
    (dict(epsilons=(-0.1,)), "epsilon is -0.1"), (dict(draws=0), "draws is 0"), (dict(uses=0), "uses is 0")])
def test_bad_input_is_named(model, changes, message):
    images, labels = test_subset(2)
    with pytest.raises(ValueError, match=message):
        random_end_time_accuracy(model, images, labels,
                                 **{"between": (1.0, 2.0), "epsilons": (0.1,), **changes})
