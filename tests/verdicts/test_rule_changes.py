"""A rule's constants are those of its last listed change."""

import ast
import hashlib
import json
from pathlib import Path

from nodelib import verdicts
from nodelib.verdicts import second_round

FOLDER = Path(verdicts.__file__).parent
# of the constants as they are, and how many changes of rules were listed when they became so
FIXED = ("70d4a1296328f44f", 16)


def constants() -> dict[str, object]:
    """Every numeric constant of the rules by its name, and the second round's tables."""
    found = {group: second_round._tables()[group] for group in ("words", "predictions", "rules")}
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
            try:
                value = ast.literal_eval(node.value) if name.isupper() else None
            except ValueError:  # computed from others
                continue
            if isinstance(value, (int, float, tuple)):
                found[name] = value
    return found


def digest(values: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def test_a_constant_does_not_change_without_an_entry_in_the_list_of_changes():
    now = (digest(constants()), len(verdicts.RULE_CHANGES))
    assert now == FIXED, ("a rule's constant changed: list the change, with its reason, in "
                          f"nodelib/verdicts/changes.toml, then set FIXED to {now}")


def test_the_digest_sees_every_constant():
    values = constants()
    assert values["TRULY_ROBUST"] == 80.0 and "C8" in values["rules"]
    assert digest({**values, "TRULY_ROBUST": 79.0}) != digest(values)
