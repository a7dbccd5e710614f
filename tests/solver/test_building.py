"""How the compiled kernels come to be: compilers, instruction sets, and cache folders that refuse."""

import errno
import importlib.util
import logging
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from problems import relative_error

from nodelib.networks import ODEFunc
from nodelib.solver import kernel
from nodelib.solver.integrate import odeint

KEY, OTHER = (16, 7, 7, 16, True, False), (16, 8, 8, 16, True, False)


def unload(monkeypatch, folder):
    """No kernel is loaded, and a cache folder without any; the folder."""
    monkeypatch.setattr(kernel, "_libraries", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(kernel.tempfile, "tempdir", str(folder))
    return folder / "nodelib"


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    if kernel.load(*KEY) is None:
        pytest.skip("no C compiler")
    return unload(monkeypatch, tmp_path)


def hide_compilers(monkeypatch, folder):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(folder))


def compare_with_torch(shape, tolerance):
    """A solve of random dynamics and its gradients, by the kernels and by torch."""
    torch.manual_seed(0)
    channels, size = shape
    func, y0 = ODEFunc(channels), torch.randn(7, channels, size, size)
    weights = torch.randn(2, *y0.shape)

    def solve(compiled):
        leaf = y0.clone().requires_grad_()
        solution = odeint(func, leaf, [0.0, 0.2], rtol=tolerance, atol=tolerance, compiled=compiled)
        return solution, torch.autograd.grad((solution.y * weights).sum(), (leaf, *func.parameters()))

    (ours, found), (theirs, expected) = solve(True), solve(False)
    assert abs(ours.accepted - theirs.accepted) <= 1
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-4, atol=1e-4)
    assert max(map(relative_error, found, expected)) < 2e-2


@pytest.mark.parametrize("ziglang", [True, False])
def test_a_missing_compiler_is_logged_once_and_torch_takes_over(monkeypatch, caplog, tmp_path, ziglang):
    unload(monkeypatch, tmp_path)
    if ziglang:  # asked for another
        monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    else:
        hide_compilers(monkeypatch, tmp_path)
        monkeypatch.setattr(kernel.importlib.util, "find_spec", lambda name: None)
    func = ODEFunc(16)
    with caplog.at_level(logging.WARNING, logger="nodelib"), torch.no_grad():
        for size in (7, 7, 8):
            y0 = torch.randn(2, 16, size, size)
            solution = odeint(func, y0, [0.0, 1.0])
            assert torch.equal(solution.y, odeint(func, y0, [0.0, 1.0], compiled=False).y)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and "nodelib[compiler]" in told[0]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="no ziglang")
def test_without_a_compiler_of_the_machine_that_of_a_package_builds_the_kernels(monkeypatch, tmp_path):
    cache = unload(monkeypatch, tmp_path)
    hide_compilers(monkeypatch, tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    assert kernel.load(*KEY) is not None
    compare_with_torch((16, 7), 1e-3)
    assert [path.suffix for path in cache.iterdir()] == [".so"] and list(tmp_path.iterdir()) == [cache]


def test_a_compiler_may_come_with_options(empty_cache, monkeypatch):
    compiler = os.environ.get("CC") or next(c for c in ("cc", "gcc", "clang") if shutil.which(c))
    monkeypatch.setenv("CC", f"{compiler} -std=gnu11 -DNAME='a b'")
    assert kernel.load(*KEY) is not None


# flags, what the processor must have, and the channels of a tile and a product, which tell a vector's length
INSTRUCTIONS = {"avx2": ("-mavx2 -mno-avx512f", ("AVX2", "AVX512"), (8, 16)),
                "without avx": ("-mno-avx", None, (8, 8))}


@pytest.fixture(scope="module")
def other_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("instructions")


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="flags of another processor")
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])  # minimal filtering, and the sum
@pytest.mark.parametrize("shape", [(16, 7), (128, 7), (64, 10)], ids=["small", "large", "wide"])
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_kernels_of_other_instructions_solve_as_torch_does(name, shape, tolerance, monkeypatch, other_cache):
    flags, needs, channels = INSTRUCTIONS[name]
    if kernel.load(*KEY) is None:
        pytest.skip("no C compiler")
    if needs and not torch.backends.cpu.get_cpu_capability().startswith(needs):
        pytest.skip(f"a processor without {name}")
    unload(monkeypatch, other_cache)
    monkeypatch.setenv("NODELIB_CFLAGS", flags)
    compare_with_torch(shape, tolerance)
    (library,) = kernel._libraries.values()
    assert library is not None and (library.nodelib_block(), library.nodelib_columns()) == channels


@pytest.mark.parametrize("damage", [
    lambda data: data[:len(data) // 2], lambda data: b"", lambda data: data[:-1] + b"?",
], ids=["half", "nothing", "another last byte"])
@pytest.mark.fault("damaged", "a compiled kernel damaged in its cache", "built anew")
def test_a_damaged_library_is_built_anew(empty_cache, damage):
    path = kernel._build(KEY)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert kernel.load(*KEY) is not None
    assert [file.read_bytes() for file in empty_cache.iterdir()] == [whole]


def threads():
    return ThreadPoolExecutor(3)


def processes():
    return ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork"))


@pytest.mark.slow
@pytest.mark.parametrize("pool", [threads, processes])
@pytest.mark.fault("together", "several processes or threads compile one kernel", "one whole kernel is left")
def test_several_compile_beside_one_another_and_sweep_after_the_killed(empty_cache, pool):
    if pool is processes and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    old, new = empty_cache / "build-old", empty_cache / "build-new"
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (0, 0))
    with pool() as workers:
        paths = list(workers.map(kernel._build, [KEY] * 3))
    assert set(empty_cache.iterdir()) == {new, *paths}
    assert all(kernel._checksum(path) in path.name for path in paths)


@pytest.mark.fault("refused", "a cache folder or a compiler that fails",
                   "PyTorch takes over, nothing is left")
def test_a_failed_compilation_leaves_nothing(empty_cache, monkeypatch):
    monkeypatch.setattr(kernel, "FLAGS", ("--no-such-option",))
    assert kernel.load(*KEY) is None
    assert not any(path.is_file() or path.name.startswith("build-") for path in empty_cache.parent.rglob("*"))


def read_only(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "cache")


def a_file_in_its_place(monkeypatch, cache):
    cache.parent.joinpath("file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent / "file"))
    monkeypatch.setattr(kernel.tempfile, "tempdir", str(cache.parent / "file"))


def another_owner(monkeypatch, cache):
    user = os.getuid() + 1
    monkeypatch.setattr(kernel.os, "getuid", lambda: user)


def a_full_disk(monkeypatch, cache):
    compiler = os.environ.get("CC") or next(c for c in ("cc", "gcc", "clang") if shutil.which(c))
    monkeypatch.setenv("CC", f"sh -c 'ulimit -f 1; {compiler} \"$@\"' sh")


def a_file_system_for_reading(monkeypatch, cache):
    monkeypatch.setattr(kernel.tempfile, "mkdtemp", read_only)


REFUSALS = {
    "read-only": a_file_system_for_reading, "no folder": a_file_in_its_place,
    "of another user": another_owner, "full disk": a_full_disk,
}


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners of folders here")
@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.fault("refused", "a cache folder or a compiler that fails",
                   "PyTorch takes over, nothing is left")
def test_a_cache_that_refuses_is_told_once_and_torch_takes_over(name, empty_cache, monkeypatch, caplog,
                                                                fault):
    REFUSALS[name](monkeypatch, empty_cache)
    with caplog.at_level(logging.WARNING, logger="nodelib"):
        assert kernel.load(*KEY) is None and kernel.load(*OTHER) is None
    told = [record.getMessage() for record in caplog.records]
    fault.tell(told[0])
    assert len(told) == 1 and "XDG_CACHE_HOME" in told[0]
    assert not list(empty_cache.parent.rglob("*.so"))


def test_a_kernel_in_a_folder_that_can_only_be_read_is_used(empty_cache, monkeypatch):
    path = kernel._build(KEY)
    monkeypatch.setattr(kernel.tempfile, "mkdtemp", read_only)
    assert kernel._build(KEY) == path


def test_a_user_without_a_home_has_kernels_in_a_folder_for_temporary_files(empty_cache, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert kernel.load(*KEY) is not None
    assert [path.parent.parent for path in empty_cache.parent.rglob("*.so")] == [empty_cache.parent]


def test_what_a_step_keeps_asks_for_huge_pages_within_itself_and_no_bit_depends_on_them(monkeypatch):
    if kernel.load(*KEY) is None:
        pytest.skip("no C compiler")
    asked, rooms, room = [], [], kernel._room

    def noted(like, *shape):
        found = room(like, *shape)
        rooms.append((found.data_ptr(), found.data_ptr() + found.nbytes))
        return found

    def solve(batch):
        torch.manual_seed(0)
        func, y0 = ODEFunc(16), torch.randn(batch, 16, 7, 7, requires_grad=True)
        return torch.autograd.grad(odeint(func, y0, [0.0, 1.0]).y[-1].square().sum(), y0)[0]

    monkeypatch.setattr(kernel, "_madvise", None)  # another system
    expected = solve(64)
    monkeypatch.setattr(kernel, "_madvise", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(kernel, "_room", noted)
    assert torch.equal(solve(64), expected) and len(asked) > 3
    for start, size, advice in asked:
        assert start % kernel.HUGE == size % kernel.HUGE == 0 and size > 0 and advice == 14
        assert any(low <= start and start + size <= high for low, high in rooms)
    asked.clear()
    solve(1)  # nothing of one image is as large as a huge page, but for the threads' scratch
    assert len(asked) <= 1


THREADS = """
import re, sys
from pathlib import Path
from nodelib.solver import kernel
if kernel.load(16, 7, 7, 16, True, False) is None:
    sys.exit("no C compiler")
lines = Path("/proc/self/maps").read_text().splitlines()
paths = {line.split()[-1] for line in lines if "/" in line}
print(sum(bool(re.match(r"lib(gomp|omp|iomp)", Path(path).name)) for path in paths))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernels_share_the_threads_of_torch():
    # in a process of its own: other packages bring pools of their own
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    if "no C compiler" in done.stderr:
        pytest.skip("no C compiler")
    # two pools would wait for each other's processors
    assert done.stdout.strip() in {"0", "1"}, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages by advice are Linux's")
def test_the_system_takes_the_advice():
    assert kernel._madvise is not None
    room = kernel._room(torch.empty(0), 3 * kernel.HUGE // 4)
    start = -(-room.data_ptr() // kernel.HUGE) * kernel.HUGE
    if kernel._madvise(start, kernel.HUGE, kernel.ADVICE):  # 22, EINVAL, of a system built without huge pages
        assert kernel.ctypes.get_errno() == errno.EINVAL


@pytest.mark.parametrize("channels, together", [(16, 8), (64, 8), (128, 16), (256, 16)])
def test_more_samples_share_a_reading_of_weights_that_no_cache_holds(channels, together, empty_cache,
                                                                     monkeypatch):
    commands = []
    monkeypatch.setattr(kernel, "_compile", lambda command, *_: commands.append(command))
    kernel._build((channels, 7, 7, 16, True, False))
    assert f"-DCHUNK={together}" in commands[0]
