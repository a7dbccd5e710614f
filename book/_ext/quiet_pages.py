"""Sphinx extension: leave out what Jupyter Book adds to every page and this book does not use.

Thebe would run cells on a remote server; its script is put on each page twice, which is an error in the
browser's console.
"""

from __future__ import annotations


def _without_thebe(app, config) -> None:
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]
    for files in (app.registry.js_files, app.registry.css_files):
        files[:] = [file for file in files if "thebe" not in (file[0] or "")]


def setup(app) -> dict:
    app.connect("config-inited", _without_thebe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
