"""Many runs by Snakemake, truly trained: on this machine, and as jobs of a Slurm that is started here."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_packaging import ROOT

from nodelib.experiment import artifacts

pytest.importorskip("snakemake", reason="the packages of a cluster are missing: make .venv/.cluster")
pytestmark = pytest.mark.more

SLURM = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Options for a cluster of one node, this machine, which ends with the test."""
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} are missing, which .ci/run installs")
        pytest.skip(f"{missing} are missing: apt-get install munge slurmctld slurmd slurm-client")
    if os.getuid():
        pytest.skip("slurmd needs root here")
    for name in ("munge", "state", "spool"):
        (tmp_path / name).mkdir(mode=0o700)
    tmp_path.joinpath("munge", "key").write_bytes(os.urandom(1024))
    tmp_path.joinpath("munge", "key").chmod(0o400)
    host, settings = socket.gethostname().partition(".")[0], tmp_path / "slurm.conf"
    settings.write_text(SLURM.format(host=host, ports=free_ports(2), folder=tmp_path, cores=os.cpu_count()))
    monkeypatch.setenv("SLURM_CONF", str(settings))
    srun = tmp_path / "srun"  # of a job, from whose environment Snakemake takes the settings away
    srun.write_text(f'#!/bin/sh\nSLURM_CONF="{settings}" exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    files = [f"--{name}={tmp_path}/munge/{name.partition('-')[0]}"
             for name in ("socket", "key-file", "log-file", "pid-file", "seed-file")]
    commands = ["munged", "--foreground", "--force", *files], ["slurmctld", "-D"], ["slurmd", "-D"]
    daemons = [subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for command in commands]
    try:
        until(lambda: "idle" in said("sinfo", "-h", "-o", "%t"))
        yield ["--slurm-no-account", "--slurm-status-command", "squeue", "--default-resources", "mem_mb=1",
               "runtime=60", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]
    finally:
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def until(condition, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.2)


class Sweep:
    """A folder of runs, and the workflow that fills it: two seeds of the network without dynamics."""

    def __init__(self, folder: Path, profile: str, *options: str) -> None:
        self.folder, self.root = folder, folder / "runs"
        workflow = ROOT / "workflow"
        self.command = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow / "Snakefile"),
                        "--profile", str(workflow / "profiles" / profile), *options, "--config",
                        "scale=smoke", f"root={self.root}", "runs=resnet-0", "seeds=2", "steps=table"]

    def start(self) -> subprocess.Popen:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return subprocess.Popen(self.command, cwd=self.folder, text=True, start_new_session=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**os.environ, "PYTHONPATH": path,
                                     "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

    def finish(self) -> set[str]:
        """The names of the files of the jobs that a call did, all of which must come out well."""
        started, process = time.time(), self.start()
        text = process.communicate(timeout=900)[0]
        assert process.returncode == 0, text[-3000:]
        done = {line.split()[-1] for line in text.splitlines() if line.strip().startswith("output:")}
        assert all(Path(name).stat().st_mtime >= started for name in done)
        return {Path(name).name for name in done}

    def stored(self) -> dict[str, bytes]:
        """Content of the finished runs' configs, which says when and from what they were trained."""
        return {path.parent.name: path.read_bytes() for path in self.root.glob("*/config.json")}


def check(sweep: Sweep, kill) -> None:
    first = sweep.start()
    until(lambda: sweep.stored() or first.poll() is not None)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    kill()
    before = sweep.stored()
    assert before and not list(sweep.root.glob("*/metrics.csv"))[1:]

    sweep.finish()
    after = sweep.stored()
    assert after.keys() == {"resnet-0-seed0", "resnet-0-seed1"} and before.items() <= after.items()
    assert sweep.finish() == set()

    whole = {name: artifacts.load_run(sweep.root / name) for name in after}
    (sweep.root / "resnet-0-seed0" / "model.safetensors").unlink()
    (sweep.root / "resnet-0-seed1" / "metrics.csv").unlink()
    assert sweep.finish() == {"resnet-0-seed0.train", "resnet-0-seed0.table", "resnet-0-seed1.table"}
    assert sweep.stored()["resnet-0-seed1"] == after["resnet-0-seed1"]
    for name, run in whole.items():
        again = artifacts.load_run(sweep.root / name)
        again.load_model()
        found, wanted = ([(r["id"], r["correct"]) for r in each.metrics] for each in (again, run))
        assert found == wanted


def test_killed_midway_it_goes_on_and_what_was_deleted_is_made_again(tmp_path):
    sweep = Sweep(tmp_path, "local", "--cores", "1")
    check(sweep, lambda: None)
    (sweep.root / "resnet-0-seed0" / "model.safetensors").write_bytes(b"nothing")
    refused = sweep.start()
    assert "is altered" in refused.communicate(timeout=300)[0] and refused.returncode


def test_the_same_as_jobs_of_slurm(slurm, tmp_path):
    def kill() -> None:
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user", "root"], check=True)
        until(lambda: not said("squeue", "-h"))

    check(Sweep(tmp_path, "slurm", "--jobs", "2", *slurm), kill)
