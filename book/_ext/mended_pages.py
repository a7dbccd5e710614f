"""Sphinx extension: mend what Jupyter Book, its theme and docutils leave wrong on every page; build faster.

Thebe would run cells on a remote server, which this book does not use; its script is put on each page twice,
which is an error in the browser's console. For screen readers, the sidebar's toggles, an icon alone, get a
name, and the entries of a list of references become items of it, as a list may have no others.

No line begins with a percent sign, or with the comma after a formula; none ends within a range, an interval,
a number such as 1e-05 or a network's name. Code is left as it is.

A build keeps every page's tree in memory, and the collector of reference cycles walks all of them again and
again without finding much: nearly a third of the build's processor time.
"""

import gc
import re

ALLOCATIONS = 200_000  # between two collections of the youngest objects; Python's default is 700
UNTOUCHED = ("pre", "code", "script", "style", "svg", "title", "textarea", "button")
TAG = re.compile(r"(<[^>]*>)")
PERCENT = re.compile(r"(?<=\d) (?=%)")
WHOLE = re.compile(r"(?<![\w.-])-?\d[\d.,]* to -?\d[\d.,]*\d\b|(?<![\w.-])-?\d to \d\b"  # a range
                   r"|\[-?[\d.]+, -?[\d.]+\]|(?<![\w-])\d(?:\.\d+)?e-\d+(?![\w-])"  # an interval, 1e-05
                   r"|(?<![\w-])(?:small|large|wide|resnet)(?:-[a-z0-9]+)+(?![\w-])")  # a network
FORMULA = re.compile(r'(<span class="math notranslate nohighlight">[^<]*</span>)([.,;:)]+)')


def _without_thebe(app, config) -> None:
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]
    for files in (app.registry.js_files, app.registry.css_files):
        files[:] = [file for file in files if "thebe" not in (file[0] or "")]


def _for_screen_readers(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    toctree = context["generate_toctree_html"]

    def named(*args, **settings):
        soup = toctree(*args, **settings)
        for summary in soup("summary"):
            if link := summary.find_parent("li").find("a"):
                summary["aria-label"] = f"Pages of {link.get_text().strip()}"
        return soup

    context["generate_toctree_html"] = named
    if "body" in context:
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = unbroken(body)


def unbroken(html: str) -> str:
    """A page's body with what belongs together kept in one line."""
    parts, within, last = TAG.split(html), (), ""
    for k, part in enumerate(parts):
        if k % 2:
            name = re.match(r"</?(\w*)", part)[1]
            if name in UNTOUCHED and part.startswith("</"):
                within = within[:-1]
            elif name in UNTOUCHED and not part.endswith("/>"):
                within = (*within, name)
            continue
        if not within and part and "\\(" not in part and "\\[" not in part:  # nor in a formula
            if part.startswith(" %") and last.isdigit():  # the number is a pasted value
                part = "\u00a0" + part[1:]
            parts[k] = WHOLE.sub(r'<span class="kept">\g<0></span>', PERCENT.sub("\u00a0", part))
        last = part[-1:] or last
    return FORMULA.sub(r'<span class="kept">\1\2</span>', "".join(parts))


def setup(app) -> dict:
    gc.set_threshold(ALLOCATIONS, 50, 100)
    app.connect("config-inited", _without_thebe)
    app.connect("html-page-context", _for_screen_readers, priority=900)  # after the theme's own
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
