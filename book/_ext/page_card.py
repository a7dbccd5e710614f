"""Sphinx extension: a card at the foot of each executed page, on the front page how to cite the book, and
what search engines and messengers show of a page.

The card says at which scale the page was executed and what it read: files and runs with their seeds, and of
the runs the hardware, the time that training took and the commits; and it offers the notebook. The notebook's
own record names the inputs (`nodelib.publish.render`); the rest is in the runs' `config.json`.
"""

import json
from collections import defaultdict
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes

COMMITS = 3  # named; of more, how many
DESCRIPTION = 200  # characters of a page's own description
SHOWN = 160  # characters of an entry; longer ones are folded


def _notebook_record(path: Path) -> dict:
    from nodelib.publish.render import RECORD

    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get(RECORD, {})


def _listed(values, most: int | None = None) -> str:
    values = list(dict.fromkeys(values))
    more = [] if most is None or len(values) <= most else [f"{len(values) - most} more"]
    return ", ".join([*values[:most], *more])


def facts(record: dict) -> dict[str, str]:
    """What the card of a page says, from the record in its notebook; empty where it has no inputs."""
    from nodelib.experiment.artifacts import read_json
    from nodelib.experiment.configs import CONTINUES
    from nodelib.publish.render import run_folders

    inputs = record.get("inputs", [])
    stored = [read_json(folder / "config.json") for folder in run_folders(inputs)
              if (folder / "config.json").exists()]
    seeds = defaultdict(list)
    for run in stored:
        seeds[run["config"]["name"]].append(str(run["config"]["seed"]))
    provenance = [run["provenance"] for run in stored]
    seconds = {(run["config"]["name"], run["config"]["seed"]): run["provenance"].get("seconds", 0)
               for run in stored}
    # what a run took over from another is counted once
    taken = sum(seconds.get((CONTINUES.get(name), seed), 0) for name, seed in seconds)
    hours = (sum(seconds.values()) - taken) / 3600
    threads = [f"{p['device']}, {p['threads']} thread{'s' * (p['threads'] != 1)}" for p in provenance]
    named = [f"{name} (seed{'s' * (len(of) > 1)} {', '.join(of)})" for name, of in seeds.items()]
    found = {
        "Scale": record.get("scale", ""),
        "Data read": _listed(i for i in inputs if not i.startswith("data/runs/")),
        "Runs read": _listed(named),
        "Trained on": _listed(threads),
        "Training took": f"{hours:.1f} hours in all" if hours else "",
        "At commit": _listed((p["commit"][:10] for p in provenance if p.get("commit")), COMMITS),
    }
    return {name: text for name, text in found.items() if text}


def bibtex(root: Path, year: str, url: str = "") -> str:
    """The BibTeX entry of CITATION.cff, with the repository's address where there is one."""
    import yaml

    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    names = " and ".join(f"{{{who['name']}}}" if "name" in who
                         else f"{who['family-names']}, {who['given-names']}" for who in cited["authors"])
    fields = {"author": names, "title": f"{{{cited['title']}}}", "year": year, "version": cited["version"],
              "url": url}
    lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join(["@software{nodelib,", *lines, "}"])


def _entry(text: str) -> str:
    if len(text) <= SHOWN:
        return escape(text)
    begin = text[:SHOWN // 3]
    first = escape(begin.rpartition(",")[0] or begin)
    return f"<details><summary>{first} …</summary>{escape(text)}</details>"


def _add_card(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    path = Path(app.env.doc2path(pagename)) if doctree is not None else Path()
    if path.suffix == ".ipynb":
        rows = "".join(f"<dt>{escape(name)}</dt><dd>{_entry(text)}</dd>"
                       for name, text in facts(_notebook_record(path)).items())
        source = context["pathto"](f"_sources/{context['sourcename']}", 1)
        rows += f'<dt>Notebook</dt><dd><a href="{escape(source)}" download>{escape(path.name)}</a></dd>'
        context["body"] += f'\n<aside class="page-card" aria-label="About this page"><dl>{rows}</dl></aside>'
    if pagename == app.config.root_doc:
        url = app.config.html_theme_options.get("repository_url", "")
        entry = bibtex(Path(app.srcdir).parent, app.config.copyright, url)
        context["body"] += ('\n<aside class="page-card" aria-label="Cite this"><p>Cite this</p>'
                            f"<pre>{escape(entry)}</pre></aside>")


def _describe(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """What search engines and messengers show of a page: its title and how its text begins."""
    if doctree is None:
        return
    paragraphs = (" ".join(node.astext().split()) for node in doctree.findall(nodes.paragraph))
    text = next(filter(None, paragraphs), "")
    if len(text) > DESCRIPTION:
        text = text[:DESCRIPTION].rsplit(" ", 1)[0] + " …"
    # the context's title is HTML, with the number of the section
    tags = {"description": text, "og:title": app.env.titles[pagename].astext(), "og:description": text,
            "og:type": "article"}
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta {"property" if name.startswith("og:") else "name"}="{name}" content="{escape(value)}">'
        for name, value in tags.items() if value)


def _without_address(app, config) -> None:
    """The theme asks for the repository's address wherever a page can be launched."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)


def _with_address(app) -> None:
    """What a site can have once its address is known: a list of its pages, and an error page that finds
    styles and links from any depth.
    """
    if base := app.config.html_baseurl:
        app.setup_extension("sphinx_sitemap")
        app.setup_extension("notfound.extension")
        app.config.sitemap_url_scheme = "{link}"
        app.config.notfound_urls_prefix = f"{urlsplit(base).path.rstrip('/')}/"


def setup(app) -> dict:
    app.setup_extension("docstrings")  # it also puts the repository on the import path
    _with_address(app)
    app.connect("config-inited", _without_address)
    app.connect("html-page-context", _add_card)
    app.connect("html-page-context", _describe)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
