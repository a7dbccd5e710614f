"""The built book as one file to print."""

from __future__ import annotations

import pytest

from nodelib.publish import pdf
from nodelib.solver.errors import InputError

PAGE = ('<html><body><nav class="bd-links">{links}</nav>'
        '<article class="bd-article">{text}</article></body></html>')


def test_a_site_that_is_not_built_is_an_error(tmp_path):
    with pytest.raises(InputError, match="make book"):
        pdf.make(tmp_path)


@pytest.mark.browser
@pytest.mark.more
def test_the_pages_are_printed_and_the_front_page_links_them_once(tmp_path):
    pytest.importorskip("playwright.sync_api", reason="the packages of the checks are missing")
    if not any(map(pdf.shutil.which, pdf.BROWSERS)):
        pytest.skip("no Chromium found")
    links = "".join(f'<a class="internal" href="{name}">x</a>' for name in ("one.html", "runs/two.html"))
    (tmp_path / "index.html").write_text(PAGE.format(links=links, text="<h1>Front</h1>"))
    (tmp_path / "one.html").write_text(PAGE.format(links="", text="<h1>One</h1>"))
    for _ in range(2):
        content = pdf.make(tmp_path).read_bytes()
        assert content.startswith(b"%PDF-") and content.count(b"/Type /Page\n") == 2  # no page of a run
        assert (tmp_path / "index.html").read_text().count('<a href="book.pdf">') == 1
