"""What was broken on purpose: tests marked `fault` are counted by kind for a page of the book.

`@pytest.mark.fault("killed", "training killed", "the same bits")` says what a test breaks, in which part of
the page, and what must hold. A test counts as one fault, or as `times=` so many, or as it counts itself
through the fixture `fault`; the message is that of the first error it expects by its words, with
`pytest.raises(..., match=...)`.
`pytest --faults=FILE` writes the table.
"""

import contextlib
import csv
import io
import re
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pytest

from nodelib.experiment.files import write_atomic

MESSAGE = 150  # characters of a message that are kept


@dataclass
class Fault:
    """A row of the table: what was broken, what must hold, how often it was tried and did not."""

    part: str = ""
    fault: str = ""
    promise: str = ""
    injected: int = 0
    lost: int = 0  # what had been stored and is gone
    wrong: int = 0  # a mixture, other bits, no error where one is due
    message: str = ""

    def tell(self, message: str) -> None:
        """Keep the first message, without the folders of this machine and with short hashes."""
        plain = re.sub(r"(?:/[^\s/:'\"]+)+/", "", (message.splitlines() or [""])[0])
        plain = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24,}\b", r"\1…", plain)
        cut = plain if len(plain) <= MESSAGE else plain[:MESSAGE].rsplit(" ", 1)[0] + " …"
        self.message = self.message or cut


KEY = pytest.StashKey[Fault]()
ROWS = pytest.StashKey[dict]()


def pytest_addoption(parser):
    parser.addoption("--faults", type=Path, metavar="FILE", help="write the table of injected faults as CSV")


def pytest_configure(config):
    config.stash[ROWS] = {}


@pytest.fixture
def fault(request) -> Fault:
    """What the test counts by itself; without it one test is one fault."""
    return request.node.stash[KEY]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    if mark := item.get_closest_marker("fault"):
        item.stash[KEY] = Fault(*mark.args)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Note the first error that a marked test expects and gets."""
    if KEY not in item.stash:
        return (yield)
    raises = pytest.raises

    @contextlib.contextmanager
    def noting(*expected, **options):
        with raises(*expected, **options) as caught:
            yield caught
        if "match" in options:
            item.stash[KEY].tell(str(caught.value))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytest, "raises", noting)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if KEY in item.stash and call.when == "call" and not report.skipped:
        own = item.stash[KEY]
        own.injected = own.injected or item.get_closest_marker("fault").kwargs.get("times", 1)
        own.wrong += report.failed and not own.lost + own.wrong
        row = item.config.stash[ROWS].setdefault(own.fault, Fault(own.part, own.fault, own.promise))
        for count in ("injected", "lost", "wrong"):
            setattr(row, count, getattr(row, count) + getattr(own, count))
        row.tell(own.message)
    return report


def pytest_sessionfinish(session):
    if path := session.config.getoption("--faults"):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(Fault))
        writer.writerows(astuple(row) for row in session.config.stash[ROWS].values())
        write_atomic(path, text.getvalue().encode())
