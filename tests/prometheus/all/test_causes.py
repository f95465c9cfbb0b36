"""Alerts made real, from their cause to the webhook and back."""

import pytest
from causes import CAUSES, check


@pytest.mark.parametrize("name", CAUSES)
def test_alerts_fire_for_their_cause_alone_and_end_with_it(addon, name):
    check(addon, CAUSES[name])
