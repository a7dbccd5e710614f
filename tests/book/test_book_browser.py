"""Every page in a real browser, from the file system: no error, no request outside, readable everywhere."""

import re
from pathlib import Path

import pytest
from book_site import ROOT, site

playwright = pytest.importorskip("playwright.sync_api",
                                 reason="the packages of the checks are missing: make .venv/.test")
pytestmark = [pytest.mark.browser, pytest.mark.more]

# Formulas set and not set, with errors, wider than their box; tables wider than theirs, drawings whose words
# are too small, and the page's width
PROBE = r"""
() => {
  const set = document.querySelectorAll('mjx-container').length;
  const formulas = [...document.querySelectorAll('.math')].filter(e => !e.querySelector('.math'));
  const named = e => e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 40);
  const wide = [];
  const limit = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > limit + 1) {
    for (const e of document.querySelectorAll('main *')) {
      let inside = false;  // of something that scrolls by itself
      for (let p = e.parentElement; p && !inside; p = p.parentElement)
        inside = /auto|scroll|hidden/.test(getComputedStyle(p).overflowX) && p.tagName !== 'BODY';
      if (!inside && e.getBoundingClientRect().right > limit + 1) wide.push(named(e));
    }
    if (!wide.length) wide.push('the page');
  }
  const unset = formulas.filter(e => !e.querySelector('mjx-container')).map(e => e.textContent.slice(0, 60));
  const errors = [...document.querySelectorAll('mjx-merror, [data-mjx-error]')]
    .map(e => e.getAttribute('data-mjx-error') || e.textContent);
  const cut = [...document.querySelectorAll('mjx-container[display="true"]')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => named(e.parentElement) + e.parentElement.id);
  const small = [...document.querySelectorAll('img.whole')]  // 9 points are 12 pixels of such a drawing
    .filter(e => e.getBoundingClientRect().width < 0.75 * e.naturalWidth).map(e => e.getAttribute('src'));
  const tables = [...document.querySelectorAll('.pst-scrollable-table-container')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(named);
  return {unset, set, errors, cut, small, tables,
          wide: wide.slice(0, 5)};
}
"""


def load(page, path: Path) -> None:
    """Open a page and wait for its formulas."""
    page.goto(path.as_uri())
    page.wait_for_function("!document.querySelector('.math') || (window.MathJax && MathJax.startup && "
                           "MathJax.startup.promise)")
    page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true")


def visit(browser, path: Path, **settings) -> tuple[dict, list[str]]:
    """Open a page in a fresh context; what the probe found, and every complaint of the browser."""
    context = browser.new_context(**settings)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console",
            lambda m: complaints.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"request failed: {request.url}"))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:"))
            else complaints.append(f"request outside: {request.url}"))
    load(page, path)
    found = page.evaluate(PROBE)
    context.close()
    return found, complaints


def every_page(browser, **settings) -> dict[str, tuple[dict, list[str]]]:
    return {str(page.relative_to(site().html)): visit(browser, page, **settings) for page in site().pages}


def test_every_page_opens_wide_without_a_complaint_and_sets_its_formulas(browser):
    faults = {}
    for name, (found, complaints) in every_page(browser, viewport={"width": 1280, "height": 900}).items():
        wrong = {kind: found[kind] for kind in ("errors", "unset", "wide", "tables") if found[kind]}
        if complaints or wrong:
            faults[name] = (complaints, wrong)
    assert not faults, faults


def test_a_phone_shows_pages_formulas_and_narrow_drawings_whole(browser):
    settings = dict(viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True,
                    has_touch=True)
    faults = {name: wrong for name, (found, _) in every_page(browser, **settings).items()
              if any(wrong := [found[kind] for kind in ("wide", "cut", "small")])}
    assert not faults, faults


@pytest.mark.parametrize("width", [1000, 1190, 1210])
def test_no_cell_of_full_width_is_wider_than_the_window(browser, width):
    pages = [page for page in site().pages if "tag_full-width" in page.read_text()]
    found = {page.name: visit(browser, page, viewport={"width": width, "height": 900})[0]["wide"]
             for page in pages}
    assert found and not any(found.values()), found


# What axe finds serious in a page, by rule and place. The glyphs of formulas and most of the API's
# entries, which are alike, are taken out first, for axe would spend minutes on them.
CHECK = """
async (rules) => {
  for (const entry of [...document.querySelectorAll('dl.py')].slice(20)) entry.remove();
  for (const formula of document.querySelectorAll('mjx-container > svg')) formula.replaceChildren();
  for (const details of document.querySelectorAll('details:not(.above-input)')) details.open = true;
  // what fades in is half transparent meanwhile
  for (const change of document.getAnimations())
    if (Number.isFinite(change.effect.getComputedTiming().endTime)) change.finish();
  const {violations} = await axe.run({resultTypes: ['violations'], runOnly: rules});
  return violations.filter(({impact}) => ['serious', 'critical'].includes(impact)).flatMap(
    ({id, nodes}) => nodes.map(({target, failureSummary}) => `${id}: ${target} (${failureSummary})`));
}
"""
# all rules once, and those on colours in the other theme too
RULES = {"light": ["wcag2a", "wcag2aa"], "dark": ["color-contrast", "link-in-text-block"]}


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_serious_violation_on_any_page_light_or_dark(browser, width):
    axe = pytest.importorskip("axe_playwright_python.base",
                              reason="the packages of the checks are missing: make .venv/.test")
    context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(120_000)
    faults = []
    for path in site().pages:
        page = context.new_page()
        page.emulate_media(color_scheme="light")
        load(page, path)
        for part in page.locator(".node-live").all():
            part.scroll_into_view_if_needed()
            part.locator(".node-live-body").wait_for()
        page.evaluate(axe.AXE_SCRIPT)
        for scheme, rules in RULES.items():
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
            name = path.relative_to(site().html)
            faults += [f"{name}, {scheme}: {fault}" for fault in page.evaluate(CHECK, rules)]
        page.close()
    context.close()
    assert not faults, "\n".join(faults)


@pytest.fixture
def animation(tmp_path) -> Path:
    """A page with one animated GIF and the book's own script."""
    image = pytest.importorskip("PIL.Image")
    frames = [image.new("L", (10, 10), level) for level in (0, 80, 160, 240)]
    frames[0].save(tmp_path / "state.gif", save_all=True, append_images=frames[1:], duration=40, loop=0)
    for name in ("pause.js", "book.css"):
        (tmp_path / name).write_text((ROOT / "book" / "_static" / name).read_text())
    page = tmp_path / "page.html"
    page.write_text('<link rel="stylesheet" href="book.css"><script src="pause.js"></script>'
                    '<div class="bd-article">'
                    '<img src="state.gif" alt="A square that brightens." style="width: 200px"></div>')
    return page


@pytest.mark.parametrize("motion, first", [("no-preference", "Pause"), ("reduce", "Play")])
def test_animations_can_be_paused_and_start_paused_where_asked_to(browser, animation, motion, first):
    context = browser.new_context(reduced_motion=motion)
    page = context.new_page()
    page.goto(animation.as_uri())
    button = page.locator("button")
    assert button.inner_text() == first
    assert page.locator("img").is_visible() == (first == "Pause")
    button.press("Enter")
    assert button.inner_text() != first
    assert page.locator("img").is_visible() == (first == "Play")
    paused = page.locator("canvas") if first == "Pause" else page.locator("img")
    assert paused.bounding_box()["width"] == pytest.approx(200)
    context.close()


def test_every_animation_of_the_book_has_a_button(browser):
    pages = [page for page in site().pages if re.search(r'<img[^>]*\.gif"', page.read_text())]
    for path in pages:
        page = browser.new_page()
        page.goto(path.as_uri())
        animations = page.locator(".bd-article img[src$='.gif']").count()
        assert page.locator(".gif-frame button").count() == animations > 0
        page.close()


def test_search_works_from_the_file_system(browser):
    page = browser.new_page()
    page.goto((site().html / "search.html").as_uri() + "?q=adjoint")
    page.wait_for_selector("#search-results li", timeout=20000)
    page.close()
