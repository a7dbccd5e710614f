import pytest
import torch

from nodelib.experiment import configs
from nodelib.solver.seeding import seeded, unmoved


def test_a_seeded_block_draws_as_after_manual_seed_and_leaves_the_generator():
    torch.manual_seed(7)
    expected = torch.randn(3)
    before = torch.get_rng_state()
    with seeded(7):
        assert torch.equal(torch.randn(3), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_building_a_network_touches_no_accelerators_generator(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    configs.build(configs.get("small-10"))
    assert not seeds


def test_a_block_of_others_leaves_the_generator():
    before = torch.get_rng_state()
    with unmoved():
        torch.manual_seed(3)
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cudas_generators_are_left_too():
    torch.cuda.manual_seed(11)
    before = torch.cuda.get_rng_state()
    configs.build(configs.get("small-10"))
    with seeded(5, "cuda"):
        first = torch.rand(3, device="cuda")
    with seeded(5, "cuda:0"):
        assert torch.equal(torch.rand(3, device="cuda"), first)
    with unmoved():
        torch.manual_seed(3)
    assert torch.equal(torch.cuda.get_rng_state(), before)
