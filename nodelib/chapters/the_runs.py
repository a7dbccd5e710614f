"""The run of a run's own page, and what it shows beside the learning curves: configuration and records."""

from pathlib import Path

from nodelib.experiment import evaluation, protocols, training
from nodelib.experiment.artifacts import Run, load_run
from nodelib.experiment.configs import RunConfig
from nodelib.publish.page import markdown


def measured_run(config: RunConfig, root: str | Path | None = None) -> Run:
    """The stored run of a config, or else trained now; records that its page lacks are measured now.

    A run that was never measured is measured by the whole table's protocol, another by
    `protocols.page_protocol`. Records on fewer images than the protocol's stay as they are.
    """
    run = training.run(config, root, evaluate=False)
    stored = {r["id"] for r in run.metrics} & run.outcome_ids()
    wanted = protocols.page_protocol(config) if stored else protocols.table_protocol(config)
    if missing := [m for m in wanted if m.id not in stored]:
        evaluation.evaluate_run(run.path, missing)
    return load_run(run.path)


def config_table(run: Run) -> str:
    """The run's configuration and provenance as a Markdown table."""
    config, provenance = run.config, run.provenance
    rows = [(f"`{name}`", f"`{value}`") for name, value in config.items() if name not in ("name", "scale")]
    seconds = provenance.get("seconds")
    if seconds is not None:
        rows.append(("training time",
                     f"{seconds / 60:.1f} minutes on {provenance.get('device', 'an unnamed device')}"))
    for name, label in (("commit", "commit"), ("weights_sha256", "SHA-256 of the weights")):
        if provenance.get(name):
            rows.append((label, f"`{str(provenance[name])[:12]}`"))
    return markdown(["field:", "value:"], rows)


def metrics_table(run: Run) -> str:
    """The run's records as a Markdown table; below it, which of the table's protocol are missing."""
    rows = [(r["id"], f"{r['t1']:g}", f"{r['n']:,}", f"{100 * r['accuracy']:.2f} %",
             f"{100 * r['low']:.2f} to {100 * r['high']:.2f}",
             "" if r.get("nfe") is None else f"{r['nfe']:.0f}")
            for r in sorted(run.metrics, key=lambda r: (r["t1"], r["attack"], r["id"]))]
    lines = [markdown(["record:", "end time", "images", "accuracy", "95 % interval", "NFE"], rows)]
    stored, wanted = {r["id"] for r in run.metrics}, protocols.table_protocol(RunConfig.from_dict(run.config))
    if missing := [f"`{m.id}`" for m in wanted if m.id not in stored]:
        lines += ["", f"Not measured, of the {len(wanted)} records of the table's protocol: "
                  f"{', '.join(missing)}."]
    return "\n".join(lines)
