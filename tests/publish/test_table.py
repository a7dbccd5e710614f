import pytest

from nodelib.experiment import configs
from nodelib.experiment.artifacts import Run
from nodelib.publish import table


def stored(name: str, seed: int, **accuracies: float) -> Run:
    records = [{"id": key.replace("_", "-"), "t1": 10.0, "n": 1000, "accuracy": value}
               for key, value in accuracies.items()]
    return Run(name, seed, path=None, config={"epochs": 6}, provenance={}, history={}, metrics=records,
               measurements=[])


def test_all_48_figures_of_the_post_are_there_and_ours_are_blank_without_runs():
    rows = table.rows([])
    assert len(rows) == 24
    # column sums of the post's table: a mistyped digit anywhere shows
    assert sum(float(row["clean, post"]) for row in rows) == pytest.approx(1847.61)
    assert sum(float(row["FGSM, post"]) for row in rows) == pytest.approx(635.24)
    for row in rows:
        assert row["clean, ours"] == row["FGSM, post's protocol"] == row["PGD-10, exact"] == table.BLANK
    headline = next(row for row in rows if row["network"] == "large-100" and row["t"] == "100")
    assert (headline["clean, post"], headline["FGSM, post"]) == ("99.01", "92.62")


def test_our_figures_stand_in_their_own_cell():
    rows = table.rows([stored("small-10", 0, none_random_t10=0.985, fgsm_seed_t10=0.1)])
    filled = [row for row in rows if row["clean, ours"] != table.BLANK]
    columns = ("network", "t", "clean, ours", "FGSM, post's protocol")
    assert [[row[column] for column in columns] for row in filled] == [
        ["small-10", "10", "98.5", "10.0 (8.3 to 12.0)"]]


def test_several_seeds_give_their_range():
    runs = [stored("small-10", s, none_random_t10=a) for s, a in ((0, 0.98), (1, 0.99))]
    cell = next(c for c in table.cells(runs) if c.records["clean_random"])
    assert table.per_cent(cell.records["clean_random"]) == "98.0 to 99.0"


@pytest.mark.parametrize("ours, reproduced", [([0.9864], True), ([0.9565], True), ([0.9563], False),
                                              ([0.90, 0.97], True), ([0.90, 0.91], False)])
def test_an_entry_is_reproduced_within_three_points_or_the_range_of_our_seeds(ours, reproduced):
    runs = [stored("small-10", seed, none_random_t10=value) for seed, value in enumerate(ours)]
    (entry,) = table.compare(table.cells(runs))
    assert entry.theirs == 98.64 and entry.reproduced is reproduced


def test_every_entry_says_on_how_many_images():
    rows = table.rows([stored("small-10", 0, none_random_t10=0.98, fgsm_seed_t10=0.1)])
    row = next(r for r in rows if r["clean, ours"] != table.BLANK)
    assert (row["clean images"], row["attacked images"], row["epochs"]) == ("1000", "1000", "6")


def test_a_control_names_what_it_is_compared_with_and_in_what_it_differs():
    assert table.differs_in("small-100-nolast") == "small-100: no last normalisation"
    assert table.differs_in("resnet-6") == "wide-standard: 6 residual blocks, no solver"
    assert all(not table.differs_in(name).endswith(": ") for name in configs.CONTROLS)


def test_markdown_and_text_hold_the_same_cells():
    rows = table.rows([])
    markdown, text = table.as_markdown(rows), table.as_text(rows)
    assert markdown.count("\n") == 25 and "92.62" in markdown and "92.62" in text
    assert len(text.splitlines()) == 3 + 24 and len({len(line) for line in text.splitlines()}) == 1


def test_controls_stand_at_their_own_end_time():
    run = stored("small-10-tight", 0, none_t10=0.98, none_t100=0.3, pgd10_exact_t10=0.01)
    columns = ("network", "clean, fixed pooling", "PGD-10, exact", "FGSM, exact")
    rows = table.control_rows([run, stored("small-10", 0, none_t10=0.5)])
    assert [[row[column] for column in columns] for row in rows] == [
        ["small-10-tight", "98.0", "1.0 (0.5 to 1.8)", table.BLANK]]
    named = ["small-10", "small-10-tight", "resnet-1"]
    both = table.control_rows([run, stored("small-10", 0, none_t10=0.5)], named)
    assert [row["differs from"] for row in both] == ["– (base)", rows[0]["differs from"]]
