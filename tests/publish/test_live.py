"""The live parts compute in the browser what the library computes."""

import base64
import dataclasses
import importlib.util
import json
import os
import re

import numpy as np
import pytest
import torch
from book_site import chromium

from nodelib.attacks import fgsm, pgd
from nodelib.attacks.common import attacking, input_gradient
from nodelib.experiment import artifacts, configs, mnist
from nodelib.experiment.evaluation import test_subset as subset
from nodelib.experiment.paths import runs_dir
from nodelib.publish import live
from nodelib.publish.pdf import ARGUMENTS
from nodelib.solver.integrate import odeint

playwright = pytest.importorskip("playwright.sync_api", reason="packages are missing: make .venv/.test")

COMPARED = {"small-10": 100}  # images; 10 for other networks, or NODELIB_LIVE_IMAGES for all
EPSILON = 0.3


def model_of(name: str):
    return artifacts.load_run(runs_dir() / f"{name}-seed0").load_model()


def test_the_kernels_rebuild_byte_for_byte():
    if importlib.util.find_spec("ziglang") is None:
        message = "the compiler of the kernels, the package ziglang, is missing: make .venv/.test"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    for shape in live.SHAPES:
        stored = live.FOLDER / "kernels" / f"{live.shape_name(*shape)}.wasm"
        assert live.compile_kernel(*shape) == stored.read_bytes(), "run python -m nodelib live kernels"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a page and all that live parts load."""
    folder = tmp_path_factory.mktemp("live")
    live.export(folder / "live")
    (folder / "page.html").write_text('<!doctype html><meta charset="utf-8"><title>live</title>'
                                      '<script src="live/live.js"></script>')
    return folder


def provided(path) -> tuple[str, dict, bytes]:
    """Name, header and content of a script of data."""
    call = re.fullmatch(r"NodeLive\.provide\((.*)\);\n", path.read_text())
    name, header, data = json.loads(f"[{call[1]}]")
    return name, header, base64.b64decode(data)


def test_exported_weights_are_the_stored_ones(exported):
    found = sorted(path.stem for path in (exported / "live" / "weights").glob("*.js"))
    assert found == sorted(run for run in live.RUNS if (runs_dir() / run / "config.json").exists()) and found
    for run in found:
        name, header, content = provided(exported / "live" / "weights" / f"{run}.js")
        assert name == f"weights/{run}"
        assert header["sha256"] == artifacts.load_run(runs_dir() / run).provenance["weights_sha256"]
        numbers = torch.from_numpy(np.frombuffer(content, "<f4").copy())
        state = artifacts.load_run(runs_dir() / run).load_model().state_dict()
        floats = sorted(key for key, value in state.items() if value.is_floating_point())
        assert [key for key, _ in header["tensors"]] == floats
        sizes = [int(np.prod(shape)) for _, shape in header["tensors"]]
        for (key, shape), part in zip(header["tensors"], numbers.split(sizes)):
            assert torch.equal(part.view(shape), state[key]), key


@pytest.mark.parametrize("run", ["resnet-1-seed0", "wide-standard-leaky-seed0", "small-10-tight-seed0"])
def test_a_network_that_the_pages_do_not_know_is_refused(run):
    with pytest.raises(ValueError, match=f"{run} is not .* choose one of small-10-seed0"):
        live.weights(artifacts.load_run(runs_dir() / run))


def test_the_digits_are_test_images_of_every_class():
    header, content = live.digits()
    images, labels = mnist.load("test")
    assert header["labels"] == labels[header["index"]].tolist()
    assert sorted(header["labels"]) == sorted(2 * list(range(10)))
    assert torch.equal(torch.tensor(list(content)).view(20, 1, 28, 28) / 255, images[header["index"]])


def test_scripts_and_kernels_are_small_before_weights(exported):
    once = (max(path.stat().st_size for path in (exported / "live" / folder).glob("*.js"))
            for folder in ("kernels", "rescaled"))
    assert sum(path.stat().st_size for path in (exported / "live").glob("*.*")) + sum(once) < 200_000


def test_the_dial_shows_stored_outcomes_of_the_images_that_stand_there(exported):
    _, header, content = provided(exported / "live" / "rescaled" / "large-100-seed0.js")
    run = artifacts.load_run(runs_dir() / "large-100-seed0")
    for loss, prefix in live.RESCALED.items():
        factors = [factor for factor, _, _ in header["outcomes"][loss]]
        assert factors == sorted(set(factors)) and factors[0] == 1 and factors[-1] == 100
        for factor, share, bits in header["outcomes"][loss]:
            record = run.metric(f"{prefix}{factor:g}-t100")
            assert record["accuracy"] == share and record["settings"]["loss"] == loss
            assert [bit == "1" for bit in bits] == run.outcomes(record["id"])[:live.SEEN].tolist()
    images, _ = subset(live.SEEN)
    shown = torch.tensor(list(content)).view(live.SEEN, 1, 14, 14) / 255
    assert (torch.nn.functional.avg_pool2d(images, 2) - shown).abs().max() < 1 / 255


def test_the_epsilon_slider_has_every_row_and_what_is_missing_is_no_number(exported):
    _, header, _ = provided(exported / "live" / "swept.js")
    assert [row["run"] for row in header["rows"]] == [*configs.ROWS, *configs.PAIR]
    assert header["epsilons"] == sorted(set(header["epsilons"])) and header["epsilons"][0] == 0
    run = artifacts.load_run(runs_dir() / "small-10-seed0")
    row = header["rows"][configs.ROWS.index("small-10")]
    for attack, label in (("FGSM", "sweep-fgsm-eps0.1"), ("PGD, 40 steps", "sweep-pgd40-eps0.1"),
                          ("worst case", "worst-eps0.1")):
        assert row["attacks"][attack][header["epsilons"].index(0.1)] == run.metric(f"{label}-t10")["accuracy"]
    few = live.swept([dataclasses.replace(run, metrics=[run.metric("sweep-fgsm-eps0.1-t10")])])
    assert few["epsilons"] == [0.1] and few["rows"][0]["attacks"]["worst case"] == [None]


@pytest.fixture(scope="module")
def page(exported):
    """A page opened from a file, with the engine of the live parts."""
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        context = browser.new_context(offline=True)
        opened = context.new_page()
        opened.goto((exported / "page.html").as_uri())
        yield opened
        browser.close()


CALL = """async ([run, name, ...values]) => {
  const network = await NodeLive.load(run), plain = (v) => ArrayBuffer.isView(v) ? Array.from(v) : v;
  const typed = values.map((v) => Array.isArray(v) && v.length === 784 ? Float32Array.from(v) : v);
  return Object.fromEntries(Object.entries(await network[name](...typed)).map(([key, v]) => [key, plain(v)]));
}"""


def ask(page, name: str, method: str, *values) -> dict:
    """Call a method of a network in the page; tensors go as lists."""
    plain = [v.flatten().tolist() if isinstance(v, torch.Tensor) else v for v in values]
    return page.evaluate(CALL, [f"{name}-seed0", method, *plain])


@pytest.mark.browser
@pytest.mark.parametrize("name", (*configs.ROWS, *configs.PAIR))
def test_a_network_in_the_page_does_what_it_does_in_torch(page, name):
    count = int(os.environ.get("NODELIB_LIVE_IMAGES", COMPARED.get(name, 10)))
    model = model_of(name)
    block, agreeing, worst, drift = model.block, 0, 0.0, 0.0
    for image, label in zip(*(part.split(1) for part in subset(count))):
        with torch.no_grad():
            y0 = model.stem(image)
            solution = odeint(block.func, y0, [0.0, block.t1], rtol=block.rtol, atol=block.atol)
            logits = model.head(solution.y[-1])[0]
        attacked = fgsm(model, image, label, EPSILON, clip=False)
        found = ask(page, name, "logits", image, block.t1)
        assert found["nfe"] == solution.nfe
        for ours, theirs in ((found["steps"], solution.steps), (found["rejected"], solution.rejected_steps)):
            assert len(ours) == len(theirs)
            # their times drift apart: the rounding of minimal filtering is seen in the error estimates
            drift = max([drift, *(abs(a[0] - b[0]) / max(b[:2]) for a, b in zip(ours, theirs))])
        error = (torch.tensor(found["logits"]) - logits).abs().max() / logits.abs().max()
        worst = max(worst, error.item())
        there = ask(page, name, "fgsm", image, int(label), {"epsilon": EPSILON, "clip": False})
        change = torch.tensor(there["adversarial"]).view_as(image) - image
        agreeing += (change.sign() == (attacked - image).sign()).double().mean().item()
    print(f"{name}: logits {worst:.1e} of the largest, signs {100 * agreeing / count:.2f} %, times "
          f"{drift:.1e}")
    assert drift <= 0.1
    assert worst <= 1e-3
    assert agreeing / count >= 0.99  # gradients near zero turn with the rounding of other instruction sets


def one_image(position: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = subset(position + 1)
    return images[position:], labels[position:]


RECOMBINE = """async ([run, image, label, factors]) => {
  const network = await NodeLive.load(run), core = NodeLive.core(), at = Float32Array.from(image);
  const { gradients, logits } = await network.classGradients(at, {});
  const both = [];
  for (const factor of factors) {
    const whole = await network.gradient(at, label, { factor, rescale: false });
    const bar = core.lossCotangent(logits, label, "cross-entropy", factor);
    both.push([Array.from(whole.gradient), Array.from(core.combine(gradients, bar))]);
  }
  return both;
}"""


@pytest.mark.browser
def test_turning_the_logits_up_makes_the_gradient_vanish_as_in_single_precision(page, monkeypatch):
    monkeypatch.setenv("NODELIB_COMPILED", "0")  # the compiled reverse rescales tiny cotangents
    model, (image, label) = model_of("small-10"), one_image()
    factors = [1.0, 4.0, 8.0, 12.0, 64.0]
    found = page.evaluate(RECOMBINE, ["small-10-seed0", image.flatten().tolist(), int(label), factors])
    zeros = []
    for factor, (whole, recombined) in zip(factors, found):
        with attacking(model, "exact"):
            slope = input_gradient(model, image, label, None, logit_scale=factor)[0].flatten()
        whole, recombined = torch.tensor(whole), torch.tensor(recombined)
        zeros.append((slope == 0).double().mean().item())
        for ours in (whole, recombined):
            assert abs((ours == 0).double().mean().item() - zeros[-1]) < 0.1, factor
        if slope.abs().max() > 1e-30:
            assert (whole - recombined).abs().max() <= 1e-4 * whole.abs().max(), factor
    assert zeros[0] < 0.6 and zeros[-1] == 1  # of the pixels; the pooling passes over many


@pytest.mark.browser
def test_the_margin_loss_of_the_page_is_that_of_the_library(page):
    model, (image, label) = model_of("small-100"), one_image(3)
    found = ask(page, "small-100", "gradient", image, int(label), {"loss": "margin", "factor": 3})["gradient"]
    with attacking(model, "exact"):
        slope = input_gradient(model, image, label, None, "margin", logit_scale=3.0)[0].flatten()
    assert torch.nn.functional.cosine_similarity(torch.tensor(found), slope, dim=0) > 0.999


@pytest.mark.browser
@pytest.mark.parametrize("clip", [True, False])
def test_pgd_of_the_page_ends_where_that_of_the_library_does(page, clip):
    model, (image, label) = model_of("wide-adversarial"), one_image(5)
    wanted = pgd(model, image, label, 0.1, step_size=0.03, steps=8, random_start=False, clip=clip)
    options = dict(epsilon=0.1, stepSize=0.03, steps=8, clip=clip)
    found = ask(page, "wide-adversarial", "pgd", image, int(label), options)
    ours = torch.tensor(found["adversarial"]).view_as(image)
    assert (ours - image).abs().max() <= 0.1 + 1e-6
    assert ((ours - wanted).abs() < 1e-6).double().mean() > 0.95
    with torch.no_grad():
        assert torch.allclose(torch.tensor(found["logits"]), model(wanted)[0], rtol=0.02, atol=0.05)
    assert (ours.min() < 0) != clip


@pytest.mark.browser
def test_a_trajectory_of_the_page_passes_through_the_states_of_the_library(page):
    model, (image, _) = model_of("small-random"), one_image(1)
    times = [0.1, 1.0, 10.0, 100.0]
    with torch.no_grad():
        states = model.trajectory(image, times)[:, 0]
    text = """async ([run, image, times]) => {
      const network = await NodeLive.load(run);
      const found = await network.trajectory(Float32Array.from(image), times);
      return {states: found.states.map((s) => Array.from(s)), slopes: found.slopes.map((s) => Array.from(s))};
    }"""
    found = page.evaluate(text, ["small-random-seed0", image.flatten().tolist(), times])
    for state, slope, wanted in zip(found["states"], found["slopes"], states):
        ours = torch.tensor(state).view(model.size, model.size, -1).permute(2, 0, 1)
        assert (ours - wanted).norm() < 1e-3 * wanted.norm()
        with torch.no_grad():
            derivative = model.block.func(0.0, ours[None])[0].permute(1, 2, 0).flatten()
        assert (torch.tensor(slope) - derivative).norm() < 1e-3 * derivative.norm()


@pytest.mark.browser
def test_an_attack_reports_its_steps_and_can_be_stopped(page):
    text = """async ([run, image]) => {
      const network = await NodeLive.load(run), stop = new AbortController(), seen = [];
      const options = {epsilon: 0.3, stepSize: 0.05, steps: 200};
      const progress = ({step}) => { seen.push(step); if (step === 4) stop.abort(); };
      const ended = await network.pgd(Float32Array.from(image), 3, options, {progress, signal: stop.signal})
        .then(() => "finished", (error) => error.name);
      return {ended, seen};
    }"""
    found = page.evaluate(text, ["small-10-seed0", one_image()[0].flatten().tolist()])
    assert found["ended"] == "AbortError"
    assert found["seen"][:5] == [0, 1, 2, 3, 4] and len(found["seen"]) < 100


@pytest.mark.browser
@pytest.mark.parametrize("call,fault", [
    ("network.logits(new Float32Array(784), -1)", "the times are -1"),
    ("network.gradient(new Float32Array(784), 11, {})", "label is 11"),
    ("network.fgsm(new Float32Array(784), 1, {epsilon: -1})", "epsilon is -1"),
    ("network.logits(new Float32Array(5))", "784"),
    ("NodeLive.load('no-such-run')", "weights/no-such-run.js could not be loaded"),
])
def test_a_wrong_call_says_what_is_wrong(page, call, fault):
    text = (f"async () => {{ const network = await NodeLive.load('small-10-seed0'); return ({call}).then(() "
            f"=> '', (e) => e.message); }}")
    assert fault in page.evaluate(text)


@pytest.mark.browser
def test_what_was_cancelled_is_not_delivered(page):
    text = """async ([run, image]) => {
      const network = await NodeLive.load(run), stop = new AbortController();
      const asked = network.classGradients(Float32Array.from(image), {}, {signal: stop.signal});
      await new Promise((resolve) => setTimeout(resolve, 150));  // it has begun, and takes longer
      stop.abort();
      return asked.then(() => "delivered", (error) => error.name);
    }"""
    assert page.evaluate(text, ["large-100-seed0", one_image()[0].flatten().tolist()]) == "AbortError"
