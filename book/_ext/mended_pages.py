"""Sphinx extension: mend what Jupyter Book, its theme and docutils leave wrong on every page; build faster.

Thebe would run cells on a remote server, which this book does not use; its script is put on each page twice,
which is an error in the browser's console. For screen readers, the sidebar's toggles, an icon alone, get a
name, and the entries of a list of references become items of it, as a list may have no others.

A build keeps every page's tree in memory, and the collector of reference cycles walks all of them again and
again without finding much: nearly a third of the build's processor time.
"""

import gc

ALLOCATIONS = 200_000  # between two collections of the youngest objects; Python's default is 700


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
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app) -> dict:
    gc.set_threshold(ALLOCATIONS, 50, 100)
    app.connect("config-inited", _without_thebe)
    app.connect("html-page-context", _for_screen_readers, priority=900)  # after the theme's own
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
