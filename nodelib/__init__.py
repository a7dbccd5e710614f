"""nodelib: neural ODEs on MNIST, their gradients, attacks on them, and the dynamics of their states.

The names below are the ones most users need; each module's own names are listed on the book's API page.
Errors with a known reason are of the type `NodelibError`, a failed integration of `IntegrationError` and an
attack that came to nothing of `AttackError`; wrong arguments are mostly ValueErrors of Python, too.
"""

from nodelib.attacks import Attack, AttackError, fgsm, pgd
from nodelib.experiment.artifacts import Run, find_runs, load_run
from nodelib.experiment.configs import NAMES, AttackConfig, RunConfig, build
from nodelib.experiment.evaluation import Measurement, evaluate, evaluate_run
from nodelib.experiment.training import run, train
from nodelib.networks import ODEBlock, ODEFunc, ODENet, ResNet
from nodelib.solver.errors import IntegrationError, NodelibError
from nodelib.solver.integrate import GRADIENTS, Solution, odeint
from nodelib.statistics import wilson

__version__ = "0.1.0"

__all__ = [
    "GRADIENTS", "NAMES", "Attack", "AttackConfig", "AttackError", "IntegrationError", "Measurement",
    "NodelibError", "ODEBlock", "ODEFunc", "ODENet", "ResNet", "Run", "RunConfig", "Solution", "build",
    "evaluate", "evaluate_run", "fgsm", "find_runs", "load_run", "odeint", "pgd", "run", "train", "wilson",
]
