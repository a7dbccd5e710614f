"""What the table says, as sentences for the chapter on it and the front page: each holds for whatever has been measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import ROWS, TABLE_T1, RunConfig, get
from nodelib.publish.table import COLUMNS, TOLERANCE, Cell, Comparison, per_cent, with_interval
from nodelib.statistics import SIGNIFICANCE, mcnemar, on_common

LITTLE = 1.0  # per cent; below it the post's attack leaves nothing that could reproduce or not


def in_words(comparison: list[Comparison]) -> str:
    """How many figures are reproduced, and how many where the post claims that something is left of an attack."""
    total = 2 * len(ROWS) * len(TABLE_T1)
    if not comparison:
        return f"None of the {total} can be compared yet: no row has been trained at full scale."

    def count(entries: list[Comparison]) -> str:
        return f"{sum(entry.reproduced for entry in entries)} of {len(entries)}"
    clean, attacked = ([entry for entry in comparison if entry.figure == figure] for figure in ("clean", "FGSM"))
    said = (f"{count(clean)} clean accuracies and {count(attacked)} attacked ones lie within {TOLERANCE:g} points, or within the "
            f"spread of our seeds where that is larger.")
    left = [entry for entry in attacked if entry.theirs >= LITTLE]
    own = [entry for entry in left if entry.t1 == get(entry.run).test_t1]
    if left:
        said += (f" Most telling are the attacked figures of {LITTLE:g} % and more, where there was something left to reproduce: "
                 f"{count(left)} do{_named(left)}" + (f", and {count(own)} at a network's own end time" if own else "") + ".")
    if len(comparison) < total:
        said += (f" {len(comparison)} of the {total} figures, from {len({entry.run for entry in comparison})} of {len(ROWS)} "
                 f"networks, have a counterpart so far.")
    return said


def _named(entries: list[Comparison]) -> str:
    """The reproduced ones of some entries, in parentheses; empty where there are none or many."""
    found = [f"{entry.run} at {entry.t1:g}" for entry in entries if entry.reproduced]
    return f" ({', '.join(found)})" if 0 < len(found) <= 4 else ""


def recipe(runs: list[Run]) -> str:
    """How the stored rows were trained, size by size, in one sentence."""
    configs = {name: RunConfig.from_dict(run.config) for name in reversed(ROWS) for run in runs if run.name == name}
    if not configs:
        return "No row is stored yet."
    sizes = {size: [config for name, config in configs.items() if name.startswith(size)] for size in ("small", "large")}

    def spread(values: Iterable[object]) -> str:
        return " or ".join(sorted({str(value) for value in values}))
    epochs = " and ".join(f"the {size} ones {spread(c.epochs for c in of)}" for size, of in sizes.items() if of)
    every = configs.values()
    again = "; ".join(f"in the {size} ones the rate rises and falls {spread(len(c.cycles) for c in of)} times"
                      for size, of in sizes.items() if any(c.cycles for c in of))
    return (f"Ours were trained by Adam with a rate that rises to {spread(f'{c.learning_rate:g}' for c in every)} and falls again, in "
            f"batches of {spread(c.batch_size for c in every)}, along the gradient that is "
            f"{spread(c.gradient for c in every)} for the computed solution, for few epochs: {epochs}"
            + (f" ({again})." if again else "."))


def row_sentences(table_cells: list[Cell]) -> list[str]:
    """One sentence per network that has records: its accuracies at its own end time, clean and attacked."""
    result = []
    for cell in table_cells:
        r = cell.records
        if cell.t1 != get(cell.run).test_t1 or not r["clean_random"]:
            continue
        text = (f"**{cell.run}** at its own end time {cell.t1:g}: {per_cent(r['clean_random'])} % clean "
                f"(post {cell.seed_standard:.2f} %)")
        attacks = [f"{with_interval(r[column])} % {words}" for column, words in (
            ("fgsm_seed", f"under the post's attack (post {cell.seed_adversarial:.2f} %)"),
            ("fgsm_exact", "after one step with the exact gradient"), ("pgd10_exact", "after ten")) if r[column]]
        result.append(f"{text}{'; ' + ', '.join(attacks) if attacks else ''}.")
    return result


def persistence(table_cells: list[Cell], points: float = 10.0) -> str:
    """Which networks keep their clean accuracy from their own end time to the table's last one, in words.

    points: what a network may lose and still count as keeping it, in per cent.
    """
    kept, lost = [], []
    by_key = {(cell.run, cell.t1): cell.records["clean_random"] for cell in table_cells}
    for name in ROWS:
        before, after = by_key.get((name, get(name).test_t1)), by_key.get((name, TABLE_T1[-1]))
        if before and after:
            low, high = get(name).t1
            trained = f"to {high:g}" if low == high else f"at {low:g} to {high:g}"
            words = f"{name} (trained {trained}: from {_mean(before):.1f} to {_mean(after):.1f} %)"
            (kept if _mean(before) - _mean(after) <= points else lost).append(words)
    parts = [f"{', '.join(names)} {verb} {points:g} points" for names, verb in (
        (kept, ("loses" if len(kept) == 1 else "lose") + " at most"),
        (lost, ("loses" if len(lost) == 1 else "lose") + " more than")) if names]
    return "; ".join(parts) or "no network has been measured at both end times yet"


def training_gradient(runs: list[Run], adjoint: str = "small-100-adjoint", exact: str = "small-100-short") -> str:
    """Whether the gradient that trains a network changes what an attack leaves of it, from two controls that differ in it alone.

    Attacked accuracies of the first seeds are compared on the same images by McNemar's test, at the level of the ledger.
    """
    columns = {"clean": "", "fgsm_seed": "the post's attack", "fgsm_exact": "one exact step", "pgd10_exact": "ten exact steps"}
    named = {name: [run for run in runs if run.name == name] for name in (adjoint, exact)}
    ids = {column: f"{COLUMNS[column]}-t{get(adjoint).test_t1:g}" for column in columns}
    found = {name: {column: [r for run in of for r in run.metrics if r["id"] == ids[column]] for column in columns}
             for name, of in named.items()}
    if not all(records for of in found.values() for records in of.values()):
        return f"{adjoint} and {exact} are not both measured yet."
    said = [f"{name} classifies {per_cent(of['clean'])} % of clean images; the post's attack leaves "
            f"{per_cent(of['fgsm_seed'])} %, one exact step {per_cent(of['fgsm_exact'])} % and ten exact steps "
            f"{per_cent(of['pgd10_exact'])} %" for name, of in found.items()]
    learnt = _mean(found[adjoint]["clean"]) - _mean(found[exact]["clean"])
    verdict = ("Both learn alike" if abs(learnt) < TOLERANCE else
               f"Over the same steps the adjoint {'costs' if learnt < 0 else 'gains'} {abs(learnt):.1f} points of clean accuracy")
    apart = {column: _mean(found[adjoint][column]) - _mean(found[exact][column]) for column in columns if column != "clean"}
    differs = {column: p for column in apart
               if (p := mcnemar(*on_common(*(named[name][0].outcomes(ids[column]) for name in (adjoint, exact))))) < SIGNIFICANCE}
    verdict += (". On the same attacked images the two cannot be told apart (McNemar's test)" if not differs else
                ". On the same attacked images the adjoint's keeps " + " and ".join(
                    f"{abs(apart[column]):.1f} points {'more' if apart[column] > 0 else 'less'} under {columns[column]} "
                    f"(McNemar's p = {p:.1g})" for column, p in differs.items()))
    left = max(_mean(of["pgd10_exact"]) for of in found.values())
    verdict += f". Ten exact steps leave less than {LITTLE:g} % of either: neither is robust" if left < LITTLE else ""
    spend = {name: sum(run.history["seconds"][-1] / len(run.history["seconds"]) for run in of) / len(of)
             for name, of in named.items()}
    return (f"{said[0]}; {said[1]}. {verdict}. A training step by the adjoint took {spend[adjoint]:.2f} s and one by the exact "
            f"gradient {spend[exact]:.2f} s.")


def strongest(table_cells: list[Cell]) -> str:
    """What ten exact steps leave of each network at its own end time, as one sentence."""
    left = {cell.run: cell.records["pgd10_exact"] for cell in table_cells
            if cell.t1 == get(cell.run).test_t1 and cell.records["pgd10_exact"]}
    if not left:
        return "No network has been attacked with ten steps yet."
    return ("At their own end times, ten steps with the exact gradient leave "
            + ", ".join(f"{per_cent(records)} % of {name}" for name, records in left.items()) + ".")


def inverted(table_cells: list[Cell], runs: Sequence[Run] = ()) -> str:
    """Where ten exact steps leave more than one, mean over seeds, in words: there the attack fails.

    runs: where they are given, what forty steps leave there is said too, of the first that has such a record.
    """
    found = []
    for cell in table_cells:
        one, ten = cell.records["fgsm_exact"], cell.records["pgd10_exact"]
        if one and ten and _mean(ten) > _mean(one):
            words = f"ten steps leave {_mean(ten):.1f} % and one {_mean(one):.1f} %"
            if len(one) == len(ten) > 1:
                inverted_in = sum(many["accuracy"] > few["accuracy"] for few, many in zip(one, ten))
                words += f", means of {len(ten)} seeds, {inverted_in} of which show it"
            forty = next(((run, r) for run in runs if run.name == cell.run for r in run.metrics
                          if r["id"] == f"pgd40-exact-t{cell.t1:g}"), None)
            if forty:
                run, record = forty
                n = record["n"]
                words += (f"; of {n:,} images of {run.path.name}, {100 * run.outcomes(f'none-t{cell.t1:g}')[:n].mean():.1f} % of them right when clean, all "
                          f"attacks up to forty steps together leave {per_cent([record])} %")
            found.append(f"{cell.run} at {cell.t1:g} ({words})")
    if not found:
        return "In no entry do ten steps leave more than one."
    return f"More steps that leave more are a symptom of a failing attack and not of strength; so it is with {', '.join(found)}."


def _mean(records: list[dict]) -> float:
    return 100 * sum(record["accuracy"] for record in records) / len(records)
