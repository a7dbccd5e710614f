"""Attacks in the l-infinity ball: FGSM and PGD, written out, and adapters to strong attacks of other libraries."""

from nodelib.attacks.common import AttackError
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

ATTACKS = {"fgsm": fgsm, "pgd": pgd, "apgd-ce": apgd_ce, "apgd-dlr": apgd_dlr, "apgd-t": apgd_t, "fab-t": fab_t,
           "square": square, "hop-skip-jump": hop_skip_jump}


def get(name: str):
    """The attack function of this name; ValueError listing the known ones otherwise."""
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; the known attacks are {', '.join(ATTACKS)}")
    return ATTACKS[name]


__all__ = ["ATTACKS", "AttackError", "LIBRARY_ATTACKS", "LOSSES", "RANDOMISED", "STRONG", "apgd_ce", "apgd_dlr", "apgd_t", "dlr_loss", "fab_t",
           "fgsm", "get", "hop_skip_jump", "library_afterthoughts", "library_warnings", "logit_gap", "margin_loss", "pgd", "square"]
