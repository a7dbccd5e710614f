"""Sphinx extension: show nodelib's docstrings, which are plain text, on the API page.

They are written to be read in the source: sections such as "Args:", hanging items, formulas in plain
characters. Read as reStructuredText, every `|y|`, `y0*` and nested item would be a warning or would vanish.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the API page imports nodelib, installed or not

SECTIONS = {"Args": "Arguments", "Fields": "Fields", "Attributes": "Attributes", "Returns": "Returns",
            "Raises": "Raises", "Yields": "Yields"}
_ITEM = re.compile(r"[\w*][\w*., ]*( \([^)]*\))?:\s")


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


def _items(lines: list[str]) -> list[list[str]]:
    """Hanging items: a line at the base indentation starts one, unless it continues a paragraph."""
    base = min(_indent(line) for line in lines)
    items: list[list[str]] = []
    for i, line in enumerate(lines):
        deeper_next = i + 1 < len(lines) and _indent(lines[i + 1]) > base
        starts = _indent(line) == base and (deeper_next or line.lstrip().startswith('"') or _ITEM.match(line.lstrip()))
        if starts or not items:
            items.append([line])
        else:
            items[-1].append(line)
    return items


def _list(lines: list[str], depth: int) -> list[str]:
    margin, out = "  " * depth, []
    for item in _items(lines):
        rest = item[1:]
        plain = len({_indent(line) for line in rest}) <= 1
        first, _, after = item[0].strip().partition(": ")
        names = re.fullmatch(r"[\w*., ]+|\"[^\"]+\"(, \"[^\"]+\")*", first) and (after or rest)
        head = f"**{escape(first)}**: {escape(after)}" if names else escape(item[0].strip())
        if plain:
            out += [f"{margin}- " + " ".join([head, *(escape(line.strip()) for line in rest)])]
        else:
            out += [f"{margin}- {head}", "", *_list(rest, depth + 1)]
        out.append("")
    return out


def convert(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText."""
    out: list[str] = []
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line.rstrip())
        elif blocks[-1]:
            blocks.append([])
    previous = ""
    for block in filter(None, blocks):
        paragraph = 0
        while paragraph < len(block):
            header = block[paragraph].rstrip(":")
            if block[paragraph].endswith(":") and header in SECTIONS:
                end = paragraph + 1
                while end < len(block) and _indent(block[end]):
                    end += 1
                if end > paragraph + 1:
                    out += [f"**{SECTIONS[header]}**", "", *_list(block[paragraph + 1:end], 0), ""]
                paragraph = end
            elif _indent(block[paragraph]):
                end = paragraph + 1
                while end < len(block) and _indent(block[end]):
                    end += 1
                part = block[paragraph:end]
                if previous.endswith(":") or not _ITEM.match(part[0].lstrip()):
                    out += ["::", "", *("   " + line for line in part), ""]
                else:
                    out += [*_list(part, 0), ""]
                paragraph = end
            else:
                out.append(escape(block[paragraph]))
                previous = block[paragraph]
                paragraph += 1
                if paragraph < len(block) and (_indent(block[paragraph]) or block[paragraph].rstrip(":") in SECTIONS):
                    out.append("")
        out.append("")
    return out


def _process(app, what, name, thing, options, lines: list[str]) -> None:
    lines[:] = convert(lines)


def setup(app) -> dict:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    return {"version": "1", "parallel_read_safe": True}
