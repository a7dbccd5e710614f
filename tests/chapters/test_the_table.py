"""The figure of the table shows what the post and the records say."""

import dataclasses

from builders import SEED

from nodelib.chapters import the_table


def test_the_post_gives_48_figures_and_no_interval():
    data = the_table.accuracy_frame([], SEED)
    assert len(data) == 48 and set(data["source"]) == {"post"}
    assert data["low"].isna().all()


def test_our_accuracy_is_drawn_where_the_record_says(tiny_run):
    record = {"id": "none-random-t10", "t1": 10.0, "accuracy": 0.5, "low": 0.4, "high": 0.6}
    run = dataclasses.replace(tiny_run, name="small-10", metrics=[record])
    data = the_table.accuracy_frame([run], SEED)
    ours = data[data["source"] == "ours"]
    assert ours[["run", "t1", "test", "accuracy", "low", "high"]].values.tolist() == [
        ["small-10", 10.0, "clean", 50.0, 40.0, 60.0]]
    points, attacked = the_table.table_accuracies([run], SEED).axes[0].containers
    assert points.lines[0].get_xydata().tolist() == [[10.0, 50.0]]
    assert attacked.lines[0].get_xydata().tolist() == []
