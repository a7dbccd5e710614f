"""The live parts in a page, by pointer, finger and keys; and what stands there where they cannot run."""

import re

import numpy as np
import pytest
import torch
from book_site import ROOT

from nodelib.experiment import artifacts, configs
from nodelib.experiment.paths import runs_dir
from nodelib.publish import animation, live
from nodelib.solver.integrate import odeint

playwright = pytest.importorskip("playwright.sync_api", reason="packages are missing: make .venv/.test")
pytestmark = pytest.mark.browser

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>live</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="live/live.css">
<div class="node-live" data-live="hero"><p>A still picture of a digit.</p></div>
<div class="node-live" data-live="draw"><p>A still picture of an attack.</p></div>
<div style="height: 3000px"></div>
<div class="node-live" data-live="dial"><p>A still picture of the dial.</p></div>
<div class="node-live" data-live="epsilon"><p>A still picture of a sweep.</p></div>
<div style="height: 3000px"></div>
<div class="node-live" data-live="film" data-film="states" data-gif="states.gif">
<p>The film as a GIF.</p></div>
<div class="node-live" data-live="film" data-film="map" data-gif="map.gif"><p>The map as a GIF.</p></div>
<div style="height: 3000px"></div>
<div class="node-live" data-live="endtime"><p>A still picture of two states.</p></div>
<div style="height: 3000px"></div>
<div class="node-live" data-live="playground"><p>A still picture of a solution.</p></div>
<script defer src="live/live.js"></script></html>"""

# two films of eleven frames, each of one grey, brighter from frame to frame or darker; two digits that cross
TIMES = [0.0, *np.geomspace(0.1, 1000.0, 10).tolist()]
LEVELS = 20 * np.arange(11, dtype=np.uint8)[:, None, None] + np.zeros((11, 4, 4), np.uint8)
CROSSING = np.stack([np.linspace([-1.0, 0.0], [1.0, 0.0], 11), np.linspace([1.0, 0.5], [-1.0, 0.5], 11)], 1)
SHEETS = {"states": animation.sheet({"brighter": LEVELS, "darker": 200 - LEVELS}, TIMES, columns=4),
          "map": animation.map_sheet({"ours": CROSSING}, np.stack([np.zeros((28, 28)), np.ones((28, 28))]),
                                     [3, 8], TIMES)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for name, content in SHEETS.items():
        (folder / f"{name}-sheet.png").write_bytes(content)
        (folder / f"{name}.gif").touch()
    live.export(folder / "live", figures=folder)
    (folder / "page.html").write_text(PAGE)
    return folder / "page.html"


@pytest.fixture
def visit(browser, path):
    """Open the page in a context of its own; at the end no complaint of the browser may be left."""
    contexts, complaints = [], []

    def opened(script: str = "", **settings):
        settings = {"viewport": {"width": 1280, "height": 900}, **settings}
        contexts.append(browser.new_context(offline=True, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if script:
            page.add_init_script(script)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def part(page, kind: str):
    """The part of that kind, scrolled to, once it has done its first work."""
    place = page.locator(f"[data-live={kind}]")
    place.scroll_into_view_if_needed()
    place.locator("[data-done]").wait_for()
    return place


def after(page, place, act) -> str:
    """What the part says once it has finished what `act` asks of it."""
    body = place.locator("[data-done]")
    before = int(body.get_attribute("data-done"))
    act()
    page.wait_for_function("([e, n]) => Number(e.dataset.done) > n", arg=[body.element_handle(), before])
    return place.get_by_role("status").inner_text()


def middle(place) -> tuple[float, float, float]:
    box = place.locator(".node-live-pad").bounding_box()
    return box["x"] + box["width"] / 2, box["y"], box["height"]


def test_a_digit_drawn_with_the_mouse_is_recognised_and_attacked(visit):
    page = visit()
    place = part(page, "draw")
    x, y, height = middle(place)

    def draw():
        page.mouse.move(x + 6, y + 0.15 * height)
        page.mouse.down()
        page.mouse.move(x - 6, y + 0.85 * height, steps=12)
        page.mouse.up()

    said = after(page, place, draw)
    assert said.startswith("The network says 1,") and "Attacked, it says" in said
    assert place.get_by_role("button", pressed=True).count() == 0  # no test image
    ink = place.get_by_role("img", name="The digit as the network sees it").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, 28, 28).data.filter((v, i) => i % 4 === 0)")
    rows = [i // 28 for i, value in enumerate(ink.values() if isinstance(ink, dict) else ink) if value > 30]
    assert 18 <= max(rows) - min(rows) + 1 <= 22  # as MNIST has them


def test_a_digit_drawn_with_a_finger_is_recognised(visit):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    place = part(page, "draw")
    place.locator(".node-live-pad").scroll_into_view_if_needed()
    x, y, height = middle(place)
    touch = page.context.new_cdp_session(page)

    def draw():
        points = [(x + 6 - 12 * k / 10, y + (0.15 + 0.07 * k) * height) for k in range(11)]
        for i, (px, py) in enumerate(points):
            touch.send("Input.dispatchTouchEvent",
                       {"type": "touchMove" if i else "touchStart", "touchPoints": [{"x": px, "y": py}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    assert after(page, place, draw).startswith("The network says 1,")


def test_every_control_of_the_attack_answers_to_keys(visit):
    page = visit()
    place = part(page, "draw")
    place.get_by_role("button", name="a 0").first.focus()
    assert "(it is a 0)" in after(page, place, lambda: page.keyboard.press("Enter"))
    slider = place.get_by_role("slider", name="Epsilon")
    said = after(page, place, lambda: slider.press("Home"))
    assert "Attacked, it says 0" in said and "fails" in said  # epsilon 0 changes nothing
    after(page, place, lambda: slider.press("PageUp"))
    assert not place.get_by_role("slider", name="Steps").is_visible()
    after(page, place, lambda: place.get_by_label("FGSM").press("ArrowRight"))
    assert place.get_by_label("PGD").is_checked() and place.get_by_role("slider", name="Steps").is_visible()
    after(page, place, lambda: slider.press("End"))
    said = place.get_by_role("status").inner_text()
    assert "succeeds" in said
    select = place.get_by_role("combobox")
    after(page, place, lambda: select.press("ArrowDown"))
    assert select.input_value() == "small-random-seed0"
    axis = place.get_by_role("img", name=re.compile("Time from 0 to 100, logarithmic"))
    accepted = int(re.search(r"(\d+) accepted", axis.get_attribute("aria-label")).group(1))
    assert axis.locator(".node-live-accepted").count() == accepted > 1


def test_a_cleared_pad_is_attacked_no_more(visit):
    page = visit()
    place = part(page, "dial")
    place.get_by_role("button", name="Clear and draw").click()
    place.get_by_role("slider", name="Logits times").press("End")
    assert place.get_by_role("status").inner_text() == "Draw a digit."


def test_the_dial_kills_the_gradient_and_the_margin_loss_brings_it_back(visit):
    page = visit()
    place = part(page, "dial")
    dial, said = place.get_by_role("slider", name="Logits times"), place.get_by_role("status").inner_text()
    assert "says 7, " in said and "succeeds" in said
    said = after(page, place, lambda: dial.press("End"))
    assert "says 7, " in said and "it says 7" in said and "fails" in said
    assert place.get_by_role("img", name="The gradient: black, zero everywhere").count() == 1
    gradient = place.get_by_role("img", name=re.compile("^The gradient"))
    lit = "c => c.getContext('2d').getImageData(0, 0, 28, 28).data.some((v, i) => i % 4 < 3 && v > 0)"
    assert not gradient.evaluate(lit)
    said = after(page, place, lambda: place.get_by_label("cross-entropy").press("ArrowRight"))
    assert place.get_by_label("margin").is_checked() and "succeeds" in said and gradient.evaluate(lit)


def test_the_dial_shows_what_is_stored_of_sixty_digits(visit):
    page = visit()
    place = part(page, "dial")
    run = artifacts.load_run(runs_dir() / "large-100-seed0")
    dial, digits = place.get_by_role("slider", name="Logits times"), place.locator(".node-live-strip canvas")
    for key, factor in (("Home", 1), ("End", 100)):
        dial.press(key)
        kept = run.outcomes(f"rescaled-adjoint-s{factor}-t100")[:live.SEEN]
        broken = digits.evaluate_all("all => all.map((c) => c.classList.contains('node-live-broken'))")
        assert broken == (~kept).tolist()
        label = f"{kept.sum()} of {live.SEEN} test digits withstand the attack"
        assert place.get_by_role("img", name=label).count() == 1
    assert dial.bounding_box()["width"] > 0.6 * place.bounding_box()["width"]


@pytest.mark.parametrize("name, t1", [("small-100", 100), ("wide-adversarial", 1)])
def test_the_epsilon_slider_reads_the_records(visit, name, t1):
    page = visit()
    place = part(page, "epsilon")
    slider = place.get_by_role("slider", name="Epsilon")
    run = artifacts.load_run(runs_dir() / f"{name}-seed0")
    row = place.locator("tbody tr").filter(has=page.get_by_role("rowheader", name=name))
    for key, epsilon in (("Home", "0"), ("ArrowRight", "0.01"), ("ArrowRight", "0.02")):
        after(page, place, lambda: slider.press(key))
        found = [float(text.split()[0]) for text in row.locator("td").all_inner_texts()]
        wanted = [100 * run.metric(f"{label}-eps{epsilon}-t{t1}")["accuracy"]
                  for label in ("sweep-fgsm", "sweep-pgd40", "worst")]
        assert found == pytest.approx(wanted, abs=0.06)


def test_nothing_is_computed_off_screen(visit):
    page = visit()
    place = part(page, "draw")
    assert page.locator("[data-live=dial] .node-live-body").count() == 0
    part(page, "dial")
    body, slider = place.locator("[data-done]"), place.get_by_role("slider", name="Epsilon")
    done = body.get_attribute("data-done")
    slider.evaluate("e => { e.value = 0.1; e.dispatchEvent(new Event('input')); }")
    page.wait_for_timeout(500)
    assert body.get_attribute("data-done") == done
    after(page, place, place.scroll_into_view_if_needed)


def test_readers_who_ask_for_less_motion_get_no_film(visit):
    page = visit(reduced_motion="reduce")
    place = part(page, "draw")
    assert place.get_by_role("button", name="Play").is_visible()
    time = place.get_by_role("slider", name="Time")
    assert time.input_value() == time.get_attribute("max")
    frame = "c => c.toDataURL()"
    state = place.get_by_role("img", name="The state of the digit")
    last = state.evaluate(frame)
    time.press("Home")
    assert state.evaluate(frame) != last


@pytest.mark.parametrize("settings", [
    {"java_script_enabled": False}, {"script": "delete window.WebAssembly"},
])
def test_a_still_picture_stands_in_where_the_part_cannot_run(visit, settings):
    page = visit(**settings)
    page.wait_for_timeout(300)
    place = page.locator("[data-live=draw]")
    assert place.get_by_text("A still picture of an attack.").is_visible()
    assert place.get_by_text("not live here").count() == ("script" in settings)


def test_only_pages_with_a_part_or_a_film_load_its_script(tmp_path):
    sphinx = pytest.importorskip("sphinx.application", reason="packages are missing: make .venv/.book")
    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
                                    "extensions = ['live_parts']\nhtml_theme = 'basic'\n")
    (source / "index.rst").write_text("Front\n=====\n\n.. toctree::\n\n   part/page\n   films\n")
    (source / "part").mkdir()
    (source / "part" / "page.rst").write_text("Page\n====\n\n.. raw:: html\n\n   <div class=\"node-live\" "
                                              "data-live=\"draw\"></div>\n")
    (source / "films.rst").write_text("Films\n=====\n\n.. figure:: figures/states.gif\n   :width: 9px\n\n.. "
                                      "figure:: figures/alone.gif\n")
    (source / "figures").mkdir()
    (source / "figures" / "states-sheet.png").write_bytes(SHEETS["states"])
    for name in ("states", "alone"):
        (source / "figures" / f"{name}.gif").write_bytes(animation.gif(LEVELS))
    out = tmp_path / "out"
    folders = [str(folder) for folder in (source, source, out, tmp_path / "trees")]
    sphinx.Sphinx(*folders, "html", status=None).build()
    assert "live/" not in (out / "index.html").read_text()
    text = (out / "part" / "page.html").read_text()
    for name in ("live.js", "live.css"):
        assert f'"../live/{name}"' in text and (out / "live" / name).exists()
    text = (out / "films.html").read_text()
    parts = re.findall(r'<div class="node-live" data-live="film" data-film="(.*?)" data-gif="(.*?)">'
                       r'(?=<a|<img)', text)
    assert parts == [("states", "_images/states.gif")] and (out / "live" / "films" / "states.js").exists()
    assert text.count("<img") == 2 and '"live/live.js"' in text


def test_the_hero_attacks_one_digit_after_the_other(visit):
    page = visit()
    place = page.locator("[data-live=hero]")
    place.locator("[data-done]").wait_for()
    words = place.locator(".node-live-says")
    wrong = place.locator(".node-live-wrong")
    assert words.first.inner_text().startswith("small-10 says 7,") and wrong.count() == 1
    body = place.locator("[data-done]").element_handle()
    done = "([body, n]) => Number(body.dataset.done) === n"
    place.get_by_role("slider").press("Home")
    page.wait_for_function(done, arg=[body, 2])
    assert words.first.inner_text() == words.last.inner_text() and wrong.count() == 0
    place.get_by_role("button", name="Another digit").press("Enter")
    page.wait_for_function(done, arg=[body, 3])
    assert words.first.inner_text().startswith("small-10 says 2,")


def test_the_end_time_slider_shows_what_the_library_computes(visit):
    page = visit()
    place = part(page, "endtime")
    page.wait_for_function("document.querySelector('[data-live=endtime] [data-done]').dataset.done === '2'")
    time = place.get_by_role("slider", name="Time")
    image = torch.tensor(list(live.digits()[1][:784])).view(1, 1, 28, 28) / 255
    for key, t in (("Home", 0.1), ("End", 1000.0)):
        time.press(key)
        for side, name in enumerate(configs.PAIR):
            model = artifacts.load_run(runs_dir() / f"{name}-seed0").load_model()
            with torch.no_grad():
                z = model.trajectory(image, [t])[0]
                f = model.block.func(0.0, z)
                angle = torch.nn.functional.cosine_similarity(z.flatten(), f.flatten(), 0).acos().rad2deg()
                score = model.head(z).softmax(1).max()
            numbers = place.locator(".node-live-numbers").nth(side).locator("td").all_inner_texts()
            size, speed, direction = (float(text.rstrip("°")) for text in numbers)
            assert size == pytest.approx(z.norm().item(), rel=0.01)
            assert speed == pytest.approx(f.norm().item(), rel=0.01)
            assert direction == pytest.approx(angle.item(), abs=0.5)
            shown = place.locator(".node-live-bars").nth(side).locator(".node-live-top").inner_text()
            assert float(shown.split()[0]) == pytest.approx(100 * score.item(), abs=1)


def test_normalising_each_frame_hides_that_the_state_grows(visit):
    page = visit()
    place = part(page, "endtime")
    place.get_by_role("slider", name="Time").press("Home")
    spread = """c => { const v = [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]
      .filter((x, i) => i % 4 === 0 && x > 0); return Math.max(...v) - Math.min(...v); }"""
    state = place.get_by_role("img", name="The state at t = 0.1").first
    assert state.evaluate(spread) > 200
    place.get_by_label("Normalise each frame").press("Space")
    assert state.evaluate(spread) < 20


def film(visit, name: str):
    """A page and a film's player in it, at its start; it does not begin by itself."""
    page = visit(reduced_motion="reduce")
    place = page.locator(f"[data-film={name}]")
    place.scroll_into_view_if_needed()
    place.get_by_role("button").wait_for()
    return page, place


def greys(place) -> list[int]:
    return place.locator(".node-live-films canvas").evaluate_all(
        "all => all.map((c) => c.getContext('2d').getImageData(0, 0, 1, 1).data[0])")


def test_a_film_is_scrubbed_in_time_and_in_log_time_with_all_its_pictures_in_step(visit):
    page, place = film(visit, "states")
    time, clock = place.get_by_role("slider", name="Time"), place.locator(".node-live-clock")
    assert greys(place) == [0, 200] and clock.inner_text() == "t = 0"
    time.press("End")
    assert greys(place) == [200, 0] and clock.inner_text() == "t = 1000"
    box = time.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    middle = float(clock.inner_text().removeprefix("t = "))
    frame = max(i for i, t in enumerate(TIMES) if t <= middle)
    assert middle == pytest.approx(500, abs=15) and greys(place) == [20 * frame, 200 - 20 * frame]
    place.get_by_label("Log time").press("Space")
    assert float(clock.inner_text().removeprefix("t = ")) == pytest.approx(middle, rel=0.02)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert float(clock.inner_text().removeprefix("t = ")) == pytest.approx(10, rel=0.3)
    assert place.get_by_role("link", name="Download as GIF").get_attribute("href") == "states.gif"


def test_a_film_plays_and_stops_where_it_is(visit):
    page, place = film(visit, "states")
    button, time = place.get_by_role("button"), place.get_by_role("slider", name="Time")
    place.get_by_label("Speed").select_option("0.25")  # a busy machine must find it before its end
    button.press("Enter")
    page.wait_for_function("(e) => Number(e.value) > 20", arg=time.element_handle())
    button.press("Enter")
    stood = time.input_value()
    assert button.inner_text() == "Play" and int(stood) < 1000
    page.wait_for_timeout(200)
    assert time.input_value() == stood
    place.get_by_label("Speed").select_option("4")
    button.press("Enter")
    # the slider rounds, so it shows the end a picture before the film is there
    page.wait_for_function("(e) => e.innerText === 'Play'", arg=button.element_handle())
    assert time.input_value() == "1000"


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_film_begins_by_itself_unless_less_motion_is_asked_for(visit, motion):
    page = visit(reduced_motion=motion)
    place = page.locator("[data-film=states]")
    place.scroll_into_view_if_needed()
    place.get_by_role("button").wait_for()
    page.wait_for_timeout(300)
    time = place.get_by_role("slider", name="Time")
    assert (int(time.input_value()) > 0) == (motion == "no-preference")
    page.locator("[data-live=hero]").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    assert place.get_by_role("button").inner_text() == "Play"  # nothing plays off screen


def test_the_map_shows_the_image_behind_a_digit(visit):
    _, place = film(visit, "map")
    plane, said = place.locator(".node-live-map"), place.get_by_role("status")
    box = plane.bounding_box()

    def point(x: float, y: float):
        plane.hover(position={"x": box["width"] * (0.5 + 0.46 * x), "y": box["height"] * (0.5 - 0.46 * y)})

    point(1, 0.5)
    assert said.inner_text() == "Image 2, class 8"
    image = "c => c.getContext('2d').getImageData(14, 14, 1, 1).data[0]"
    assert place.locator(".node-live-seen canvas").evaluate(image) == 255
    point(-1, 0)
    assert said.inner_text() == "Image 1, class 3"
    place.get_by_label("Image").press("ArrowDown")
    assert said.inner_text() == "Image 2, class 8"


# the same right-hand sides in JavaScript and in torch
FIELDS = {
    "spiral": ("([x, y]) => [-0.1 * x ** 3 - 2 * y ** 3, 2 * x ** 3 - 0.1 * y ** 3]",
               lambda x, y: [-0.1 * x**3 - 2 * y**3, 2 * x**3 - 0.1 * y**3]),
    "oscillator": ("([x, y]) => [y, 5 * (1 - x * x) * y - x]", lambda x, y: [y, 5 * (1 - x * x) * y - x]),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_the_playground_takes_the_steps_of_the_library(visit, field, tolerance):
    page = visit()
    part(page, "playground")
    script, f = FIELDS[field]
    text = f"""([start, tolerance]) => {{
      const found = NodeLive.solvePlain(NodeLive.core(), {script}, start, 10, tolerance);
      return {{y: found.y, nfe: found.nfe, steps: found.steps, rejected: found.rejected}};
    }}"""
    found = page.evaluate(text, [[2.0, 0.5], tolerance])
    start = torch.tensor([2.0, 0.5], dtype=torch.float64)
    settings = dict(rtol=tolerance, atol=tolerance, params=())
    solution = odeint(lambda t, y: torch.stack(f(*y)), start, [0.0, 10.0], **settings)
    assert found["nfe"] == solution.nfe
    for ours, theirs in ((found["steps"], solution.steps), (found["rejected"], solution.rejected_steps)):
        assert torch.allclose(torch.tensor(ours).flatten(), torch.tensor(theirs).flatten(), rtol=1e-5)
    assert torch.allclose(torch.tensor(found["y"], dtype=torch.float64), solution.y[-1], rtol=1e-6, atol=1e-8)


def test_the_start_of_the_playground_moves_by_mouse_and_keys(visit):
    page = visit()
    place = part(page, "playground")
    said = place.get_by_role("status").inner_text()
    field = place.locator(".node-live-field-of-arrows")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    ring = place.locator(".node-live-handle circle").last.bounding_box()

    def drag():
        page.mouse.move(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"], steps=5)
        page.mouse.up()

    moved = after(page, place, drag)
    assert moved != said
    across, up = (place.get_by_role("slider", name=name) for name in ("Start, across", "Start, up"))
    assert abs(float(across.input_value())) <= 1 and float(up.input_value()) == pytest.approx(-80, abs=2)
    tight = after(page, place, lambda: place.get_by_role("slider", name="Tolerance").press("Home"))
    steps = [int(text.split()[0]) for text in (moved, tight)]
    assert steps[1] > 3 * steps[0]
    assert after(page, place, lambda: up.press("Home")) != tight
    assert place.locator(".node-live-step-point").count() > steps[0]


def test_no_part_is_wider_than_a_phone(visit):
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True)
    for kind in ("hero", "draw", "dial", "epsilon", "endtime", "playground"):
        part(page, kind)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, kind
