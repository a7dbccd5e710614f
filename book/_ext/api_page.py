"""Sphinx extension: list nodelib's modules on the API page, so that a new one appears there by itself.

In the page's text, `% modules: models attacks` stands for these modules or packages with everything in
them, and `% modules: rest` for all that no other line names.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

PAGE = "19-api"


def _public_modules() -> list[str]:
    import nodelib

    names = (module.name.removeprefix("nodelib.") for module in pkgutil.walk_packages(nodelib.__path__, "nodelib."))
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def _section(name: str) -> str:
    module = importlib.import_module(f"nodelib.{name}")
    option = "   :members:"
    if hasattr(module, "__path__"):  # what a package only passes on is documented where it is defined
        own = [key for key, value in vars(module).items()
               if not key.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__]
        option = f"   :members: {', '.join(own)}" if own else ""
    return "\n".join([f"### nodelib.{name}", "", "```{eval-rst}", f".. automodule:: nodelib.{name}", option, "```", ""])


def _expand(app, docname: str, source: list[str]) -> None:
    if docname != PAGE:
        return
    modules = _public_modules()
    lines = re.findall(r"^% modules: (.*)$", source[0], re.MULTILINE)
    named = {word for line in lines for word in line.split()}

    def belongs(module: str, word: str) -> bool:
        if word == "rest":
            return module.split(".")[0] not in named
        return module == word or module.startswith(word + ".")

    def sections(match: re.Match) -> str:
        return "\n".join(_section(m) for word in match[1].split() for m in modules if belongs(m, word))

    source[0] = re.sub(r"^% modules: (.*)$", sections, source[0], flags=re.MULTILINE)


def setup(app) -> dict:
    app.setup_extension("docstrings")  # it also puts the repository on the import path
    app.connect("source-read", _expand)
    return {"version": "1", "parallel_read_safe": True}
