"""What can go wrong for a known reason. Each error names the value, the allowed range and the way out."""

from __future__ import annotations


class NodelibError(Exception):
    """Base of all errors with a known reason: commands report them in one line, and let any other show as
    the fault it is.
    """


class InputError(NodelibError, ValueError):
    """A value that was asked for is not among those allowed."""


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


class IntegrationError(NodelibError, RuntimeError):
    """The integration cannot go on from time `t` with step size `h`; `norm` is the offending norm."""

    def __init__(self, message: str, t: float, h: float, norm: float) -> None:
        super().__init__(f"{message} (at t = {t:.9g}, step size {h:.3g}, norm {norm:.3g})")
        self.t, self.h, self.norm = t, h, norm


class NonFiniteError(IntegrationError):
    """The state or its derivative is NaN or infinite."""


class StepSizeUnderflowError(IntegrationError):
    """The step became so small that t + h equals t."""


class StepLimitError(IntegrationError):
    """The allowed number of steps was spent before the end time."""
