"""Attacks in the l-infinity ball: FGSM and PGD, written out, and adapters to strong attacks of other libraries."""

from nodelib.attacks.common import AttackError
from nodelib.attacks.decision import hop_skip_jump
from nodelib.attacks.fgsm import fgsm
from nodelib.attacks.losses import LOSSES, dlr_loss, logit_gap, margin_loss
from nodelib.attacks.pgd import pgd
from nodelib.attacks.strong import STRONG, apgd_ce, apgd_t, fab_t, square

ATTACKS = {"fgsm": fgsm, "pgd": pgd, "apgd-ce": apgd_ce, "apgd-t": apgd_t, "fab-t": fab_t, "square": square,
           "hop-skip-jump": hop_skip_jump}


def get(name: str):
    """The attack function of this name; ValueError listing the known ones otherwise."""
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; the known attacks are {', '.join(ATTACKS)}")
    return ATTACKS[name]


__all__ = ["ATTACKS", "AttackError", "LOSSES", "STRONG", "apgd_ce", "apgd_t", "dlr_loss", "fab_t", "fgsm", "get",
           "hop_skip_jump", "logit_gap", "margin_loss", "pgd", "square"]
