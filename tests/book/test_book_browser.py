"""Every page in a real browser, from the file system: no error, no request outside, readable everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from book_site import ROOT, site

playwright = pytest.importorskip("playwright.sync_api",
                                 reason="the packages of the checks are missing: make .venv/.test")
pytestmark = [pytest.mark.browser, pytest.mark.more]

# Formulas set and not set, with errors, wider than their box; tables wider than theirs, drawings whose words
# are too small, the page's width, and text of too little contrast
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
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c;
    }
    const scheme = getComputedStyle(document.documentElement).getPropertyValue('color-scheme');
    return parse(scheme.includes('dark') ? '18 18 18' : '255 255 255');
  };
  const faint = [];
  for (const e of document.querySelectorAll('article *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent || e.closest('mjx-container, .visually-hidden, .headerlink, svg')) continue;
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (e.closest('pre') ? 3 : 4.5)) faint.push(ratio.toFixed(1) + ' ' + named(e));
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
          wide: wide.slice(0, 5), faint: faint.slice(0, 5), theme: document.documentElement.dataset.theme};
}
"""


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
    page.goto(path.as_uri())
    page.wait_for_function("!document.querySelector('.math') || (window.MathJax && MathJax.startup && "
                           "MathJax.startup.promise)")
    page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true")
    found = page.evaluate(PROBE)
    context.close()
    return found, complaints


def every_page(browser, **settings) -> dict[str, tuple[dict, list[str]]]:
    return {str(page.relative_to(site().html)): visit(browser, page, **settings) for page in site().pages}


def test_every_page_opens_wide_without_a_complaint_and_sets_its_formulas(browser):
    faults = {}
    for name, (found, complaints) in every_page(browser, viewport={"width": 1280, "height": 900}).items():
        if complaints or any(found[kind] for kind in ("errors", "unset", "wide", "tables")):
            faults[name] = (complaints, found)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser, scheme):
    settings = dict(viewport={"width": 1000, "height": 900}, color_scheme=scheme)
    faults = {}
    for name, (found, _) in every_page(browser, **settings).items():
        assert found["theme"] == scheme, name
        if found["faint"]:
            faults[name] = found["faint"]
    assert not faults, faults


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
