"""`make release` under a load long enough to be believed."""

import pytest
from releases import release_and_back


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [1, 3])
def test_a_release_and_the_way_back_lose_none_of_many_requests(stack, number):
    with stack.changed(APP_REPLICAS=str(number)):
        release_and_back(stack, requests=20_000)
