"""What a killed process left behind is removed where it is this machine's, and harms nothing elsewhere."""

import os
import platform

import pytest

from nodelib.experiment import files


def test_what_changes_each_time_it_is_read_is_refused_and_a_fault_that_stays_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "READ_PAUSE", 0.0)
    stated, reads = tmp_path / "checksums.json", []

    def read(fault=None, until=files.READS):
        reads.append(None)
        if len(reads) < until:
            stated.write_text(str(len(reads)))
        if fault:
            raise files.ArtifactError(fault)
        return len(reads)

    assert files.undisturbed(lambda: read(until=3), [stated]) == 3
    with pytest.raises(files.ArtifactError, match="was written by another process each of the 40 times"):
        files.undisturbed(lambda: read(until=1000), [stated])
    for until in (len(reads) + 2, 1000):
        with pytest.raises(files.ArtifactError, match="it is damaged"):
            files.undisturbed(lambda: read("it is damaged", until), [stated])
    seen = []
    assert files.undisturbed(lambda: 7, [stated], lambda found: bool(seen.append(found))) == 7
    assert len(seen) == files.READS


def test_leftovers_of_ended_processes_are_removed_and_those_of_running_ones_stay(tmp_path, monkeypatch):
    host = platform.node()
    monkeypatch.setattr(files, "_runs", lambda process: process == os.getpid())
    ended, running = (tmp_path / f".metrics.csv.{host}.{process}-34.tmp" for process in (12, os.getpid()))
    for path in (ended, running):
        path.touch()
    files.write_atomic(tmp_path / "metrics.csv", b"x")
    assert not ended.exists() and running.exists() and (tmp_path / "metrics.csv").read_bytes() == b"x"


@pytest.mark.parametrize("longer", ["local.12-34", "7.12-34", "12-34-56", "x"])
def test_what_a_host_left_whose_name_goes_on_where_this_ones_ends_is_let_be(longer, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_runs", lambda process: False)
    left = tmp_path / f".metrics.csv.{platform.node()}.{longer}.tmp"
    left.touch()
    files.write_atomic(tmp_path / "metrics.csv", b"x")
    assert left.exists() and (tmp_path / "metrics.csv").read_bytes() == b"x"
