"""The CPU quota, in both versions of cgroups."""

import pytest
from webapp import cpus


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    monkeypatch.setattr(cpus.os, "sched_getaffinity", lambda pid: range(16), raising=False)
    (tmp_path / "cpu").mkdir()

    def write(v2=None, quota=None, period="100000"):
        if v2 is not None:
            (tmp_path / "cpu.max").write_text(v2)
        if quota is not None:
            (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
            (tmp_path / "cpu/cpu.cfs_period_us").write_text(f"{period}\n")
        return cpus.available(tmp_path)

    return write


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("25000 50000\n", 1),
        ("max 100000\n", 16),
        ("9900000 100000\n", 16),
        ("", 16),
        ("nonsense here\n", 16),
        ("100 0\n", 16),
    ],
)
def test_version_2(cgroup, text, number):
    assert cgroup(v2=text) == number


@pytest.mark.parametrize(("quota", "number"), [("250000", 3), ("-1", 16), ("x", 16)])
def test_version_1(cgroup, quota, number):
    assert cgroup(quota=quota) == number


def test_outside_a_container(cgroup):
    assert cgroup() == 16
