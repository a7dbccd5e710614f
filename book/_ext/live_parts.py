"""Sphinx extension: pages that hold a live part (`<div class="node-live" data-live="...">`) load its script.

No other page does. The scripts, the kernels and the weights of the stored runs go to `live/` of the site.
"""

from __future__ import annotations

from pathlib import Path


def _load_script(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    if 'class="node-live"' in context.get("body", ""):
        path = context["pathto"]
        context["metatags"] += f'\n<link rel="stylesheet" href="{path("live/live.css", 1)}">'
        context["body"] += f'\n<script defer src="{path("live/live.js", 1)}"></script>'


def _export(app, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        from nodelib.publish.live import export

        export(Path(app.outdir) / "live")


def setup(app) -> dict:
    app.connect("html-page-context", _load_script)
    app.connect("build-finished", _export)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
