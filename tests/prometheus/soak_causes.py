"""Alerts made real, as in all/test_causes.py: by what takes long, or all of this machine's disk."""

import pytest
from causes import ON_REQUEST, check


@pytest.mark.parametrize("name", ON_REQUEST)
def test_alerts_fire_for_their_cause_alone_and_end_with_it(addon, name):
    check(addon, ON_REQUEST[name])
