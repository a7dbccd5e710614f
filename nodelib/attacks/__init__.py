"""Attacks in the l-infinity ball: FGSM and PGD, written out, and adapters to strong attacks of libraries."""

from nodelib.attacks import random_signs  # noqa: F401 (enters its name)
from nodelib.attacks.attack import METHODS, Attack
from nodelib.attacks.common import AttackError, NonFiniteLogits, NoODEError
from nodelib.attacks.decision import hop_skip_jump
from nodelib.attacks.fgsm import fgsm
from nodelib.attacks.losses import LOSSES, dlr_loss, logit_gap, margin_loss
from nodelib.attacks.pgd import pgd
from nodelib.attacks.strong import (
    LIBRARY_ATTACKS,
    RANDOMISED,
    STRONG,
    apgd_ce,
    apgd_dlr,
    apgd_t,
    fab_t,
    library_afterthoughts,
    library_warnings,
    square,
)

__all__ = [
    "LIBRARY_ATTACKS", "LOSSES", "METHODS", "RANDOMISED", "STRONG", "Attack", "AttackError", "NoODEError",
    "NonFiniteLogits", "apgd_ce", "apgd_dlr", "apgd_t", "dlr_loss", "fab_t", "fgsm", "hop_skip_jump",
    "library_afterthoughts", "library_warnings", "logit_gap", "margin_loss", "pgd", "square",
]
