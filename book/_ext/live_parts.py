"""Sphinx extension: pages that hold a live part (`<div class="node-live" data-live="...">`) load its script.

No other page does. The scripts, the kernels and the weights of the stored runs go to `live/` of the site. A
figure that shows a film as a GIF becomes a part of the kind `film` where the film's sheet lies beside it.
"""

import re
from pathlib import Path

_GIF = re.compile(r'(<a class="[^"]*image-reference[^>]*>)?'
                  r'<img [^>]*src="([^"]*/([\w.-]+\.gif))"[^>]*>(?(1)\s*</a>)')


def _load_script(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    if ".gif" in context.get("body", ""):
        from nodelib.publish.live import films

        known = films(Path(app.srcdir) / "figures")

        def part(match: re.Match) -> str:
            image, _, source, name = match[0], *match.groups()
            if name not in known:
                return image
            return (f'<div class="node-live" data-live="film" data-film="{name.removesuffix(".gif")}" '
                    f'data-gif="{source}">{image}</div>')

        context["body"] = _GIF.sub(part, context["body"])
    if 'class="node-live"' in context.get("body", ""):
        path = context["pathto"]
        context["metatags"] += f'\n<link rel="stylesheet" href="{path("live/live.css", 1)}">'
        context["body"] += f'\n<script defer src="{path("live/live.js", 1)}"></script>'


def _export(app, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        from nodelib.publish.live import export

        export(Path(app.outdir) / "live", figures=Path(app.srcdir) / "figures")


def setup(app) -> dict:
    app.connect("html-page-context", _load_script)
    app.connect("build-finished", _export)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
