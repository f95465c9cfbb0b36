# The one entrance. `make` prints the targets; a variable of .env.example can be given to each of
# them, as in `make up HTTPS_PORT=9443`.

SHELL := /bin/bash
VENV := .venv
# The virtual environment's tools come first, so that scripts call them by name.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Python reads and writes files as UTF-8, whatever the locale's encoding.
export PYTHONUTF8 := 1

# Where the engine keeps images in containerd, as Docker 29 does, a provenance attestation would make each
# build another image, and Compose would replace all containers although nothing has changed.
# https://github.com/docker/compose/issues/14111
export BUILDX_NO_DEFAULT_ATTESTATIONS := 1

# Checked here, because an older Python cannot even read the scripts.
PYTHON := python3 -c 'import sys; sys.exit(sys.version_info < (3, 9) and "error: Python 3.9 or newer is needed, python3 is %s -> install a newer python3" % sys.version.split()[0])' && python3

.DEFAULT_GOAL := help
.PHONY: help up down doctor engine secrets clean logs ps shell config release release-rollback reload purge rotate grafana-password replay swarm-init swarm-deploy swarm-deploy-environment swarm-rollback swarm-status swarm-undeploy lint format unit check test test-all soak bench requirements

#: Run

help: ## print this list
	@sed -nE -e 's/^#: //p' -e 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		if [ "$$text" ]; then printf '  make %-24s %s\n' "$$target" "$$text"; else printf '\n%s\n' "$$target"; fi; done

up: ## build, start and wait until healthy; sets up what is missing; WITH="…" adds optional add-ons
	@$(PYTHON) -m scripts up

down: ## stop and remove the containers; volumes stay
	@docker compose down --remove-orphans

doctor: ## check this machine; each problem with its fix
	@$(PYTHON) -m scripts doctor

engine: ## install and start a Docker engine (Debian and Ubuntu, as root)
	@bash scripts/engine.sh

secrets: ## make the secrets that are missing
	@bash scripts/secrets.sh

clean: ## remove this project's containers, volumes, images, secrets and caches; never .env or your certificates
	@$(PYTHON) -m scripts clean

#: Develop

logs: ## follow the logs of all services
	@docker compose logs --follow --no-log-prefix --tail 100

ps: ## list the containers and their health
	@docker compose ps --all

shell: ## open a shell in the application's container
	@docker compose exec app bash

config: ## print the configuration Compose works with, variables filled in
	@docker compose config

#: Operate

release: ## put a new version of the application in place of the running one, without losing a request
	@$(PYTHON) -m scripts release

release-rollback: ## the same, back to the version before
	@$(PYTHON) -m scripts release-rollback

reload: ## let nginx load a replaced certificate; checks it first, drops no request
	@docker compose exec --no-TTY nginx reload

purge: ## let nginx forget the answers it keeps; URL='/path?query' for one page
	@docker compose exec --no-TTY nginx purge $(if $(filter command line,$(origin URL)),"$$URL")

rotate: ## replace SECRET_KEY in two steps, so that sessions survive; says what to type between
	@bash scripts/rotate.sh

grafana-password: ## give Grafana's admin a new password, in secrets/grafana_password
	@bash scripts/grafana-password.sh

replay: ## send to Logstash again what was logged; SINCE=2h, or a moment; UNTIL=…
	@$(PYTHON) -m scripts replay

#: Swarm

swarm-init: ## make this machine a Swarm of one node, to try on
	@$(PYTHON) -m scripts swarm-init

swarm-deploy: ## build, push and deploy what is committed; exits 0 only once the new version serves; WITH="…" as in up
	@$(PYTHON) -m scripts swarm-deploy

swarm-deploy-environment: ## prepare a deploy and print the variables with which `docker stack deploy` works by hand
	@$(PYTHON) -m scripts swarm-deploy-environment

swarm-rollback: ## bring back what the last deploy replaced
	@$(PYTHON) -m scripts swarm-rollback

swarm-status: ## what runs in the Swarm, in which version
	@$(PYTHON) -m scripts swarm-status

swarm-undeploy: ## remove the stack from the Swarm
	@$(PYTHON) -m scripts swarm-undeploy

# The names of before, for one release.
.PHONY: swarm deploy deploy-environment rollback status undeploy
swarm deploy deploy-environment rollback status undeploy:
	@echo 'note: make $@ is now make swarm-$(@:swarm=init)' >&2
	@$(PYTHON) -m scripts swarm-$(@:swarm=init)

#: Quality

lint: $(VENV)/ready ## check every file a person edits
	@bash scripts/lint.sh

format: $(VENV)/ready ## format Python and shell files
	@ruff format --quiet . && ruff check --quiet --fix . && shfmt -w -i 2 -ci scripts images nginx nginx/entrypoint/*.envsh .ci/run

unit: $(VENV)/ready ## run the unit tests; needs no Docker
	@pytest tests/unit --cov --cov-report=term-missing:skip-covered

check: $(VENV)/ready ## lint, unit tests and one file of stack tests, in 3 minutes: for the inner loop
	@bash scripts/engine.sh if-needed
	@bash scripts/lint.sh
	@pytest --quiet --numprocesses=2 tests/unit
	@pytest --quiet tests/stack/test_edge.py

test: $(VENV)/ready ## lint, unit tests, and the running stack tested from outside
	@bash scripts/test.sh

test-all: test ## the same, and what takes longer: deploys, alerts, slow clients, attacks, full load, certificates, forks
	@pytest --numprocesses=2 --dist=loadfile tests/all $(wildcard tests/*/all)

soak: $(VENV)/ready ## the proofs that take hours
	@bash scripts/engine.sh if-needed
	@pytest tests/soak $(wildcard tests/*/soak_*.py)

bench: $(VENV)/ready ## compare this stack's throughput with the bare set-up of the tutorials; WHAT=edge for cache and slow clients, WHAT=shipping for log lines
	@bash scripts/engine.sh if-needed
	@PYTHONPATH=tests python tests/bench/$(or $(WHAT),compare).py

requirements: $(VENV)/bin/uv ## lock the Python dependencies again
	@bash scripts/lock.sh

# The tools of lint and tests, in an environment of their own.
$(VENV)/ready: tests/requirements.txt app/requirements.txt
	@bash scripts/venv.sh $(VENV)

# There even if the lock is incomplete, because `make requirements` completes it.
$(VENV)/bin/uv:
	@bash scripts/venv.sh $(VENV) || [ -x $@ ]
