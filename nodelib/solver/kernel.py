"""Compiled Runge-Kutta steps of `ODEFunc` for float32 states on a CPU (`kernel.c`).

torch's convolution of 16 channels runs far below the processor's peak, and every operation passes the
whole batch through memory. The kernels keep a sample in the processor's cache through all stages of a
step. At tolerances of 1e-4 and more they convolve by minimal filtering, with about a third of the products
and about four times the rounding error (`kernel.c` says how). They are compiled for the state's shape at
first use (a second or two) and kept in the user's cache folder (XDG_CACHE_HOME), by cc, gcc or clang, by
what the environment variable CC names, or by the package `ziglang` (the extra nodelib[compiler]). Further
flags may stand in NODELIB_CFLAGS, such as "-mno-avx512f"; each choice of compiler and flags has kernels of
its own. Where they cannot be had, or for any other dynamics, the solver uses torch, and says so in the log of
"nodelib", once for each reason.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Sequence

import torch
from torch import Tensor, nn

from nodelib.solver.stepper import Step, TorchStepper
from nodelib.solver.tableau import DOPRI5, Tableau

logger = logging.getLogger("nodelib")
SOURCE = Path(__file__).with_name("kernel.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC")
# samples a thread works on together: few stay in its cache, but from WIDE channels on the weights do not, and
# more samples share one reading of them
CHUNK, WIDE, WIDE_CHUNK = 8, 128, 16
CONVOLUTIONS, NORMS, STAGES = 4, 5, 7
MINIMAL_TOLERANCE = 1e-4  # rounding of minimal filtering, a few 1e-6 of f, must not show in the estimate
DOMAIN = 36  # products of a tile in minimal filtering, see kernel.c
# G of kernel.c: a kernel's row or column at the points 0, 1, -1, 2, -2 and infinity
FILTER = torch.tensor([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                       [1 / 24, 1 / 12, 1 / 6],
                       [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=torch.float32, device="cpu")
COMPILE_SECONDS = 120
HUGE, ADVICE = 2**21, 14  # bytes of a huge page, and MADV_HUGEPAGE, on Linux
_libraries: dict[tuple, ctypes.CDLL | None] = {}
_told: set[str] = set()
_dynamics: type[nn.Module] | None = None
_balanced = True
# OpenMP's pool of threads, which torch and the kernels share, does not survive a fork: who asks for it hangs
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@contextlib.contextmanager
def unbalanced(active: bool = True) -> Iterator[None]:
    """Leave cotangents as small as they are (`NativeStepper.powers`), as a solver that knows nothing of it
    would, to see what that costs.
    """
    global _balanced
    before, _balanced = _balanced, _balanced and not active
    try:
        yield
    finally:
        _balanced = before


def native_stepper(func: Any, y0: Tensor, tableau: Tableau, params: Sequence[Tensor], rtol: float,
                   atol: float) -> "NativeStepper | None":
    """A compiled stepper for this problem, or None where the kernels do not apply or cannot be built."""
    if os.environ.get("NODELIB_COMPILED", "1") == "0":
        return None
    reason = misfit(func, y0, tableau, params)
    if reason is not None:
        if reason not in _told:
            _told.add(reason)
            logger.info("compiled kernels do not apply, using torch instead: %s", reason)
        return None
    library = load(y0.shape[1], y0.shape[2], y0.shape[3], func.norm0.num_groups, func.last_norm, func.leaky)
    return None if library is None else NativeStepper(library, func, y0, params, rtol, atol)


def register(dynamics: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: the dynamics that the kernels compute (`nodelib.networks.ODEFunc`)."""
    global _dynamics
    _dynamics = dynamics
    return dynamics


def misfit(func: Callable, y0: Tensor, tableau: Tableau, params: Sequence[Tensor]) -> str | None:
    """Why the kernels do not apply to these dynamics, this state and this method; None where they do."""
    if type(func) is not _dynamics:
        return "the dynamics are not an ODEFunc"
    if tableau is not DOPRI5:
        return "the method is not dopri5"
    changed = _changed_part(func)
    if changed is not None:
        return f"{changed} is not as ODEFunc makes it"
    own = list(func.parameters())
    if not all(x.dtype == torch.float32 and x.device.type == "cpu" and x.layout == torch.strided
               and not x.is_neg() and type(x) in (Tensor, nn.Parameter) for x in (y0, *own)):
        return "state and parameters are not all plain float32 tensors on the CPU"
    if y0.ndim != 4 or y0.shape[1] != func.channels:
        return f"the state has shape {tuple(y0.shape)} and not (N, {func.channels}, H, W)"
    # a row of pixels must fit the registers
    if func.channels % 16 or min(y0.shape[2:]) < 5 or y0.shape[3] > 12:
        return (f"the state is {func.channels} x {y0.shape[2]} x {y0.shape[3]}; channels must be a multiple "
                "of 16, the height at least 5, the width 5 to 12")
    if not all(any(p is q for q in own) for p in params):
        return "params holds tensors that are not the dynamics' own"
    return None


def _changed_part(func: nn.Module) -> str | None:
    """Name of a part of an `ODEFunc` that was replaced, reconfigured, hooked or overridden, or None."""
    channels, first = func.channels, func.norm0
    convolution = dict(in_channels=channels, out_channels=channels, kernel_size=(3, 3), stride=(1, 1),
                       padding=(1, 1), dilation=(1, 1), groups=1, padding_mode="zeros", transposed=False)
    norm = dict(num_channels=channels, num_groups=getattr(first, "num_groups", None),
                eps=getattr(first, "eps", None))
    shapes = {"conv": {"weight": (channels, channels, 3, 3)},
              "norm": {"weight": (channels,), "bias": (channels,)}}
    last = CONVOLUTIONS + 1 if func.last_norm else CONVOLUTIONS
    names = {*(f"conv{i}" for i in range(1, CONVOLUTIONS + 1)), *(f"norm{i}" for i in range(last))}
    if torch.nn.modules.module._has_any_global_hook():
        return "a module with global hooks"
    if set(func._modules) != names or func._parameters or func._buffers or not _plain(func):
        return "ODEFunc itself"
    seen: set[int] = set()
    for name, part in func.named_children():
        kind, settings = (nn.Conv2d, convolution) if name[:4] == "conv" else (nn.GroupNorm, norm)
        held = {key: value for key, value in part._parameters.items() if value is not None}
        if (type(part) is not kind or part._modules or part._buffers or not _plain(part)
            or any(getattr(part, key) != value for key, value in settings.items())
            or {key: tuple(value.shape) for key, value in held.items()} != shapes[name[:4]]
            or seen & {id(value) for value in held.values()}):  # a shared tensor collects two gradients
            return name
        seen |= {id(value) for value in held.values()}
    return None


def _plain(module: nn.Module) -> bool:
    """Whether calling the module runs its class's forward and nothing else."""
    return not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks or any(callable(value) for value in vars(module).values()))


def load(channels: int, height: int, width: int, groups: int, last_norm: bool,
         leaky: bool) -> ctypes.CDLL | None:
    """The library for one shape, compiled unless a cached one exists; None if that fails.

    Only the first failure is logged: what prevents one shape prevents others.
    """
    key = (channels, height, width, groups, last_norm, leaky)
    if key not in _libraries:
        try:
            _libraries[key] = _declare(_build(key))
        except (OSError, ValueError, subprocess.SubprocessError) as error:  # ValueError: an open quote in CC
            if None not in _libraries.values():
                logger.warning("compiled kernels are not available, using torch instead: %s", error)
            _libraries[key] = None
    return _libraries[key]


def _compiler() -> list[str]:
    """The command of a C compiler, with its options."""
    found = [name for name in ("cc", "gcc", "clang") if shutil.which(name)]
    chosen = shlex.split(os.environ.get("CC", "")) or found[:1]
    if not chosen and importlib.util.find_spec("ziglang") is not None:
        chosen = [sys.executable, "-m", "ziglang", "cc"]
    if not chosen or not shutil.which(chosen[0]):
        wanted = chosen[0] if chosen else "cc, gcc, clang"
        raise FileNotFoundError(f"no C compiler found ({wanted}); install one, or name it in CC, or pip "
                                "install 'nodelib[compiler]'")
    return [*chosen, *FLAGS, *shlex.split(os.environ.get("NODELIB_CFLAGS", ""))]


def _folders() -> Iterator[Path]:
    """Where kernels may lie, the user's cache folder first, then a folder for temporary files."""
    user = os.getuid() if hasattr(os, "getuid") else None
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nodelib"
    yield Path(tempfile.gettempdir()) / f"nodelib-{'cache' if user is None else user}"


def _build(key: tuple) -> Path:
    names = ("C", "H", "W", "GROUPS", "LAST_NORM", "LEAKY")
    macros = [f"-D{name}={int(value)}" for name, value in zip(names, key)]
    macros.append(f"-DCHUNK={CHUNK if key[0] < WIDE else WIDE_CHUNK}")
    command = [*_compiler(), *macros]
    # -march=native: a cached library must not meet another processor (a shared home folder)
    parts = (SOURCE.read_bytes(), " ".join(command).encode(), _processor().encode())
    name = f"native-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:20]}"
    failures: dict[str, None] = {}  # in their order, each once
    for folder in _folders():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # a folder of somebody else could hold a library of theirs
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                raise PermissionError(f"{folder} belongs to another user")
            for path in folder.glob(f"{name}-*.so"):
                with contextlib.suppress(FileNotFoundError):  # another process may be sweeping, too
                    # a library cut short would not fail to load but end the process at its first use
                    if path.stem.endswith(_checksum(path)):
                        return path
                    path.unlink()
            return _compile(command, folder, name)
        except OSError as error:  # such as a file system that is full or can only be read
            failures[str(error)] = None
    raise OSError(f"{'; '.join(failures)} (CC names another compiler, XDG_CACHE_HOME another folder)")


def _compile(command: Sequence[str], folder: Path, name: str) -> Path:
    """Compile into `folder`; the file's name ends in its checksum."""
    start = time.perf_counter()
    for stale in folder.glob("build-*"):  # of processes that were killed
        with contextlib.suppress(OSError):
            if time.time() - stale.stat().st_mtime > 3 * COMPILE_SECONDS:
                shutil.rmtree(stale)
    scratch = Path(tempfile.mkdtemp(prefix="build-", dir=folder))
    built = scratch / "native.so"
    # the compiler of ziglang keeps files, by default in the home folder
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(scratch), "ZIG_LOCAL_CACHE_DIR": str(scratch)}
    try:
        for openmp in (("-fopenmp",), ()):  # some compilers come without OpenMP: one thread then
            done = subprocess.run([*command, *openmp, str(SOURCE), "-o", str(built), "-lm"], env=environment,
                                  capture_output=True, text=True, timeout=COMPILE_SECONDS)
            if done.returncode == 0:
                break
        if done.returncode:
            raise OSError(f"the C compiler fails: {done.stderr.strip()[-500:]}")
        with built.open("rb+") as file:
            os.fsync(file.fileno())
        path = folder / f"{name}-{_checksum(built)}.so"
        os.replace(built, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    logger.info("compiled kernels in %.1f s%s: %s", time.perf_counter() - start,
                "" if openmp else " without OpenMP", shlex.join(command))
    return path


def _room(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor like a tensor that is there (torch's default type and device may be others).

    What a step keeps is fresh memory, and the system hands that out page by page, each filled with zeros: by
    pages of 4096 bytes a small network's solve waits as long for them as it computes. Where the system has
    huge pages it is asked for those.
    """
    room = like.new_empty(shape)
    start = -(-room.data_ptr() // HUGE) * HUGE
    size = (room.data_ptr() + room.nbytes - start) // HUGE * HUGE
    if size > 0 and _madvise is not None:
        _madvise(start, size, ADVICE)  # advice: where it is not taken, nothing else changes
    return room


def _find_madvise() -> Any:
    if sys.platform != "linux":
        return None
    found = ctypes.CDLL(None, use_errno=True).madvise
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found


_madvise = _find_madvise()


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:20]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines
                                 if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return platform.processor() + platform.machine()


class _Params(ctypes.Structure):
    _fields_ = [("forward", ctypes.c_void_p), ("backward", ctypes.c_void_p), ("scale", ctypes.c_void_p),
                ("offset", ctypes.c_void_p), ("eps", ctypes.c_float), ("minimal", ctypes.c_int)]


def _declare(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    head: list[Any] = [integer, integer, ctypes.POINTER(_Params)]
    library.nodelib_evaluate.argtypes = head + [pointer] * 4
    library.nodelib_vjp.argtypes = head + [pointer] * 5
    library.nodelib_step.argtypes = head + [pointer] * 8 + [number, number, pointer]
    library.nodelib_step.restype = ctypes.c_double
    library.nodelib_reverse.argtypes = head + [pointer] * 9
    for name in ("nodelib_scratch", "nodelib_kept"):
        getattr(library, name).restype = ctypes.c_size_t
    return library


_packed: "weakref.WeakKeyDictionary[nn.Module, tuple]" = weakref.WeakKeyDictionary()


def _pack(func: Any, library: ctypes.CDLL, minimal: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights in the kernels' order (forward; transposed and flipped for the reverse), scales, offsets."""
    # bit for bit: an edit through .data changes neither a pointer nor a version, and -0.0 equals 0.0
    own = torch.cat([p.detach().reshape(-1) for p in func.parameters()]).view(torch.int32)
    found = _packed.get(func)
    if found is not None and found[0] is library and found[1] == minimal and torch.equal(found[2], own):
        return found[3]
    block, inputs, columns = library.nodelib_block(), library.nodelib_inputs(), library.nodelib_columns()
    channels = func.channels

    def order(weight: Tensor) -> Tensor:
        if minimal:
            transformed = torch.einsum("ak,oikl,bl->abio", FILTER, weight, FILTER)
            parts = transformed.reshape(DOMAIN, channels, channels // columns, columns)
            return parts.transpose(1, 2).reshape(-1)
        parts = weight.view(channels // block, block, channels // inputs, inputs, 3, 3)
        return parts.permute(0, 2, 4, 3, 5, 1).reshape(-1)

    with torch.no_grad():
        weights = [getattr(func, f"conv{i}").weight.detach() for i in range(1, CONVOLUTIONS + 1)]
        forward = torch.cat([order(w.contiguous()) for w in weights])
        backward = torch.cat([order(w.transpose(0, 1).flip(2, 3).contiguous()) for w in weights])
        norms = [getattr(func, f"norm{i}", None) for i in range(NORMS)]
        like = func.norm0.weight
        scale = torch.cat([torch.ones_like(like) if n is None else n.weight.detach() for n in norms])
        offset = torch.cat([torch.zeros_like(like) if n is None else n.bias.detach() for n in norms])
    packed = (forward, backward, scale, offset)
    _packed[func] = (library, minimal, own, packed)
    return packed


class NativeStepper(TorchStepper):
    """`TorchStepper` for dopri5 and `ODEFunc`, by the compiled kernels. States are (N, H, W, C)."""

    def __init__(self, library: ctypes.CDLL, func: Any, y0: Tensor, params: Sequence[Tensor],
                 rtol: float, atol: float) -> None:
        super().__init__(func, DOPRI5, params, rtol, atol, None)
        self.library, self.n, self.threads = library, y0.shape[0], torch.get_num_threads()
        self.minimal = min(rtol, atol) >= MINIMAL_TOLERANCE
        self.tensors = _pack(func, library, self.minimal)
        self.structure = _Params(*(x.data_ptr() for x in self.tensors), func.norm0.eps, self.minimal)
        self.evaluation_size = self.n * library.nodelib_kept()
        self.bytes_per_evaluation = 4 * self.evaluation_size
        self.scratch = _room(y0, self.threads * library.nodelib_scratch())
        self.k = _room(y0, 5, self.n, *y0.shape[2:], y0.shape[1])  # stages 2 to 6 of the current step
        self.bars: Tensor | None = None

    def _call(self, name: str, *arguments: Any) -> Any:
        pointers = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
        return getattr(self.library, name)(self.n, self.threads, ctypes.byref(self.structure), *pointers)

    def _count(self, evaluations: int) -> None:
        self.nfe += evaluations
        self.func.nfe += evaluations

    def pack(self, y: Tensor) -> Tensor:
        return y.detach().permute(0, 2, 3, 1).contiguous()

    def unpack(self, y: Tensor) -> Tensor:
        return y.permute(0, 3, 1, 2)

    def evaluate(self, t: float, y: Tensor, keep: bool = False) -> tuple[Tensor, Any]:
        self._count(1)
        k, kept = torch.empty_like(y), _room(self.scratch, self.evaluation_size) if keep else None
        self._call("nodelib_evaluate", y, k, kept, self.scratch)
        return k, kept

    def vjp(self, kept: Any, k_bar: Tensor, gradients: list[Tensor | None]) -> Tensor:
        y_bar = torch.empty_like(k_bar)
        self._call("nodelib_vjp", k_bar, y_bar, kept, self._bars(), self.scratch)
        return y_bar

    def _bars(self) -> Tensor | None:
        if self.params and self.bars is None:
            channels = self.func.channels
            size = CONVOLUTIONS * (DOMAIN if self.minimal else 9) * channels**2 + 2 * NORMS * channels
            self.bars = _room(self.scratch, self.threads, size).zero_()
        return self.bars

    def step(self, t: float, y: Tensor, k1: Tensor | None, h: float, keep: bool = False,
             estimate: bool = True) -> Step:
        self._count(STAGES - 1)
        y_next, k_next = torch.empty_like(y), torch.empty_like(y)
        kept = _room(self.scratch, (STAGES - 1) * self.evaluation_size) if keep else None
        error = (ctypes.c_float * STAGES)(*(h * e for e in DOPRI5.error))
        square = self._call("nodelib_step", y, k1, self.k, y_next, k_next, kept, _matrix(h), error,
                            self.rtol, self.atol, self.scratch)
        return Step(t, h, y, k1, y_next, self.k, k_next, square**0.5, kept)

    def stages(self, step: Step) -> Tensor:
        return torch.cat([step.k1[None], step.k, step.k_next[None]])

    def dense(self, step: Step, x: float) -> Tensor:
        return step.y_next if x == 1.0 else self.combine(step.y, step.h, self.tableau.dense(x),
                                                         self.stages(step))

    def restore(self, step: Step) -> Any:
        # from the weights as they were packed for the solve, whatever became of func's
        return self.again(step, keep=True).kept

    def reverse(self, step: Step, y_bar: Tensor | None, k_bar_last: Tensor | None,
                outputs: list[tuple[float, Tensor]],
                gradients: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        kept = self.restore(step) if step.kept is None else step.kept
        extra, y_extra = None, None
        for x, cotangent in outputs:
            if x == 1.0:
                y_bar = cotangent if y_bar is None else y_bar + cotangent
                continue
            y_extra = cotangent if y_extra is None else y_extra + cotangent
            weights = cotangent.new_tensor(self.tableau.dense(x)) * step.h
            share = weights.view(-1, *[1] * cotangent.ndim) * cotangent
            extra = share if extra is None else extra + share
        y_start, k_start = torch.empty_like(step.y), torch.empty_like(step.y)
        self._call("nodelib_reverse", kept, y_bar, k_bar_last, extra, y_start, k_start, _matrix(step.h),
                   self._bars(), self.scratch)
        return (y_start if y_extra is None else y_start.add_(y_extra)), k_start

    def powers(self, y_bar: Tensor) -> Tensor | None:
        """Powers of two that bring the cotangents of every sample near 1, shape (N, 1, 1, 1): exact, since a
        reverse is linear.

        Where the softmax is all but saturated the loss's gradient is so small that products fall below the
        normal range of floats, in which processors compute many times as slowly (`nodelib.bench.saturation`)
        and round coarsely. Not where parameters are asked for: their gradients sum over samples.
        """
        if self.params or not _balanced:
            return None
        size = y_bar.abs().amax(dim=(0, 2, 3, 4))
        exponent = torch.where(size.isfinite(), -torch.frexp(size).exponent, 0).clamp(-120, 120)
        # exact, which a computed power need not be
        return ((exponent + 127) << 23).view(torch.float32).view(-1, 1, 1, 1)

    def finish(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        if self.bars is None:
            return gradients
        bars, self.bars, channels = self.bars.sum(0), None, self.func.channels
        norms = 2 * [NORMS * channels]
        convolutions, scales, offsets = bars.split([len(bars) - sum(norms), *norms])
        if self.minimal:
            bars = convolutions.view(CONVOLUTIONS, 6, 6, channels, channels)
            convolutions = torch.einsum("ak,nabio,bl->nklio", FILTER, bars, FILTER)
        found: dict[int, Tensor] = {}
        for i, bar in enumerate(convolutions.reshape(CONVOLUTIONS, 3, 3, channels, channels), 1):
            found[id(getattr(self.func, f"conv{i}").weight)] = bar.permute(3, 2, 0, 1).contiguous()
        for i, (scale, offset) in enumerate(zip(scales.split(channels), offsets.split(channels))):
            norm = getattr(self.func, f"norm{i}", None)
            if norm is not None:
                found[id(norm.weight)], found[id(norm.bias)] = scale, offset
        return [found[id(p)] for p in self.params]


def _matrix(h: float) -> Any:
    values = [h * row[j] if j < len(row) else 0.0 for row in DOPRI5.a for j in range(STAGES)]
    return (ctypes.c_float * STAGES**2)(*values)
