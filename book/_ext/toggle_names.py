"""Sphinx extension: the sidebar's toggles have names. The theme makes them of an icon alone, which no screen
reader can read out."""

from __future__ import annotations


def _name_toggles(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    toctree = context["generate_toctree_html"]

    def named(*args, **settings):
        soup = toctree(*args, **settings)
        for summary in soup("summary"):
            if link := summary.find_parent("li").find("a"):
                summary["aria-label"] = f"Pages of {link.get_text().strip()}"
        return soup

    context["generate_toctree_html"] = named


def setup(app) -> dict:
    app.connect("html-page-context", _name_toggles, priority=900)  # after the theme's own
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
