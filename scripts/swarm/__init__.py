"""Docker Swarm: deploying, and judging what came of a deploy or a rollback."""
