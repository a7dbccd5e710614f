"""Sphinx extension: nodelib's docstrings on the API page, their sections by napoleon.

They are written to be read in the source, with formulas in plain characters: read as reStructuredText, every
`|y|` and `y0*` would be a warning or would vanish.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the API page imports nodelib, installed or not


def escape(text: str) -> str:
    """Keep `code` and **bold** as they are; make every other character with a meaning a plain one."""
    parts = re.split(r"(``[^`]+``|`[^`]+`|\*\*[^*]+\*\*(?=\W|$))", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([\\*|`])", r"\\\1", parts[i])
        parts[i] = re.sub(r"_(?=\W|$)", r"\\_", parts[i])
    for i in range(1, len(parts), 2):
        if not parts[i].startswith("**"):
            parts[i] = "``" + parts[i].strip("`") + "``"
        # inline markup has to be set off from letters, digits and brackets
        before, after = parts[i - 1][-1:], parts[i + 1][:1]
        parts[i] = ("\\ " if before and not before.isspace() else "") + parts[i] + (
            "\\ " if after and not after.isspace() else "")
    return "".join(parts)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _process(app, what, name, thing, options, lines: list[str]) -> None:
    """Plain characters; items that hang below an argument become a list, and what is indented under no
    section, such as a command or a formula, a literal block.
    """
    out: list[str] = []
    section = literal = False
    base = 8  # where what hangs below an item begins
    for i, line in enumerate(lines):
        indent = _indent(line)
        hangs = i + 1 < len(lines) and _indent(lines[i + 1]) >= base + 4
        if not line.strip():
            out.append("")
        elif not indent:
            section = line.endswith(":") and " " not in line
            base = 4 if line in ("Returns:", "Yields:") else 8  # these have no items of napoleon's
            out += ["", escape(line)] if literal else [escape(line)]
            literal = False
        elif not section:
            out += ["   " + line] if literal else ["", "::", "", "   " + line]
            literal = True
        elif indent == base and (hangs or line.lstrip().startswith('"')):
            out += ["", " " * base + "* " + escape(line.strip())]
        else:
            above = lines[i - 1].lstrip()
            ended = _indent(lines[i - 1]) >= base + 4 or above.startswith('"')
            out += [""] if indent == base and ended else []
            out.append(" " * min(indent, base + 2) + escape(line.strip()))
    lines[:] = out


def setup(app) -> dict:
    app.setup_extension("sphinx.ext.napoleon")
    app.config.napoleon_custom_sections = [("Fields", "params_style")]
    app.config.napoleon_use_param = app.config.napoleon_use_rtype = app.config.napoleon_use_ivar = False
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon
    return {"version": "1", "parallel_read_safe": True}
