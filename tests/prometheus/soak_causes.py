"""Alerts made real, as in test_room.py: by what takes long, or all the disk of this machine."""

import pytest
from causes import ON_REQUEST, check


@pytest.mark.parametrize("name", ON_REQUEST)
def test_alerts_fire_for_their_cause_alone_and_end_with_it(room, name):
    check(room, ON_REQUEST[name])
