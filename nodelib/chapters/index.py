"""The book's first figure and table: the six networks at their own end times, the post's numbers and ours."""

import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import ROWS, get
from nodelib.publish import table
from nodelib.publish.style import ATTACKS, GREY, NARROW, panels, style

# label, column of ours, the post's column, marker, colour
_SERIES = (
    ("clean", "clean_random", "seed_standard", "o", ATTACKS["clean"]),
    ("the post's one step", "fgsm_seed", "seed_adversarial", "s", ATTACKS["FGSM"]),
    ("ten exact steps", "pgd10_exact", None, "v", ATTACKS["PGD"]),
)


def ours(runs: Sequence[Run], name: str) -> list[str | None]:
    """Our accuracy of a row at its own end time by the post's protocol, clean and attacked, in per cent."""
    cell = next(c for c in table.cells(list(runs)) if c.run == name and c.t1 == get(name).test_t1)
    found = [[100 * record["accuracy"] for record in cell.records[column]] for _, column, post,
             *_ in _SERIES if post]
    return [f"{statistics.fmean(values):.1f}" if values else None for values in found]


@style()
def overview(runs: Sequence[Run]) -> Figure:
    """Accuracy of each row at its training end time: the post hollow, every seed of ours filled."""
    own = {cell.run: cell for cell in table.cells(list(runs)) if cell.t1 == get(cell.run).test_t1}
    figure, (axes,) = panels(1, height=4.4, width=NARROW)
    for y, name in enumerate(ROWS):
        for offset, (_, column, post, marker, colour) in zip((-0.25, 0, 0.25), _SERIES):
            values = [100 * record["accuracy"] for record in own[name].records[column]]
            axes.plot(values, [y + offset] * len(values), marker, color=colour)
            if post is not None:
                theirs = getattr(own[name], post)
                axes.plot(theirs, y + offset, marker, color=colour, fillstyle="none", markersize=8)
                if values:  # what is between the post's figure and ours
                    axes.plot([statistics.fmean(values), theirs], [y + offset] * 2, color=colour,
                              linewidth=1, alpha=0.5)
    axes.set(yticks=range(len(ROWS)), yticklabels=ROWS, xlim=(-3, 103),
             xlabel="test accuracy at the training end time (%)")
    axes.set_ylim(len(ROWS) - 0.5, -0.5)
    axes.grid(False, axis="y")
    handles = [Line2D([], [], marker=m, color=c, linestyle="", label=label) for label, _, _, m, c in _SERIES]
    handles.append(Line2D([], [], marker="s", color=GREY, fillstyle="none", linestyle="", markersize=8,
                          label="hollow: the post"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure
