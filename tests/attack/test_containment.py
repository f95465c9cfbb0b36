"""A compromised container of the core reaches what docs/containment.md says, and nothing else."""

import containment


def test_the_core_reaches_what_is_documented(stack):
    containment.check(containment.reach(stack), containment.documented("docs/containment.md"))
