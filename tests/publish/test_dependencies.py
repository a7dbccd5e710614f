"""A page's source files are found from its imports, however they are written, and nothing else is."""

from __future__ import annotations

import pytest

from nodelib.publish.dependencies import PACKAGE, source_files

FILES = {
    "__init__.py": "from nodelib.a import one\nfrom nodelib.b import two\n",
    "a.py": "import os\nfrom nodelib import c\none = 1\n",
    "b.py": "def two():\n    from nodelib.d import x\n    return x\n",
    "c.py": "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
            "from nodelib.b import two\n",
    "d.py": "x = 'kernel.c'\n",
    "kernel.c": "int main;",
    "other.c": "int main;",
    "sub/__init__.py": "from .e import first as renamed\nfrom nodelib.sub import f\nhere = 1\n",
    "sub/e.py": "from ..a import one\nfirst = one\n",
    "sub/f.py": "from . import e\n",
}


@pytest.fixture
def package(tmp_path):
    """A package with every kind of import."""
    for name, content in FILES.items():
        path = tmp_path / "nodelib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "nodelib"


@pytest.mark.parametrize("code, expected", [
    ("import os, numpy.linalg\nfrom elsewhere import a", ""),
    ("from nodelib import a", "a.py c.py"),
    ("import nodelib.a as b", "a.py c.py"),
    ("def f():\n    if True:\n        from nodelib.b import two", "b.py d.py kernel.c"),
    ("from nodelib import one", "__init__.py a.py c.py"),
    ("from nodelib.sub import renamed", "sub/__init__.py sub/e.py a.py c.py"),
    ("from nodelib.sub import here", "sub/__init__.py sub/e.py sub/f.py a.py c.py"),
    ("from nodelib.sub import f", "sub/f.py sub/e.py a.py c.py"),
    ("from nodelib import sub", "sub/__init__.py sub/e.py sub/f.py a.py c.py"),
    ("from nodelib.a import *", "a.py c.py"),
    ("import nodelib", "__init__.py a.py b.py c.py d.py kernel.c"),
])
def test_the_imports_are_followed(package, code, expected):
    assert {path.relative_to(package).as_posix()
            for path in source_files(code, package)} == set(expected.split())


def test_a_changed_module_is_read_again(package):
    before = source_files("from nodelib import d", package)
    (package / "d.py").write_text("from nodelib import c  # now it does")
    assert package / "c.py" in set(source_files("from nodelib import d", package)) - set(before)


def test_the_compiled_kernel_belongs_to_the_module_that_compiles_it():
    files = source_files("from nodelib.networks import ODENet")
    assert PACKAGE / "solver" / "kernel.c" in files and PACKAGE / "publish" / "style.py" not in files
    assert PACKAGE / "verdicts" / "changes.toml" in source_files("from nodelib.verdicts import ledger")
