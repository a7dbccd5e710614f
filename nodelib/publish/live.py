"""What the book's live parts need: the kernels as WebAssembly; weights, digits and stored records as scripts.

    python -m nodelib live kernels          compile nodelib/solver/kernel.c into book/live/kernels
    python -m nodelib live export FOLDER    all that a page loads, into FOLDER

A page opened from a file may load scripts and nothing else, so binary data travels as base64 inside of
them: `NodeLive.provide(name, header, data)`. The .wasm files are stored because a reader who builds the book
need not have their compiler, the package `ziglang`; the other scripts are made from the stored runs whenever
the book is built.
"""

import argparse
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nodelib.experiment import mnist
from nodelib.experiment.artifacts import Run, load_run, write_atomic
from nodelib.experiment.configs import PAIR, ROWS, RunConfig
from nodelib.experiment.evaluation import test_order
from nodelib.experiment.paths import runs_dir
from nodelib.networks import group_norm
from nodelib.solver.kernel import MINIMAL_TOLERANCE, SOURCE

FOLDER = Path(__file__).resolve().parents[2] / "book" / "live"
SHAPES = ((16, 7), (128, 7), (64, 10))  # channels and side of the state: small, large, wide
RUNS = tuple(f"{name}-seed0" for name in (*ROWS, *PAIR))
DIGITS = 20  # test images that a page offers, as many of every class
SEEN = 60  # test images whose stored outcomes a page shows
RESCALED = {"cross-entropy": "rescaled-adjoint-s", "margin": "rescaled-margin-adjoint-s"}
SWEPT = {"FGSM": "sweep-fgsm-eps", "PGD, 40 steps": "sweep-pgd40-eps", "worst case": "worst-"}
TARGET = ("-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory")
FLAGS = ("-O3", "-fno-math-errno", "-nostdlib", "-s", "-Wl,--no-entry")
FUNCTIONS = ("evaluate", "vjp", "step", "reverse", "scratch", "kept", "block", "columns", "inputs")
EXPORTS = (*(f"nodelib_{name}" for name in FUNCTIONS), "__heap_base")
# all that kernel.c takes from the C library; the compiler turns each into instructions
HEADERS = {"math.h": "#define sqrtf __builtin_sqrtf\n",
           "string.h": "#define memcpy __builtin_memcpy\n#define memset __builtin_memset\n"}


def shape_name(channels: int, size: int) -> str:
    """The name of a state's shape, such as "16x7x7"."""
    return f"{channels}x{size}x{size}"


def compile_kernel(channels: int, size: int) -> bytes:
    """`kernel.c` for one shape as a WebAssembly module with 128-bit vectors, for one image at a time.

    The same bytes at every run of the `ziglang` that pyproject.toml names.

    Raises:
        ImportError: the package `ziglang` is missing.
        subprocess.CalledProcessError: the compiler refuses; its message is in `stderr`.
    """
    import ziglang  # noqa: F401

    groups = group_norm(channels).num_groups
    values = dict(C=channels, H=size, W=size, GROUPS=groups, LAST_NORM=1, LEAKY=0, CHUNK=1)
    with tempfile.TemporaryDirectory(prefix="nodelib-") as scratch:
        folder = Path(scratch)
        for name, text in HEADERS.items():
            (folder / name).write_text(text)
        shutil.copy(SOURCE, folder / "kernel.c")
        command = [sys.executable, "-m", "ziglang", "cc", *TARGET, *FLAGS,
                   *(f"-Wl,--export={name}" for name in EXPORTS),
                   *(f"-D{name}={value}" for name, value in values.items()),
                   "-I.", "kernel.c", "-o", "kernel.wasm"]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": scratch, "ZIG_LOCAL_CACHE_DIR": scratch}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        return (folder / "kernel.wasm").read_bytes()


def script(name: str, header: dict, content: bytes) -> bytes:
    """A script that hands `content` to a page."""
    data = base64.b64encode(content).decode()
    return f"NodeLive.provide({json.dumps(name)}, {json.dumps(header)}, {json.dumps(data)});\n".encode()


def weights(run: Run) -> tuple[dict, bytes]:
    """A stored ODE-net's tensors in the order of their names, little-endian float32, and how to read them.

    Half the bits would move the logits of a small network by up to 0.2 % of the largest.

    Returns:
        header: run; shape; channels, side, t1, rtol, atol, eps; tensors: name and shape of each; sha256: of
            the stored file.
        content: the numbers of all tensors, one after the other.

    Raises:
        ValueError: not an ODE-net with the post's dynamics and tolerance, which is all that the pages know.
        ArtifactError: the weights are missing or altered.
    """
    config = RunConfig.from_dict(run.config)
    minimal = min(config.rtol, config.atol) >= MINIMAL_TOLERANCE
    if config.architecture != "odenet" or config.leaky or not config.last_norm or not minimal:
        raise ValueError(f"{run.path.name} is not an ODE-net with the post's dynamics and tolerance; the "
                         f"pages know no other, choose one of {', '.join(RUNS)}")
    model = run.load_model()
    state = {name: value for name, value in sorted(model.state_dict().items()) if value.is_floating_point()}
    header = dict(run=run.path.name, shape=shape_name(config.channels, config.size), channels=config.channels,
                  side=config.size, t1=config.test_t1, rtol=config.rtol, atol=config.atol, eps=model.norm.eps,
                  tensors=[[name, list(value.shape)] for name, value in state.items()],
                  sha256=run.provenance["weights_sha256"])
    return header, b"".join(value.numpy().astype("<f4").tobytes() for value in state.values())


def digits() -> tuple[dict, bytes]:
    """The test images that a page offers, `DIGITS // 10` of every class, a byte a pixel, and their labels."""
    # not by `mnist.load`, whose torchvision takes a second to import
    pixels, labels = (np.frombuffer(mnist.read_verified("test", kind), np.uint8, offset=header)
                      for kind, header in (("images", 16), ("labels", 8)))
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == k)[:DIGITS // 10] for k in range(10)]))
    header = {"labels": labels[chosen].tolist(), "index": chosen.tolist()}
    return header, pixels.reshape(-1, 784)[chosen].tobytes()


def rescaled(run: Run) -> tuple[dict, bytes]:
    """What one step of FGSM leaves of a run's first `SEEN` test images, by the factor on its logits.

    Returns:
        header: run, t1, epsilon, n images measured, side of a picture; outcomes: loss of the attack -> for
            every factor, ascending, [factor, share of the n images left, "1" or "0" per image].
        content: the images at half their size, a byte a pixel.

    Raises:
        ArtifactError: outcomes of a record are missing.
    """
    t1, outcomes, records = run.config["test_t1"], {}, []
    for loss, prefix in RESCALED.items():
        found = [r for r in run.metrics if r["id"].startswith(prefix) and r["t1"] == t1]
        found.sort(key=lambda r: r["settings"]["logit_scale"])
        outcomes[loss] = [[r["settings"]["logit_scale"], r["accuracy"],
                           "".join(str(int(kept)) for kept in run.outcomes(r["id"])[:SEEN])] for r in found]
        records += found
    pixels = np.frombuffer(mnist.read_verified("test", "images"), np.uint8, offset=16)
    shown = pixels.reshape(-1, 14, 2, 14, 2)[test_order()[:SEEN]].mean((2, 4)).round().astype(np.uint8)
    header = {"run": run.path.name, "t1": t1, "epsilon": records[0]["epsilon"] if records else None,
              "n": min((r["n"] for r in records), default=0), "side": 14, "outcomes": outcomes}
    return header, shown.tobytes()


def swept(runs: list[Run]) -> dict:
    """Accuracy of runs at their own end times under the stored attacks of `SWEPT`, by epsilon.

    Returns:
        epsilons: ascending; rows: run, t1, n images and, for each attack, the accuracy at every epsilon,
        None where it was not measured.
    """
    rows = []
    for run in runs:
        t1, attacks, counts = run.config["test_t1"], {}, []
        for attack, prefix in SWEPT.items():
            found = [r for r in run.metrics if r["id"].startswith(prefix) and r["t1"] == t1]
            attacks[attack] = {r["epsilon"]: r["accuracy"] for r in found}
            counts += [r["n"] for r in found]
        rows.append({"run": run.name, "t1": t1, "n": [min(counts, default=0), max(counts, default=0)],
                     "attacks": attacks})
    epsilons = sorted({e for row in rows for by_epsilon in row["attacks"].values() for e in by_epsilon})
    for row in rows:
        row["attacks"] = {attack: [by_epsilon.get(e) for e in epsilons]
                          for attack, by_epsilon in row["attacks"].items()}
    return {"epsilons": epsilons, "rows": rows}


def films(figures: Path) -> dict[str, Path]:
    """The films in a folder of figures that the page's player can show: name of the GIF -> its sheet."""
    found = {path.name.removesuffix("-sheet.png"): path for path in sorted(figures.glob("*-sheet.png"))}
    return {f"{name}.gif": path for name, path in found.items() if (figures / f"{name}.gif").exists()}


def film(path: Path) -> tuple[dict, bytes]:
    """Header and bytes of a sheet of `nodelib.publish.animation`."""
    from PIL import Image

    with Image.open(path) as image:
        return json.loads(image.info["film"]), path.read_bytes()


def export(folder: Path, figures: Path = FOLDER.parent / "figures") -> None:
    """Write all that the live parts load to `folder`: scripts, style, kernels, digits, weights, records,
    films.

    A run of `RUNS` that is not stored is left out.
    """
    for source in (*FOLDER.glob("*.js"), *FOLDER.glob("*.css")):
        write_atomic(folder / source.name, source.read_bytes())

    def provide(name: str, header: dict, content: bytes) -> None:
        write_atomic(folder / f"{name}.js", script(name, header, content))

    for source in FOLDER.glob("kernels/*.wasm"):
        provide(f"kernels/{source.stem}", {}, source.read_bytes())
    provide("digits", *digits())
    paths = [runs_dir() / name for name in RUNS]
    runs = [load_run(path) for path in paths if (path / "config.json").exists()]
    for run in runs:
        provide(f"weights/{run.path.name}", *weights(run))
        if any(record["id"].startswith(RESCALED["margin"]) for record in run.metrics):
            provide(f"rescaled/{run.path.name}", *rescaled(run))
    provide("swept", swept(runs), b"")
    for gif, path in films(figures).items():
        provide(f"films/{gif.removesuffix('.gif')}", *film(path))


def main(arguments: list[str] | None = None) -> int:
    """Compile the kernels, or export what the pages load."""
    parser = argparse.ArgumentParser(prog="python -m nodelib live", description=main.__doc__)
    parser.add_argument("what", choices=("kernels", "export"))
    parser.add_argument("folder", type=Path, nargs="?", help="where to export to")
    options = parser.parse_args(arguments)
    if options.what == "export":
        if options.folder is None:
            parser.error("name the folder to export to")
        export(options.folder)
        return 0
    for shape in SHAPES:
        content = compile_kernel(*shape)
        path = FOLDER / "kernels" / f"{shape_name(*shape)}.wasm"
        write_atomic(path, content)
        print(f"{path.name}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()[:16]}")
    return 0

