"""The workflow of GitHub Actions: what it runs exists here."""

import re

import yaml
from book_site import ROOT


def test_the_workflow_runs_the_checks_and_publishes_the_folder_that_the_build_fills():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    jobs = workflow["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands:
        assert (ROOT / command).is_file() or command.split()[0] == "make" and command.split()[1] in targets
    uploaded = next(step["with"] for step in jobs["build"]["steps"] if "upload" in step.get("uses", ""))
    assert f"{uploaded['path']}/index.html" in (ROOT / "Makefile").read_text()
    assert set(jobs["publish"]["needs"]) == {"checks", "build"}  # a book is published only where all passed
