"""Memory of the container, in both versions of cgroups."""

import pytest
from webapp import memory


@pytest.fixture
def cgroup(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("memory_", "memory.")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return memory.usage(tmp_path)

    return write


@pytest.mark.parametrize(("limit", "expected"), [("536870912\n", 536870912), ("max\n", None)])
def test_version_2(cgroup, limit, expected):
    statistics = "anon 500\nactive_file 7\ninactive_file 300\n"
    found = cgroup(memory_current="1000\n", memory_max=limit, memory_stat=statistics)
    assert found == (700, expected)


@pytest.mark.parametrize(
    ("limit", "expected"), [("536870912\n", 536870912), ("9223372036854771712\n", None)]
)
def test_version_1(cgroup, limit, expected):
    found = cgroup(
        memory__memory_usage_in_bytes="1000\n",
        memory__memory_limit_in_bytes=limit,
        memory__memory_stat="inactive_file 1\ntotal_inactive_file 300\n",
    )
    assert found == (700, expected)


def test_outside_a_container(cgroup):
    assert cgroup() == (None, None)
