"""What mutants.csv says of the tests holds its promise; `make mutants` writes it."""

import csv
from collections import Counter
from pathlib import Path

import mutants


def test_of_three_hundred_mutants_85_in_a_hundred_die_and_each_survivor_has_a_reason():
    with mutants.TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    fates = Counter(row["fate"] for row in rows)
    assert fates.keys() <= {"died", "survived"} and fates.total() == mutants.SAMPLE == 300
    assert fates["died"] >= 0.85 * fates.total()
    for row in rows:
        assert Path(mutants.ROOT, row["module"]).is_file()
        assert bool(row["reason"]) == (row["fate"] == "survived"), row
