"""What belongs together stays in one line, and nothing else of a page changes."""

import re
import sys

import pytest
from book_site import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from mended_pages import unbroken  # noqa: E402

GAP = "\u00a0"


@pytest.mark.parametrize("html, wanted", [
    ("<p>at 5 % of</p>", f"<p>at 5{GAP}% of</p>"),
    ("<p><span>51</span> % of</p>", f"<p><span>51</span>{GAP}% of</p>"),  # a pasted value
    ("<td>0.7 (0.6 to 1.5)</td>", '<td>0.7 (<span class="kept">0.6 to 1.5</span>)</td>'),
    ("<td>from 1 to 9.</td>", '<td>from <span class="kept">1 to 9</span>.</td>'),
    ("<td>-1,000 to -0.5</td>", '<td><span class="kept">-1,000 to -0.5</span></td>'),
    ("<td>99.3 [99.1, 99.5]</td>", '<td>99.3 <span class="kept">[99.1, 99.5]</span></td>'),
    ("<td>tolerance 1e-05</td>", '<td>tolerance <span class="kept">1e-05</span></td>'),
    ("<td>of large-100-post,</td>", '<td>of <span class="kept">large-100-post</span>,</td>'),
    ('<p><span class="math notranslate nohighlight">\\(t\\)</span>, so</p>',
     '<p><span class="kept"><span class="math notranslate nohighlight">\\(t\\)</span>,</span> so</p>')])
def test_a_percent_sign_a_range_a_name_and_a_formulas_comma_are_kept(html, wanted):
    assert unbroken(html) == wanted


@pytest.mark.parametrize("html", [
    "<pre>10 % 3, <span>7</span> % 2, 1 to 2</pre>", "<p><code>large-100 5 % 3</code></p>",
    '<a href="small-10-seed0.html">a %</a>', '<p><span class="math">\\([0, 1]\\)</span></p>',
    '<div class="math"><span>(8.1)</span>\\[1 to 2 \\in [0, 1]\\]</div>',
    "<p>one-by-one, to 5</p>", "<script>x = 5 % 3</script>"])
def test_code_and_addresses_are_left_as_they_are(html):
    assert unbroken(html) == html


def test_after_code_words_are_looked_at_again():
    assert unbroken("<pre><span>a</span></pre><p>5 %</p>") == f"<pre><span>a</span></pre><p>5{GAP}%</p>"
    html = (ROOT / "book" / "06-what-made-it.md").read_text().replace("<", "&lt;")
    assert re.sub("<[^>]*>", "", unbroken(html)).replace(GAP, " ") == html
