"""What can go wrong for a known reason. Each error names the value, the allowed range and the way out."""

import math
import numbers
from collections.abc import Collection
from typing import Any, TypeGuard


class NodelibError(Exception):
    """Base of all errors with a known reason: commands report them in one line, and let any other show as
    the fault it is.
    """


class InputError(NodelibError, ValueError):
    """A value that was asked for is not among those allowed."""


def plain(value: Any) -> Any:
    """A 0-dimensional tensor or array, or a number of numpy, as Python's own; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number; a tensor or text that could be read as one is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object, least: int) -> TypeGuard[int]:
    """Whether a value is an integer of at least `least`; 2.0 is not, which ranges and shapes do not take."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def check_whole(name: str, value: object, least: int, error: type[InputError] = InputError) -> int:
    """The value as `plain` gives it; an error unless it is an integer of at least `least`."""
    if not is_whole(value := plain(value), least):
        raise error(f"{name} is {value!r}; it must be an integer of at least {least}")
    return value


def check_flag(name: str, value: object) -> bool:
    """The value as `plain` gives it; InputError unless it is True or False."""
    if not isinstance(value := plain(value), bool):
        raise InputError(f"{name} is {value!r}; it must be True or False")
    return value


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """InputError unless a value is one of the texts."""
    if not (isinstance(value, str) and value in choices):
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


class TimesError(InputError):
    """The requested times are not numbers in one direction: repeated, not finite, or too few."""


class ToleranceError(InputError):
    """rtol, atol, a step size or a step limit is outside its range."""


class StateTypeError(NodelibError, TypeError):
    """The state is neither a float32 or float64 tensor nor a tuple of them."""


class DerivativeError(InputError):
    """func returns something whose shape or type differs from the state's."""


class ChangedStateError(InputError):
    """func changes the state it is given in place."""


class UnsupportedGradientError(NodelibError, RuntimeError):
    """A derivative that this way of differentiating cannot give."""


class RecomputationError(NodelibError, RuntimeError):
    """A step that is taken a second time, for a gradient, does not come out as it did in the solve."""


class IntegrationError(NodelibError, RuntimeError):
    """The integration cannot go on from time `t` with step size `h`; `norm` is the offending norm."""

    def __init__(self, message: str, t: float, h: float, norm: float) -> None:
        super().__init__(f"{message} (at t = {t:.9g}, step size {h:.3g}, norm {norm:.3g})")
        self.message, self.t, self.h, self.norm = message, t, h, norm

    def __reduce__(self) -> tuple:
        # by default it would be made anew from its args, the whole text alone: that fails, and a pool whose
        # worker's error cannot be read waits for ever
        return type(self), (self.message, self.t, self.h, self.norm), self.__dict__


class NonFiniteError(IntegrationError):
    """The state or its derivative is NaN or infinite."""


class StepSizeUnderflowError(IntegrationError):
    """The step became so small that t + h equals t."""


class StepLimitError(IntegrationError):
    """The allowed number of steps was spent before the end time."""
