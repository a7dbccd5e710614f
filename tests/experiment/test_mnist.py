import gzip
import shutil

import pytest
import torch

from nodelib.experiment import mnist
from nodelib.experiment.paths import data_dir


@pytest.fixture
def copy(tmp_path):
    for path in (data_dir() / "mnist").glob("*.gz"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


@pytest.mark.parametrize("split, n", [("train", 60000), ("test", 10000)])
def test_a_split_has_its_images_in_the_unit_interval_and_every_digit(split, n):
    images, labels = mnist.load(split)
    assert images.shape == (n, 1, 28, 28) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert labels.shape == (n,) and labels.dtype == torch.int64
    assert labels.bincount(minlength=10).min() > n / 20


def test_first_training_digit_is_the_well_known_five():
    images, labels = mnist.load("train")
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert round(images[0].sum().item() * 255) == 27525


def test_a_caller_may_change_what_it_was_given():
    images, _ = mnist.load("test")
    images.zero_()
    assert mnist.load("test")[0].max() == 1


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match="'validation'.*'train', 'test'"):
        mnist.load("validation")


@pytest.mark.fault("damaged", "a file of MNIST missing, cut short or altered", "refused by name")
def test_a_missing_file_is_named_with_the_way_to_restore_it(copy):
    (copy / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(mnist.DataError, match="t10k-labels-idx1-ubyte.gz is missing.*10008.*git checkout"):
        mnist.load("test", copy)


@pytest.mark.fault("damaged", "a file of MNIST missing, cut short or altered", "refused by name")
def test_a_truncated_file_is_named(copy):
    path = copy / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(mnist.DataError,
                       match="t10k-images.*expected 7840016.*found a file of 1000 bytes.*git checkout"):
        mnist.load("test", copy)


@pytest.mark.fault("damaged", "a file of MNIST missing, cut short or altered", "refused by name")
def test_a_file_that_is_no_gzip_is_named(copy):
    (copy / "t10k-images-idx3-ubyte.gz").write_bytes(b"not gzip at all")
    with pytest.raises(mnist.DataError, match="cannot be read as gzip"):
        mnist.load("test", copy)


@pytest.mark.fault("damaged", "a file of MNIST missing, cut short or altered", "refused by name")
def test_one_flipped_pixel_is_found(copy):
    path = copy / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[5000] ^= 1
    path.write_bytes(gzip.compress(bytes(content), 1))
    with pytest.raises(mnist.DataError,
                       match="is altered: expected.*0fa7898d.*found 7840016 bytes with SHA-256"):
        mnist.load("test", copy)


@pytest.mark.fault("damaged", "a file of MNIST missing, cut short or altered", "refused by name")
def test_a_label_of_77_is_found(copy):
    path = copy / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[100] = 77
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(mnist.DataError, match="is altered"):
        mnist.load("test", copy)
