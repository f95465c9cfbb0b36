"""A checkout by somebody whose files nobody else may read."""

from clone import ROOT, Clone, leftovers


def test_images_from_a_private_checkout_are_healthy(tmp_path):
    clone = Clone(tmp_path / "clone")
    for path in [clone.folder, *clone.folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o077)
    try:
        clone.make("up", *(["WITH=monitoring"] if (ROOT / "prometheus").exists() else []))
    finally:
        clone.remove()
    assert leftovers(clone.name) == []
