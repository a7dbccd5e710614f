"""What a run's own page shows beside its learning curves: its configuration and its records."""

from __future__ import annotations

from nodelib.artifacts import Run


def config_table(run: Run) -> str:
    """The run's configuration and provenance as a Markdown table."""
    config, provenance = run.config, run.provenance
    rows = [(f"`{name}`", f"`{value}`") for name, value in config.items() if name not in ("name", "scale")]
    seconds = provenance.get("seconds")
    if seconds is not None:
        rows.append(("training time", f"{seconds / 60:.1f} minutes on {provenance.get('device', 'an unnamed device')}"))
    for name, label in (("commit", "commit"), ("weights_sha256", "SHA-256 of the weights")):
        if provenance.get(name):
            rows.append((label, f"`{str(provenance[name])[:12]}`"))
    return "\n".join(["| field | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def metrics_table(run: Run) -> str:
    """The run's records as a Markdown table, by end time and attack."""
    lines = ["| record | end time | images | accuracy | 95 % interval | NFE |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for record in sorted(run.metrics, key=lambda r: (r["t1"], r["attack"], r["id"])):
        nfe = "" if record.get("nfe") is None else f"{record['nfe']:.0f}"
        lines.append(f"| {record['id']} | {record['t1']:g} | {record['n']:,} | {100 * record['accuracy']:.2f} % | "
                     f"{100 * record['low']:.2f} to {100 * record['high']:.2f} | {nfe} |")
    return "\n".join(lines)
