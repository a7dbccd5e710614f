"""Which of the first round's verdicts depended on how long networks were trained.

Some networks were trained for further learning-rate cycles after their test figures had been seen. Whoever
stops training when the figures please chooses the verdict; so the first round was judged again with the
records that such networks had before, everything else as it was: `data/prolonged.json`.
"""

from nodelib.experiment.artifacts import read_json
from nodelib.experiment.paths import data_dir
from nodelib.verdicts.verdict import UNDECIDED, first_round


def stages() -> list[dict]:
    """What is stored of earlier verdicts, oldest first; empty where nothing is."""
    path = data_dir() / "prolonged.json"
    return read_json(path) if path.exists() else []


def differences() -> list[dict]:
    """Per stage its runs, their epochs, and the claims whose evidence they are and whose verdict differs from
    the first round's last, where both are decided.

    Returns:
        changes: (claim id, verdict with the shorter trained networks, the last verdict).
    """
    last = first_round()
    return [{"runs": one["runs"], "epochs": one["epochs"], "changes": [
        (claim, verdict, last[claim]["verdict"]) for claim, verdict in one["verdicts"].items()
        if UNDECIDED not in (verdict, last[claim]["verdict"]) and verdict != last[claim]["verdict"]
        and set(one["runs"]) & set(last[claim]["runs"])]} for one in stages()]
