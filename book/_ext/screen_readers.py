"""Sphinx extension: names and roles for screen readers that the theme and docutils leave wrong.

The sidebar's toggles are an icon alone and get a name; the entries of a list of references become items
of it, as a list may have no others.
"""

from __future__ import annotations


def _mend(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    toctree = context["generate_toctree_html"]

    def named(*args, **settings):
        soup = toctree(*args, **settings)
        for summary in soup("summary"):
            if link := summary.find_parent("li").find("a"):
                summary["aria-label"] = f"Pages of {link.get_text().strip()}"
        return soup

    context["generate_toctree_html"] = named
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app) -> dict:
    app.connect("html-page-context", _mend, priority=900)  # after the theme's own
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
