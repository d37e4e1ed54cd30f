"""Every rule, on every value set: `make lint-chart`."""

import pytest
from chart.checks.rules import RULES, Rule
from chart.rendering import VALUES, value_set

SETS = [*VALUES, "two releases"]


@pytest.mark.parametrize("values", SETS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule, values: str) -> None:
    """Nothing that these values make breaks the rule."""
    assert list(rule(value_set(values))) == []
