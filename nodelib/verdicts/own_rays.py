"""Does an attracting ray of its own for every class help against attack? The rule, and what was expected.

Written down before small-10-rays and small-10-short, equal but for the penalty, were trained. Known then:
the stored figures of small-10, trained six times as long (990 of 1,000 images right, 59 left by the ladder
of attacks at epsilon 0.1), and seven trials of 500 to 700 steps, none of them attacked, which decided the
form of the penalty and its weight.

- *Built*: `OWN` of the images that the network gets right at its own end time end on a ray of their class
  that no other class shares. Otherwise nothing below is about rays.
- *Helps*: the clean accuracy is at least the other's less `CLEAN`; PGD-40 on the margin at epsilon 0.1
  leaves at least `LEFT` more of the images; and the smallest epsilon at which the ladder breaks an image is
  on average at least `FURTHER` larger.
- *Harms*: that mean is at least `FURTHER` smaller, or the clean accuracy falls by more than `CLEAN`.
- *Neither*: the rest.

Expected: neither (`EXPECTED`). A state that is attracted comes back from a push of the state. An attack
pushes the image, before the flow begins, and what decides is how near the image lies to the border between
two basins, which the penalty does not move. Expected as well: attacked and scored at t = 1000, the network
keeps at most `LATER` more than at its own end time. Later times do not take attacked images back.
"""

from __future__ import annotations

EPSILON = 0.1
OWN, CLEAN, LEFT, FURTHER, LATER = 0.9, 0.005, 0.1, 0.01, 0.1
HELPS, HARMS, NEITHER = "helps", "harms", "neither"
EXPECTED = NEITHER


def outcome(clean: float, left: float, further: float) -> str:
    """What the rule says, of differences (the network with rays less the one without).

    Args:
        clean, left: of shares of images, -1 to 1; further: of mean smallest epsilons.
    """
    if clean < -CLEAN or further <= -FURTHER:
        return HARMS
    return HELPS if left >= LEFT and further >= FURTHER else NEITHER
