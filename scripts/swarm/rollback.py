"""`make swarm-rollback`"""

from scripts.messages import fail, say
from scripts.swarm import cluster, convergence, specs


def main() -> None:
    """Bring back what the last deploy replaced: image, settings and secrets."""
    cluster.require_manager("make release-rollback")
    services, timeout = cluster.services(), cluster.timeout()
    other = [name for name, service in services.items() if specs.rollback_would_change(service)]
    changed = [name for name in other if not specs.was_rolled_back(services[name])]
    if not changed:
        fail(
            f"{' and '.join(other)}: rolled back already, and Swarm knows only one version before"
            if other
            else "Swarm knows no other version: nothing is deployed, or nothing was changed",
            "git checkout VERSION && make swarm-deploy",
        )
    for name in changed:
        now, then = (services[name][key]["TaskTemplate"] for key in ("Spec", "PreviousSpec"))
        now, then = cluster.version(now), cluster.version(then)
        say(f"{name} {now} -> {then if then != now else 'its settings and secrets of before'}")
    try:
        convergence.roll_back(changed, timeout, of=changed)
    except convergence.NotServingError as failure:
        fail(str(failure), "make swarm-status")
    for name, service in cluster.services().items():
        say(f"{name} {cluster.version(cluster.template(service))} serves")
