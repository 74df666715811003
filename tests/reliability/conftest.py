"""How many cases: few in the suite, always the same; thousands in a campaign.

pytest tests/reliability -n 0 --hypothesis-profile=campaign
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
CASES = int(os.environ.get("MEKAX_RELIABILITY_CASES", "1000"))  # of each test of the campaign
settings.register_profile("suite", max_examples=25, derandomize=True, **COMMON)
settings.register_profile("campaign", max_examples=CASES, **COMMON)
if settings.get_current_profile_name() != "campaign":
    settings.load_profile("suite")

seen: Counter[str] = Counter()


@pytest.fixture(scope="session")
def tally():
    """What the cases were and what came of them, for the summary."""
    return seen


@pytest.fixture
def in_campaign():
    """Whether there is time for programs that the suite does not compile."""
    return settings.get_current_profile_name() == "campaign"


def pytest_terminal_summary(terminalreporter):
    if seen:
        terminalreporter.section("reliability")
        for name, count in sorted(seen.items()):
            terminalreporter.write_line(f"{count:8,} {name}")
