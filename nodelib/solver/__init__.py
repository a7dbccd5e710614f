"""Solving initial value problems with torch, and the gradients through a solve."""

from nodelib.solver.errors import (
    ChangedStateError,
    DerivativeError,
    IntegrationError,
    NonFiniteError,
    RecomputationError,
    StateTypeError,
    StepLimitError,
    StepSizeUnderflowError,
    TimesError,
    ToleranceError,
    UnsupportedGradientError,
)
from nodelib.solver.integrate import GRADIENTS, Solution, odeint

__all__ = [
    "GRADIENTS", "ChangedStateError", "DerivativeError", "IntegrationError", "NonFiniteError",
    "RecomputationError", "Solution", "StateTypeError", "StepLimitError", "StepSizeUnderflowError",
    "TimesError", "ToleranceError", "UnsupportedGradientError", "odeint",
]
