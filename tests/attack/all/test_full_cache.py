"""One client filled the cache with pages that nobody else requests, and responses that nginx had
no space to keep were cut: 34 of 94 of other visitors.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
from clone import wait_until
from visitor import Visitor, for_seconds

KEPT = "cache=public,max-age=1"
PAGES = ("bytes=290000", "bytes=990000")
NUMBERS = count()


def fill(stack, tls) -> set[int]:
    statuses = set()
    with httpx.Client(base_url=stack.url, verify=tls, timeout=30) as client:
        for _ in for_seconds(25):
            number = next(NUMBERS)
            path = f"/diagnostics/page?{PAGES[number % 4 == 0]}&{KEPT}0&fill={number}"
            statuses.add(client.get(path).status_code)
    return statuses


def test_a_client_that_fills_the_cache_cuts_nobodys_response(attacked):
    pages = [f"/diagnostics/page?bytes=200000&{KEPT}&visit={text}" for text in ("NUMBER", "same")]
    tls = attacked.tls()
    with (
        Visitor(attacked, *(("GET", path, 0) for path in pages), pause=0.1) as visitor,
        ThreadPoolExecutor(8) as attackers,
    ):
        attacks = [attackers.submit(fill, attacked, tls) for _ in range(8)]
        free = []
        while not all(attack.done() for attack in attacks):
            answer = attacked.execute("nginx", "df", "--output=avail", "/var/cache/nginx")
            free.append(int(answer.split()[1]))
    assert {status for attack in attacks for status in attack.result()} <= {200, 429}
    assert len(visitor.visits) > 20
    assert [v for v in visitor.visits if v.status != 200 or v.length < 200_000] == []
    # kB
    assert min(free) > 0


def test_a_response_that_cannot_be_kept_is_not_cut(attacked):
    # The health check, which then leaves the cache out, looks every five seconds.
    wait_until(lambda: "cache-full" not in attacked.execute("nginx", "ls", "/tmp"), 20, "space")  # noqa: S108
    with attacked.client() as client, attacked.filled("nginx", "/var/cache/nginx"):
        for number in range(20):
            answer = client.get(f"/diagnostics/page?bytes=290000&{KEPT}0&full={number}")
            assert len(answer.json()["padding"]) == 290_000
