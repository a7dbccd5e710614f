"""The ledger at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nodelib.verdicts import VERDICTS, Row, counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours; the letter says the same, for print in grey
MARKS = {"reproduced": ("#009E73", "R"), "in part": ("#E69F00", "P"), "not reproduced": ("#D55E00", "N"),
         "artefact": ("#CC79A7", "A"), "undecided": ("#BBBBBB", "?")}
COLUMNS = 11


def ledger_tiles(rows: Sequence[Row]) -> Figure:
    """One tile per claim, coloured and lettered by its verdict, with a legend that counts them.

    Args:
        rows: of `nodelib.verdicts.ledger`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch, Rectangle

    lines = -(-len(rows) // COLUMNS)
    figure, axes = plt.subplots(figsize=(8, 0.8 * lines + 0.7), layout="constrained")
    for k, row in enumerate(rows):
        x, y = k % COLUMNS, -(k // COLUMNS)
        colour, letter = MARKS[row.verdict]
        axes.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, color=colour, linewidth=0))
        axes.text(x + 0.5, y + 0.62, row.id, ha="center", va="center", fontsize=9, color="black")
        axes.text(x + 0.5, y + 0.28, letter, ha="center", va="center", fontsize=11, weight="bold", color="black")
    found = counts(rows)
    axes.legend(handles=[Patch(color=MARKS[v][0], label=f"{MARKS[v][1]}  {v}: {found[v]}") for v in VERDICTS],
                loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(VERDICTS), frameon=False, fontsize=8,
                handlelength=1, columnspacing=1.2)
    axes.set(xlim=(0, COLUMNS), ylim=(1 - lines, 1))
    axes.set_axis_off()
    return figure
