"""The built book as one PDF file, by Chromium: `python -m nodelib pdf`, after `jupyter-book build book/`.

Chapters and what stands before and after them, in the order of the table of contents, formulas set and
solutions open. Left out are what only a screen can do, the code that a page folds, the pages of the runs and
the API reference. The front page of the built site then links the file.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from nodelib.experiment.artifacts import write_atomic
from nodelib.experiment.progress import say
from nodelib.solver.errors import InputError, NodelibError

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
NAME = "book.pdf"
LEFT_OUT = ("runs/", "19-api", "24-api")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]
_PAGES = """() => [...document.querySelectorAll('nav.bd-links a.internal')]
  .map(a => a.getAttribute('href'))"""
# One page's article, its formulas set. Ids begin with the page's name, as several pages have the same; links
# to printed pages lead to places in the one document, and those to others and to files beside it to nowhere.
_ARTICLE = """async ([page, pages]) => {
  if (window.MathJax) await MathJax.startup.promise;
  const article = document.querySelector('article.bd-article');
  const away = '.headerlink, .page-card, .toggle-button, details.hide > summary, script, style';
  for (const part of article.querySelectorAll('details.above-input'))
    part.closest('.tag_hide-input') ? part.remove() : (part.open = true);
  for (const part of article.querySelectorAll(away)) part.remove();
  for (const part of article.querySelectorAll('.node-live'))
    part.querySelector('img') ? part.replaceWith(part.querySelector('img')) : part.remove();
  for (const part of article.querySelectorAll('details')) part.open = true;
  for (const part of article.querySelectorAll('.dropdown'))
    part.classList.remove('dropdown', 'toggle', 'toggle-hidden');
  for (const image of article.querySelectorAll('img')) image.setAttribute('src', image.src);
  const own = part => !part.closest('svg');  // formulas refer to their own glyphs
  for (const part of [...article.querySelectorAll('[id]')].filter(own)) part.id = `${page}--${part.id}`;
  for (const link of [...article.querySelectorAll('a[href]')].filter(own)) {
    const href = link.getAttribute('href'), [name, place] = href.split('#'), file = name || page;
    if (pages.includes(file)) link.setAttribute('href', '#' + file + (place ? '--' + place : ''));
    else if (!/^[a-z][a-z0-9+.-]*:/i.test(href)) link.replaceWith(...link.childNodes);
  }
  return `<section id="${page}" style="break-before: page">${article.innerHTML}</section>`;
}"""
_BOOK = """parts => {
  document.documentElement.dataset.theme = 'light';
  document.body.innerHTML = `<article class="bd-article">${parts.join('')}</article>`;
  return Promise.all([...document.images].map(image => image.decode().catch(() => null))).then(() => null);
}"""
_STYLE = """body { font-size: 10pt; } .bd-article { padding: 0 !important; }
figure, table, .admonition, .math { break-inside: avoid; } h1, h2, h3 { break-after: avoid; }
pre { white-space: pre-wrap !important; }"""
_NUMBER = '<div style="font-size: 8px; width: 100%; text-align: center" class="pageNumber"></div>'


def find_browser() -> str | None:
    """The path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def articles(page: Any, site: Path) -> list[str]:
    """The HTML of the pages to print, taken through a browser's page."""
    page.route("**/live/live.js", lambda route: route.abort())  # films stay images
    page.route("**/pause.js*", lambda route: route.abort())
    page.goto((site / "index.html").as_uri())
    names = ["index.html", *(name for name in page.evaluate(_PAGES)
                             if name.endswith(".html") and not name.startswith(LEFT_OUT))]
    parts = []
    for name in (names := list(dict.fromkeys(names))):
        page.goto((site / name).as_uri())
        parts.append(page.evaluate(_ARTICLE, [name, names]))
    return parts


def make(site: Path = SITE) -> Path:
    """Print the pages of a built site into `book.pdf` beside them and link it from the front page.

    Raises:
        InputError: nothing is built there, or Chromium or its Python package is missing.
        NodelibError: Chromium failed.
    """
    front = site / "index.html"
    if not front.is_file():
        raise InputError(f"no site is built in {site}; build it with `make book`, or name another by --site")
    text = front.read_text(encoding="utf-8")
    before, end, after = text.partition("</article>")
    if not end:
        raise InputError(f"{front} has no </article>, as every page of the book has; build it again with "
                         "`make book`")
    browser = find_browser()
    if browser is None:
        raise InputError(f"no Chromium found; install one of {', '.join(BROWSERS)}")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise InputError("the package playwright is missing; install it by `make .venv/.test`") from error

    try:
        with sync_playwright() as engine:
            instance = engine.chromium.launch(executable_path=browser, args=ARGUMENTS)
            page = instance.new_page(viewport={"width": 900, "height": 1200}, color_scheme="light")
            parts = articles(page, site)
            page.goto(front.as_uri())
            page.evaluate(_BOOK, parts)
            page.add_style_tag(content=_STYLE)
            page.emulate_media(media="screen")
            content = page.pdf(format="A4", print_background=True, outline=True, tagged=True,
                               display_header_footer=True, header_template="<span></span>",
                               footer_template=_NUMBER,
                               margin={"top": "18mm", "bottom": "18mm", "left": "18mm", "right": "18mm"})
            instance.close()
    except Error as error:
        raise NodelibError(f"{browser} was found and failed; see whether `{browser} --headless --no-sandbox "
                           f"--dump-dom {front}` works: {error}") from error
    write_atomic(site / NAME, content)
    link = f'<p><a href="{NAME}">The book as one PDF file</a></p>'
    if link not in text:
        write_atomic(front, f"{before}{link}</article>{after}".encode())
    return site / NAME


def main(arguments: list[str] | None = None) -> int:
    """Print the built book into one PDF file; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nodelib pdf", description=main.__doc__)
    parser.add_argument("--site", type=Path, default=SITE, help="the built site (default: _build/html)")
    say(str(make(parser.parse_args(arguments).site.resolve())))
    return 0
