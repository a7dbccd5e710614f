"""Attacks in the l-infinity ball: FGSM and PGD."""

from nodelib.attacks.common import AttackError
from nodelib.attacks.fgsm import fgsm
from nodelib.attacks.losses import LOSSES, dlr_loss, logit_gap, margin_loss
from nodelib.attacks.pgd import pgd

ATTACKS = {"fgsm": fgsm, "pgd": pgd}


def get(name: str):
    """The attack function of this name; ValueError listing the known ones otherwise."""
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}; the known attacks are {', '.join(ATTACKS)}")
    return ATTACKS[name]


__all__ = ["ATTACKS", "AttackError", "LOSSES", "dlr_loss", "fgsm", "get", "logit_gap", "margin_loss", "pgd"]
