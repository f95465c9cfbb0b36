"""The disk of this machine is full for a moment, all but four percent."""

from causes import ON_REQUEST, check


def test_people_are_told_of_a_full_disk(room):
    check(room, ON_REQUEST["the disk is full"])
