"""The shipped MNIST: hash-checked, read through torchvision, as tensors in [0, 1]."""

import functools
import gzip
import hashlib
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import torch

from nodelib.experiment._torchvision import import_torchvision
from nodelib.experiment.paths import PUBLISHED, data_dir, published
from nodelib.solver.errors import NodelibError, check_choice


class DataError(NodelibError, RuntimeError):
    """A data file is missing, truncated or altered."""


class _File(NamedTuple):
    name: str
    bytes: int
    sha256: str  # of the decompressed bytes


FILES = {
    ("train", "images"): _File("train-images-idx3-ubyte", 47040016,
                               "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    ("train", "labels"): _File("train-labels-idx1-ubyte", 60008,
                               "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ("test", "images"): _File("t10k-images-idx3-ubyte", 7840016,
                              "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ("test", "labels"): _File("t10k-labels-idx1-ubyte", 10008,
                              "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


def load(split: str, root: str | Path | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of one MNIST split, verified before they are used.

    Args:
        split: "train" (60,000 images) or "test" (10,000 images).
        root: folder with the four `.gz` files; default: `data/mnist` of this repository.

    Returns:
        images, float32, shape (N, 1, 28, 28), grey levels divided by 255, in [0, 1];
        labels, int64, shape (N,), 0 to 9. The caller owns both tensors.

    Raises:
        ValueError: unknown split.
        DataError: a file is missing, truncated or altered; the message names the file, what was
            expected and found, and how to restore it. torchvision alone accepts a flipped pixel or
            a label of 77, so the check does not rest on it.

    Source: LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998. CC BY-SA 3.0.
    """
    check_choice("split", split, ("train", "test"))
    images, labels = _load(split, Path(root) if root is not None else data_dir() / "mnist")
    return images.clone(), labels.clone()


@functools.lru_cache(maxsize=4)
def _load(split: str, root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    contents = {FILES[split, kind].name: read_verified(split, kind, root) for kind in ("images", "labels")}
    # torchvision reads decompressed files below <root>/MNIST/raw and offers no other door
    with tempfile.TemporaryDirectory(prefix="mnist-") as scratch:
        raw = Path(scratch) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for file in FILES.values():  # it also asks whether the other split's files exist
            (raw / file.name).write_bytes(contents.get(file.name, b""))
        dataset = import_torchvision().datasets.MNIST(scratch, train=split == "train", download=False)
    images = dataset.data.to(torch.float32).div_(255).unsqueeze_(1)
    return images, dataset.targets.to(torch.int64)


def read_verified(split: str, kind: str, root: Path | None = None) -> bytes:
    """The bytes of a split's "images" or "labels", decompressed, with header; a DataError as in `load`."""
    file = FILES[split, kind]
    path = (root or data_dir() / "mnist") / f"{file.name}.gz"
    restore = (f"Restore it with `git checkout -- data/mnist/{path.name}`." if PUBLISHED.is_dir()
               else f"Take it from {published('mnist')}.")
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected the gzip-compressed MNIST file of {file.bytes} bytes "
                        f"(decompressed, SHA-256 {file.sha256}). {restore}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as gzip ({error}); expected {file.bytes} decompressed bytes, "
                        f"found a file of {path.stat().st_size if path.exists() else 0} bytes. {restore}"
                        ) from error
    found = hashlib.sha256(content).hexdigest()
    if len(content) != file.bytes or found != file.sha256:
        raise DataError(f"{path} is altered: expected {file.bytes} decompressed bytes with SHA-256 "
                        f"{file.sha256}, found {len(content)} bytes with SHA-256 {found}. {restore}")
    return content


def fingerprint() -> dict[str, str]:
    """SHA-256 of the decompressed bytes of the four files, for a run's provenance."""
    return {file.name: file.sha256 for file in FILES.values()}
