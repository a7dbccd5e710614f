"""The images that choose among cycles: the last of the training set, which those cycles do not see."""

import torch

from nodelib.experiment import configs, held_out, mnist


def test_the_images_are_those_that_the_further_training_leaves_out():
    config = configs.get("wide-adversarial-further")
    assert config.subset == "first" and config.train_images + held_out.HELD_OUT == len(mnist.load("train")[0])
    assert set(held_out.HELD_OUT_RUNS) == {config.name, config.start}


def test_a_share_is_of_what_the_attack_leaves(small, monkeypatch):
    monkeypatch.setattr(held_out, "ATTACKS", {name: (n and 5, settings) for name, (n, settings)
                                              in held_out.ATTACKS.items()})
    images, labels = (x[-1000:][:5] for x in mnist.load("train"))
    with torch.no_grad():
        right = (small(images).argmax(1) == labels).double().mean().item()
    records = {r["settings"]["attack"]: r for r in held_out.held_out(small)}
    assert set(records) == {"none", "pgd", "square"} and {r["n"] for r in records.values()} == {5}
    assert records["none"]["value"] == right and records["none"]["settings"]["epsilon"] == 0
    assert all(records[name]["value"] <= right and records[name]["settings"]["epsilon"] == 0.3
               for name in ("pgd", "square"))
