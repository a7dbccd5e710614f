"""The book builds without a warning, quickly, and its HTML is whole: links, images, captions, no network."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from book_site import ROOT, site

bs4 = pytest.importorskip("bs4", reason="the packages of the checks are missing: make .venv/.test")

# the first test to ask for the site builds the book
pytestmark = pytest.mark.slow


@cache
def soup(path: Path):
    return bs4.BeautifulSoup(path.read_text(), "html.parser")


@cache
def anchors(path: Path) -> set[str]:
    ids = {tag["id"] for tag in soup(path).find_all(id=True)}
    return ids | {tag["name"] for tag in soup(path).find_all("a", attrs={"name": True})}


def content_pages() -> list[Path]:
    return [page for page in site().pages
            if page.name not in ("search.html", "genindex.html", "py-modindex.html")]


def test_the_book_builds_with_warnings_as_errors():
    assert site().status == 0, site().log[-4000:]
    assert not re.search(r"WARNING|ERROR|CRITICAL", site().log), site().log[-4000:]


def test_every_page_of_the_table_of_contents_is_built():
    names = re.findall(r"(?:file|root):\s*(\S+)", (ROOT / "book" / "_toc.yml").read_text())
    assert len(names) >= 15
    for name in names:
        assert (site().html / name).with_suffix(".html").exists(), name


def test_internal_links_and_anchors_resolve():
    broken = []
    for page in site().pages:
        for tag in soup(page).find_all("a", href=True):
            parts = urlsplit(tag["href"])
            if parts.scheme or parts.netloc or tag["href"] == "#":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.exists():
                broken.append(f"{page.name}: {tag['href']}")
                continue
            fragment = unquote(parts.fragment)
            if fragment and target.suffix == ".html" and fragment not in anchors(target):
                broken.append(f"{page.name}: {tag['href']} (no such anchor)")
    assert not broken, "\n".join(broken)


def test_every_image_exists_and_has_alternative_text_of_its_own():
    faults = []
    for page in content_pages():
        for image in soup(page).select("article img"):
            source, text = image.get("src", ""), image.get("alt", "").strip()
            if not (page.parent / unquote(source)).exists():
                faults.append(f"{page.name}: {source} does not exist")
            if len(text) < 20 or Path(source).stem in text:  # Sphinx fills in the file's name
                faults.append(f"{page.name}: {source} has the alternative text {text!r}")
    assert not faults, "\n".join(faults)


def test_every_image_is_a_figure_with_a_caption():
    faults = []
    for page in content_pages():
        for image in soup(page).select("article img"):
            figure = image.find_parent("figure")
            caption = figure.figcaption if figure else None
            if caption is None or len(caption.get_text(strip=True)) < 20:
                faults.append(f"{page.name}: {image.get('src')}")
    assert not faults, "\n".join(faults)


def test_no_page_loads_anything_from_the_network():
    loaded = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href",
              "object": "data"}
    faults = []
    for page in site().pages:
        for name, attribute in loaded.items():
            for tag in soup(page).find_all(name):
                if re.match(r"(https?:)?//", tag.get(attribute) or "") and tag.get("rel") != ["canonical"]:
                    faults.append(f"{page.name}: <{name} {attribute}={tag[attribute]}>")
    for sheet in site().html.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", sheet.read_text())
        faults += [f"{sheet.name}: {url}" for url in urls]
    assert not faults, "\n".join(faults)


API = ("19-api.html", "24-api-of-the-book.html")


def test_every_page_has_one_title_and_names_its_language():
    for page in content_pages():
        assert len(soup(page).select("article h1")) == 1, page.name
        assert soup(page).html.get("lang") == "en", page.name


def test_no_placeholder_or_unresolved_markup_is_left_in_the_text():
    faults = []
    for page in content_pages():
        if page.name in API:  # docstrings may speak of markup
            continue
        article = bs4.BeautifulSoup(str(soup(page).find("article")), "html.parser")
        for tag in article.select("pre, code, script, .math"):
            tag.decompose()
        for match in re.finditer(r"\{[a-z:]+\}`|TODO|FIXME|lorem ipsum|\bnan\b|@\w+@|\$\S|\^\{",
                                 article.get_text()):
            faults.append(f"{page.name}: {match[0]}")
    assert not faults, "\n".join(faults)


def test_the_pages_of_the_api_document_every_public_module_and_name_once():
    import importlib
    import pkgutil

    import nodelib

    first, second = (anchors(site().html / page) for page in API)
    assert not {each for each in first & second if each.startswith(("module-", "nodelib."))}
    ids, missing = first | second, []
    for module in pkgutil.walk_packages(nodelib.__path__, "nodelib."):
        if any(part.startswith("_") for part in module.name.split(".")):
            continue
        if f"module-{module.name}" not in ids:
            missing.append(module.name)
            continue
        loaded = importlib.import_module(module.name)
        for name, thing in vars(loaded).items():
            public = not name.startswith("_") and getattr(thing, "__module__", None) == module.name
            documented = public and getattr(thing, "__doc__", None) and callable(thing)
            if documented and f"{module.name}.{name}" not in ids:
                missing.append(f"{module.name}.{name}")
    assert not missing, missing


def test_the_book_names_no_path_of_a_machine():
    faults = [page.name for page in site().pages
              if re.search(r"/(home|root|work|tmp|Users)/\w", soup(page).get_text())]
    assert not faults
