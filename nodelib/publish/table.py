"""The post's table beside ours: 48 figures, an honest blank where we have none yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from nodelib.experiment.artifacts import Run, read_json
from nodelib.experiment.configs import COMPARED, CONTROLS, get
from nodelib.experiment.paths import data_dir
from nodelib.publish.page import markdown
from nodelib.statistics import wilson, within_tolerance

COLUMNS = {
    "clean": "none",            # fixed pooling
    "clean_random": "none-random",  # the post's random pooling
    "fgsm_seed": "fgsm-seed",   # the post's protocol
    "fgsm_exact": "fgsm-exact",
    "pgd10_exact": "pgd10-exact",
}
BLANK = "–"


@dataclass(frozen=True)
class Cell:
    """One network at one end time: the post's two figures in per cent, and our records by column."""

    run: str
    t1: float
    seed_standard: float
    seed_adversarial: float
    records: dict[str, list[dict]]  # column -> one record per seed of ours


def cells(runs: list[Run]) -> list[Cell]:
    """The 24 cells of the table (48 figures of the post), rows in the post's order."""
    return [Cell(entry["run"], entry["t1"], entry["standard"], entry["adversarial"],
                 _records([run for run in runs if run.name == entry["run"]], entry["t1"]))
            for entry in read_json(data_dir() / "seed.json")["table"]]


def _records(runs: list[Run], t1: float) -> dict[str, list[dict]]:
    return {column: [r for run in runs for r in run.metrics if r["id"] == f"{label}-t{t1:g}"]
            for column, label in COLUMNS.items()}


def per_cent(records: list[dict]) -> str:
    """Accuracy in per cent of one or several seeds: "98.4", or "98.2 to 98.5", or a blank."""
    if not records:
        return BLANK
    low, high = (f"{100 * extreme(r['accuracy'] for r in records):.1f}" for extreme in (min, max))
    return low if low == high else f"{low} to {high}"


def with_interval(records: list[dict]) -> str:
    """`per_cent`, with one seed followed by the 95 % interval over its images: "2.8 (1.9 to 4.0)"."""
    if len(records) != 1:
        return per_cent(records)
    n = records[0]["n"]
    return interval(round(records[0]["accuracy"] * n), n)


def interval(correct: int, n: int) -> str:
    """"12.5 (11.0 to 14.1)": accuracy in per cent with its 95 % interval."""
    low, high = wilson(correct, n)
    return f"{100 * correct / n:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _counts(values: Iterable[int]) -> str:
    return " / ".join(map(str, sorted(set(values)))) or BLANK


def _attacked(records: dict[str, list[dict]]) -> dict[str, str]:
    """What attacks leave, and the numbers of images: the columns that all rows share."""
    attacks = {"FGSM, post's protocol": "fgsm_seed", "FGSM, exact": "fgsm_exact",
               "PGD-10, exact": "pgd10_exact"}
    images = {"clean images": ("clean", "clean_random"), "attacked images": attacks.values()}
    return {**{head: with_interval(records[column]) for head, column in attacks.items()},
            **{head: _counts(r["n"] for column in columns for r in records[column])
               for head, columns in images.items()}}


def rows(runs: list[Run]) -> list[dict[str, str]]:
    """The table as text, one dictionary per network and end time."""
    return [{
        "network": cell.run, "t": f"{cell.t1:g}",
        "clean, post": f"{cell.seed_standard:.2f}", "clean, ours": per_cent(cell.records["clean_random"]),
        "clean, fixed pooling": per_cent(cell.records["clean"]),
        "FGSM, post": f"{cell.seed_adversarial:.2f}", **_attacked(cell.records),
        "epochs": _counts(run.config["epochs"] for run in runs if run.name == cell.run),
    } for cell in cells(runs)]


def as_markdown(table: list[dict[str, str]], left: int = 1) -> str:
    """A Markdown table; the network's name only on its first line; the first `left` columns are words."""
    rows = [list(row.values()) for row in table]
    for _, same in groupby(rows, key=lambda row: row[0]):
        for row in list(same)[1:]:
            row[0] = ""
    return markdown([f"{head}:" if i < left else head for i, head in enumerate(table[0])], rows)


def as_text(table: list[dict[str, str]]) -> str:
    """The same for a terminal, in aligned columns under a two-line head."""
    heads = list(table[0])
    split = [head.split(", ", 1) + [""] for head in heads]
    lines = [[parts[0] for parts in split], [parts[1] for parts in split],
             *[list(row.values()) for row in table]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = ["  ".join(value.ljust(w) if i == 0 else value.rjust(w) for i,
                      (value, w) in enumerate(zip(line, widths)))
            for line in lines]
    return "\n".join([*text[:2], "-" * len(text[0]), *text[2:]])


@dataclass(frozen=True)
class Comparison:
    """One of the 48 figures beside ours, in per cent: mean over our seeds, and whether it is reproduced."""

    run: str
    t1: float
    figure: str  # "clean" or "FGSM"
    theirs: float
    ours: float
    reproduced: bool


def compare(table_cells: list[Cell]) -> list[Comparison]:
    """Every figure of the post for which we have a record by its protocol.

    Reproduced: within max(3 points, range over our seeds) of the post's, the rule of claim C8.
    """
    result = []
    for cell in table_cells:
        for figure, column, theirs in (("clean", "clean_random", cell.seed_standard),
                                       ("FGSM", "fgsm_seed", cell.seed_adversarial)):
            values = [100 * record["accuracy"] for record in cell.records[column]]
            if values:
                result.append(Comparison(cell.run, cell.t1, figure, theirs, sum(values) / len(values),
                                         within_tolerance(values, theirs)))
    return result


def differs_in(control: str) -> str:
    """In what a control differs from the run it is compared with, from their configs."""
    config = get(control)
    base = get("-".join(control.split("-")[:2]) if config.architecture == "odenet" else COMPARED[control])
    words = {"architecture": f"{config.blocks} residual block{'' if config.blocks == 1 else 's'}, no solver",
             "leaky": "leaky",
             "last_norm": "no last normalisation", "gradient": f"training gradient: {config.gradient}",
             "rtol": f"tolerance {config.rtol:g}", "test_t1": f"end time {config.test_t1:g}",
             "head_scale": ("the head's first weights times" if config.head_rate else "head scaled by")
             + f" {config.head_scale:g}",
             "head_rate": f"the head's rate times {config.head_rate or config.head_scale:g}",
             "start": f"from {config.start}",
             "own_rays": "penalty for a ray of its own per class",
             "train_images": f"{config.train_images:,} images",
             "epochs": f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"}
    if config.adversarial is not None and base.adversarial is not None:
        mine, theirs = ([attack.in_cycle(k) for k in range(max(1, cycles))] for attack, cycles in
                        ((config.adversarial, len(config.cycles)), (base.adversarial, len(base.cycles))))
        weaker = max(a.steps for a in mine) < max(a.steps for a in theirs)
        words["adversarial"] = ("trained against plain PGD alone" if theirs[-1].momentum
                                and not mine[-1].momentum else
                                f"trained against {'fewer' if weaker else 'other'} attack steps")
    return f"{base.name}: " + ", ".join(said for field, said in words.items()
                                        if getattr(config, field) != getattr(base, field))


def control_rows(runs: list[Run], names: Iterable[str] = CONTROLS) -> list[dict[str, str]]:
    """The measured ones of some networks at their own end time, as text like `rows`, by default the controls.
    A network that is no control is marked as a base.
    """
    result = []
    for name in names:
        config = get(name)
        found = _records([run for run in runs if run.name == name], config.test_t1)
        if found["clean"]:
            differs = differs_in(name) if name in CONTROLS else f"{BLANK} (base)"
            result.append({"network": name, "differs from": differs, "t": f"{config.test_t1:g}",
                           "clean, random pooling": per_cent(found["clean_random"]),
                           "clean, fixed pooling": per_cent(found["clean"]), **_attacked(found)})
    return result
