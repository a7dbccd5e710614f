"""Sphinx extension: list nodelib's modules on the API's pages, so that a new one appears there by itself.

In the pages' text, `% modules: models attacks` stands for these modules or packages with everything in
them, `% modules: rest` for all that no line of any page names, and `% house` for a drawing of the library's
folders, made from their imports.
"""

import ast
import functools
import pkgutil
import re
from pathlib import Path

PAGES = ("19-api", "24-api-of-the-book")
LINE = re.compile(r"^% modules: (.*)$", re.MULTILINE)


def _public_modules() -> list[str]:
    import nodelib

    names = (module.name.removeprefix("nodelib.")
             for module in pkgutil.walk_packages(nodelib.__path__, "nodelib."))
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def _section(name: str) -> str:
    # what a module only passes on is documented where it is defined
    return "\n".join([f"### nodelib.{name}", "", "```{eval-rst}", f".. automodule:: nodelib.{name}",
                      "   :members:", "   :ignore-module-all:", "```", ""])


def _expand(app, docname: str, source: list[str]) -> None:
    if docname not in PAGES:
        return
    modules = _public_modules()
    texts = [Path(app.srcdir, f"{page}.md").read_text(encoding="utf-8") for page in PAGES]
    named = {word for text in texts for line in LINE.findall(text) for word in line.split()}

    def belongs(module: str, word: str) -> bool:
        if word == "rest":
            return module.split(".")[0] not in named
        return module == word or module.startswith(word + ".")

    def sections(match: re.Match) -> str:
        return "\n".join(_section(m) for word in match[1].split() for m in modules if belongs(m, word))

    source[0] = source[0].replace("% house", _house())
    source[0] = LINE.sub(sections, source[0])


def _arrows() -> dict[str, set[str]]:
    """Folder or module at the top of the library -> those it imports, functions' imports included."""
    from nodelib.publish import dependencies

    found: dict[str, set[str]] = {}
    for path in sorted(dependencies.PACKAGE.rglob("*.py")):
        here = path.relative_to(dependencies.PACKAGE).parts[0].removesuffix(".py")
        if here.startswith("__"):
            continue
        imports = dependencies._imports_of(ast.parse(path.read_text(encoding="utf-8")), "")
        names = {f"{each.module}.{each.name}".split(".")[1] for each in imports
                 if each.module.startswith("nodelib")}
        found.setdefault(here, set()).update(names - {here})
    return {name: {target for target in targets if target in found} for name, targets in found.items()}


def _house() -> str:
    """The folders of the library as a drawing: each stands below those it uses."""
    arrows = _arrows()

    @functools.cache
    def floor(name: str) -> int:
        return 1 + max((floor(target) for target in arrows[name]), default=-1)

    floors = [[name for name in arrows if floor(name) == k] for k in range(1 + max(map(floor, arrows)))]
    place = {name: ((i + 0.5) * 720 / len(names), 24 + 62 * k) for k, names in enumerate(floors) for i,
             name in enumerate(names)}
    # an arrow that another path already tells is left out
    direct = [(a, b) for a, targets in arrows.items() for b in sorted(targets)
              if not any(b in arrows[c] for c in targets - {b})]
    lines = [f'<path d="M{place[a][0]:.0f} {place[a][1] - 15:.0f} L{place[b][0]:.0f} {place[b][1] + 18:.0f}" '
             f'marker-end="url(#tip)"/>'
             for a, b in direct]
    boxes = [f'<g><rect x="{x - 62:.0f}" y="{y - 15:.0f}" width="124" height="30" rx="5"/>'
             f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{name}</text></g>' for name,
             (x, y) in place.items()]
    words = "; ".join(f"{name} uses {', '.join(sorted(targets)) or 'nothing of the library'}" for name,
                      targets in arrows.items())
    return "\n".join([
        "```{raw} html",
        f'<svg class="nodelib-house" viewBox="0 0 720 {62 * len(floors) - 10}" role="img" '
        f'aria-label="{words}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker></defs>', *lines, *boxes, "</svg>", "```"])


def setup(app) -> dict:
    app.setup_extension("docstrings")  # it also puts the repository on the import path
    app.connect("source-read", _expand)
    return {"version": "1", "parallel_read_safe": True}
