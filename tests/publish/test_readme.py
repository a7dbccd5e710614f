"""The generated parts of the README are those of the committed runs."""

from pathlib import Path

import pytest

from nodelib import verdicts
from nodelib.experiment.artifacts import find_runs, read_json
from nodelib.experiment.paths import data_dir
from nodelib.publish import readme, table

README = Path(__file__).parents[2] / "README.md"


def shown(path: Path, name: str, content: str) -> bool:
    """Whether this and nothing else stands between the marks of a file."""
    return f"<!-- {name}: begin -->\n{content}\n<!-- {name}: end -->" in path.read_text()


def test_the_readme_shows_the_table_of_the_committed_runs():
    assert shown(README, "table", table.as_markdown(table.rows(find_runs())))


def test_the_readme_shows_the_verdicts_of_the_committed_runs():
    rows = verdicts.ledger(find_runs(), read_json(data_dir() / "seed.json"))
    assert shown(README, "claims", verdicts.summary(rows))


def test_a_file_without_marks_is_left_alone(tmp_path):
    path = tmp_path / "text.md"
    path.write_text("no marks")
    with pytest.raises(ValueError, match="does not hold the marks"):
        readme.write_between(path, "table", "| a |")
    assert path.read_text() == "no marks"


def test_what_is_written_between_the_marks_is_read_back_and_the_rest_stays(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("above\n<!-- table: begin -->\nold\n<!-- table: end -->\nbelow\n")
    readme.write_between(path, "table", "new")
    assert shown(path, "table", "new")
    assert path.read_text().startswith("above\n") and path.read_text().endswith("\nbelow\n")


def test_writing_between_the_marks_keeps_line_ends_permissions_and_links(tmp_path):
    path, link = tmp_path / "README.md", tmp_path / "link.md"
    path.write_bytes(b"above\r\n<!-- table: begin -->\r\nold\r\n<!-- table: end -->\r\nbelow\r\n")
    path.chmod(0o600)
    link.symlink_to(path.name)
    readme.write_between(link, "table", "one\ntwo")
    assert path.read_bytes() == (b"above\r\n<!-- table: begin -->\r\none\r\ntwo\r\n"
                                 b"<!-- table: end -->\r\nbelow\r\n")
    assert shown(path, "table", "one\ntwo")
    assert path.stat().st_mode & 0o777 == 0o600 and link.is_symlink()
