"""The page for people with their own network: its examples run as they are printed, and are short."""

from pathlib import Path

import jupytext
import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "book" / "17-on-your-own-network.md"
CELLS = [cell for cell in jupytext.read(PAGE).cells if cell.cell_type == "code"]
SHOWN = [cell.source for cell in CELLS if "remove-cell" not in cell.metadata.get("tags", ())]
EXAMPLES = [cell.source for cell in CELLS if not cell.metadata.get("tags")]


@pytest.fixture(scope="module")
def names() -> dict:
    """What the printed cells define, run in their order."""
    found: dict = {"__name__": "page"}
    for source in SHOWN:
        exec(compile(source, str(PAGE), "exec"), found)
    return found


def test_no_example_is_longer_than_twenty_lines():
    assert len(EXAMPLES) == 9
    for source in EXAMPLES:
        assert len([line for line in source.splitlines() if line.strip()]) <= 20


def test_the_spiral_is_learned(names):
    assert names["loss"] is not None
    y = names["odeint"](names["field"], names["starts"], torch.linspace(0, 3, 13)).y
    assert (y - names["paths"]).norm() < 0.15 * names["paths"].norm()


def test_the_jacobian_of_the_learned_flow_is_its_finite_difference(names):
    carry, at, h = names["carry"], names["starts"][0], 1e-2
    with torch.no_grad():
        columns = [(carry(at + h * e) - carry(at - h * e)) / (2 * h) for e in torch.eye(2)]
    assert abs(torch.linalg.det(torch.stack(columns)) - names["shrinks"]) < 0.02 * names["shrinks"]


def test_the_attacks_stay_in_the_ball_and_break_images(names):
    for attacked in names["tests"].values():
        assert (attacked - names["images"]).abs().max() <= names["epsilon"] + 1e-6
    accuracy = names["accuracy"]
    assert accuracy["clean"] > 0.95 and accuracy["PGD"] < accuracy["FGSM"] < accuracy["clean"]


def test_the_strong_set_and_an_ode_of_ones_own_are_attacked(names):
    assert names["robust"].shape == (16,) and names["robust"].float().mean() < 0.7
    assert names["learned"] > 0.9 and max(names["left"].values()) < 0.5


def test_the_function_for_torchdiffeq_gives_its_states(names):
    assert max(names["differences"]) < 1e-10


def test_the_posts_network_has_the_stored_weights_under_other_names(names):
    # kernels of other instruction sets round otherwise, which the solve carries on: 2e-4 to 2e-3 seen
    assert names["difference"] < 1e-3 * names["logits"].abs().max()
