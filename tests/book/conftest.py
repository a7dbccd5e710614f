"""A browser for the tests of the pages."""

import pytest
from book_site import chromium

from nodelib.publish.pdf import ARGUMENTS


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api",
                                     reason="the packages of the checks are missing: make .venv/.test")
    with playwright.sync_playwright() as engine:
        instance = engine.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield instance
        instance.close()
