"""The built book as one file to print."""

import pytest
from book_site import chromium

from nodelib.publish import pdf
from nodelib.solver.errors import InputError, NodelibError

PAGE = ('<html><head><meta charset="utf-8"></head><body><nav class="bd-links">{links}</nav>'
        '<article class="bd-article">{text}</article></body></html>')


def _write(folder, links="", **pages):
    for name, text in pages.items():
        found = "".join(f'<a class="internal" href="{link}">x</a>' for link in links) * (name == "index")
        (folder / f"{name}.html").write_text(PAGE.format(links=found, text=text), encoding="utf-8")


def test_a_site_that_is_not_built_is_an_error(tmp_path):
    with pytest.raises(InputError, match="make book"):
        pdf.make(tmp_path)


def test_what_is_missing_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<html></html>")
    with pytest.raises(InputError, match="</article>"):
        pdf.make(tmp_path)
    _write(tmp_path, index="<h1>Front</h1>")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="no Chromium found"):
        pdf.make(tmp_path)


def test_a_browser_that_fails_is_named(tmp_path, monkeypatch):
    pytest.importorskip("playwright.sync_api", reason="the packages of the checks are missing")
    _write(tmp_path, index="<h1>Front</h1>")
    monkeypatch.setattr(pdf, "find_browser", lambda: "/bin/false")
    with pytest.raises(NodelibError, match="/bin/false was found and failed"):
        pdf.make(tmp_path)
    assert not (tmp_path / pdf.NAME).exists()


@pytest.mark.browser
@pytest.mark.more
def test_links_lead_to_the_page_they_mean_and_nowhere_if_it_is_left_out(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api",
                                     reason="the packages of the checks are missing")
    same = '<h2 id="same">Same</h2><a href="#same">own</a>'
    drawn = '<svg><path id="glyph"/><use href="#glyph"/></svg>'
    _write(tmp_path, ("one.html", "runs/two.html"), index="<h1>Front</h1>" + same,
           one=f'{same}{drawn}<a href="index.html#same">front’s</a><a href="index.html">front</a>'
               '<a href="runs/two.html#same"><b>run</b></a><a href="_downloads/a.csv">file</a>'
               '<a href="https://example.org/index.html#same">away</a>')
    with playwright.sync_playwright() as engine:
        instance = engine.chromium.launch(executable_path=chromium(), args=pdf.ARGUMENTS)
        front, one = pdf.articles(instance.new_page(), tmp_path)
        instance.close()
    assert 'id="index.html"' in front and '<h2 id="index.html--same">' in front
    assert '<a href="#index.html--same">own</a>' in front
    for kept in ('id="one.html"', '<h2 id="one.html--same">', '<a href="#one.html--same">own</a>',
                 '<a href="#index.html--same">front’s</a>', '<a href="#index.html">front</a>',
                 '<b>run</b>file<a href="https://example.org/index.html#same">away</a>',
                 '<path id="glyph">', 'href="#glyph"'):
        assert kept in one


@pytest.mark.browser
@pytest.mark.more
def test_the_pages_are_printed_and_the_front_page_links_them_once(tmp_path):
    pytest.importorskip("playwright.sync_api", reason="the packages of the checks are missing")
    chromium()
    _write(tmp_path, ("one.html", "runs/two.html"), index="<h1>Front, “quoted”</h1>", one="<h1>One</h1>")
    for _ in range(2):
        content = pdf.make(tmp_path).read_bytes()
        assert content.startswith(b"%PDF-") and content.count(b"/Type /Page\n") == 2  # no page of a run
        text = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert text.count('<a href="book.pdf">') == 1 and "“quoted”" in text
