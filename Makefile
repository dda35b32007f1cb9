# The operator's commands. Run make without arguments to list them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ENV ?= staging
EDGE_PORT ?=
STAGING_RELEASE ?=
HOST ?=
UNIT ?=
DEV_PORT ?= 8000
ROUNDS ?= 1
REF ?=
RELEASE ?=
WITHOUT ?=
REFRESH ?=
STEPS ?=
CMD ?=
SOURCE ?=
DOMAIN ?=
HOSTS ?=
PARTS ?=
IDLE ?=
BACKGROUND ?=
UNITS ?=
SOCKETS ?=
MESSAGES ?=
ROOM ?=
SPARE ?=
HOST_MEMORY ?=
HOST_CORES ?=
BACK ?=
FORCE ?=
CHECK ?=
ADAPTER ?=
LOGIN ?=
SHORT ?=
SYSTEMS ?=

export WITHOUT REFRESH STAGING_RELEASE PARTS IDLE BACKGROUND UNITS
# Without bytecode, each process that Ansible forks compiles its plugins again.
unexport PYTHONDONTWRITEBYTECODE

# make ignores a misspelt variable; this refuses it. A goal takes the variables in its help and in the title of its section.
# All goals take ENV=staging. A make that another make calls is not checked: it has the variables of the other one.
given := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
given := $(if $(filter staging,$(ENV)),$(filter-out ENV,$(given)),$(given))
ifneq ($(and $(filter 0,$(MAKELEVEL)),$(MAKECMDGOALS),$(given)),)
found := $(shell awk -v 'goals= $(MAKECMDGOALS) ' '/^..@ / { section = $$0 } \
    /^[a-z-]+: / && index(goals, " " substr($$1, 1, length($$1) - 1) " ") { \
        print $$1; for (text = section $$0; match(text, /[A-Z_]+=/); text = substr(text, RSTART + RLENGTH)) \
            print substr(text, RSTART, RLENGTH - 1) }' $(firstword $(MAKEFILE_LIST)))
taken := $(filter-out %:,$(found))
refused := $(if $(filter %:,$(found)),$(filter-out $(taken),$(given)))
$(if $(refused),$(error make $(MAKECMDGOALS) does not take $(refused). It takes $(or $(taken),no variables). Nothing was done))
endif

BIN := .venv/bin
CLUSTER := $(BIN)/python scripts/staging/cluster.py
PLAY = . scripts/lib.sh; inventory=$$(inventory_of "$(ENV)"); scripts/ansible-playbook -i "$$inventory"

##@ A staging cluster on this machine
up: ## start four hosts in containers, set up the cluster, prove delivery: [EDGE_PORT=8080] [STAGING_RELEASE=trixie]
	@scripts/up $(EDGE_PORT)

down: ## remove the cluster; keep the image and the packed releases
	@scripts/down

status: tools ## show hosts, units and the URL
	@$(CLUSTER) status

credentials: tools ## show users and passwords
	@$(CLUSTER) credentials

ssh: tools ## open a shell on a host: HOST=app1
	@$(CLUSTER) ssh "$(HOST)"

logs: tools ## follow the journal of a host: HOST=app1 [UNIT='channels-web@*']
	@$(CLUSTER) logs "$(HOST)" "$(UNIT)"

##@ A new cluster
new: tools ## write the inventory of a new cluster: ENV=prod SOURCE=DIRECTORY-or-URL DOMAIN=chat.example.org [HOSTS=10.0.0.11]
	@$(BIN)/python scripts/new.py --hosts="$(HOSTS)" -- "$(ENV)" "$(SOURCE)" "$(DOMAIN)"

##@ A cluster on rented machines, by Terraform: docs/terraform.md
cluster: tools ## make or change the machines of an environment, set them up, prove delivery: ENV=prod
	@scripts/bootstrap terraform
	@$(BIN)/python scripts/provision.py -- cluster "$(ENV)"

destroy: tools ## delete the machines of an environment and all that was made with them: ENV=prod
	@scripts/bootstrap terraform
	@$(BIN)/python scripts/provision.py -- destroy "$(ENV)"

##@ Any cluster: [ENV=staging], a directory of inventories/
converge: tools ## apply the inventory to the cluster (site.yml): [WITHOUT=app2 leaves out hosts that are down]
	@scripts/operate "$(ENV)" converge

check: tools ## show what converge would change; change nothing
	@$(PLAY) site.yml --check --diff

verify: tools ## compare what is in effect with the inventory, prove delivery; change nothing: [PARTS=reading] [IDLE=90] [BACKGROUND=yes] [UNITS=FILE names the units of hosts that this kit did not set up]
	@scripts/verify "$(ENV)"

plan: tools ## show what the cluster needs and has, or how many hosts another load needs: [SOCKETS=100000] [MESSAGES=2000] [ROOM=50] [SPARE=1] [HOST_MEMORY=8G] [HOST_CORES=4] [BACK=120]
	@$(BIN)/python scripts/plan.py --sockets="$(SOCKETS)" --messages="$(MESSAGES)" --room="$(ROOM)" --spare="$(SPARE)" \
	    --host-memory="$(HOST_MEMORY)" --host-cores="$(HOST_CORES)" --back="$(BACK)" -- "$(ENV)"

calibrate: tools ## measure what sockets and messages cost on the hosts; restarts one worker: [FORCE=yes] [CHECK=yes compares with the figures; writes nothing] [ADAPTER=MODULE:CLASS LOGIN=URL ROOM=lobby]
	@$(BIN)/python scripts/calibrate.py --force="$(FORCE)" --check="$(CHECK)" --adapter="$(ADAPTER)" --login="$(LOGIN)" --room="$(ROOM)" -- "$(ENV)"

drain: tools ## drain a host and stop its units: HOST=app1 [WITHOUT=app2]
	@scripts/operate "$(ENV)" drain "$(HOST)"

undrain: tools ## start a drained host again: HOST=app1 [WITHOUT=app2]
	@scripts/operate "$(ENV)" undrain "$(HOST)"

##@ Releases of any cluster: [ENV=staging]
deploy: tools ## deploy the application as it is now, and prove the workers: [REF=v1.2] [REFRESH=yes resolves unlocked packages again] [WITHOUT=app2]
	@scripts/operate "$(ENV)" deploy "$(REF)"

rollback: tools ## go back to the previous release, or to RELEASE=... [WITHOUT=app2]
	@scripts/operate "$(ENV)" rollback "$(RELEASE)"

restart: tools ## replace the process of every worker, in waves: [WITHOUT=app2]
	@scripts/operate "$(ENV)" restart

upgrade: tools ## upgrade the cluster to this version of the kit, with the application as it is now: [WITHOUT=app2]
	@scripts/operate "$(ENV)" upgrade

releases: tools ## show which release runs where
	@$(PLAY) playbooks/releases.yml

manage: tools ## run a management command on the running release: CMD="createsuperuser" [HOST=app1]
	@$(BIN)/python scripts/management.py "$(ENV)" --host "$(HOST)" -- $(CMD)

settings: tools ## print what the settings overlay changes in the application's settings: [HOST=app1]
	@$(BIN)/python scripts/management.py "$(ENV)" --host "$(HOST)" --python -- -m channels_kit.overlay

unlock: tools ## remove the lock of an abandoned operation
	@$(PLAY) playbooks/unlock.yml

##@ The application
dev: ## run the sample alone: one process, SQLite, in-memory layer: [DEV_PORT=8000]
	@scripts/dev $(DEV_PORT)

##@ Tests and measurements
test: ## run every test, on hosts of its own; what CI runs: [STAGING_RELEASE=trixie]
	@scripts/test all

test-fast: ## run the linters and the tests that need no hosts
	@scripts/test fast

lint: ## run the linters
	@scripts/test lint

rehearse: tools ## run every operation under the load of 500 clients, on hosts of its own: [STEPS="deploy rollback"], or every accident: STEPS=chaos
	@scripts/bootstrap engine
	@$(BIN)/python scripts/rehearse.py $(STEPS)

carry: tools ## prove that a cluster carries SOCKETS with one app host stopped, and refuses more; on hosts of its own: [SOCKETS=12000]
	@scripts/bootstrap engine
	@$(BIN)/python scripts/carry.py --sockets $(or $(SOCKETS),12000)

bench-fanout: tools ## compare the fan-out of messages with channels_redis, Node ws and Socket.IO; writes docs/fanout.*: [SHORT=yes measures less, writes nothing] [SYSTEMS=tier2,ws]
	@scripts/bootstrap tests
	@$(BIN)/python scripts/bench_fanout.py $(if $(SHORT),--short) $(if $(SYSTEMS),--systems $(SYSTEMS))

bench-converge: tools ## time site.yml against plain apt-get and pip: [ROUNDS=1]
	@scripts/bootstrap engine
	@$(BIN)/python scripts/bench_converge.py --rounds $(ROUNDS)

role-readmes: tools ## regenerate roles/*/README.md from the roles
	@$(BIN)/python scripts/role_readme.py

help:
	@awk 'BEGIN { FS = ":.*## " } \
	    /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo

tools:
	@scripts/bootstrap tools

ready:
	@scripts/bootstrap tools engine

.PHONY: up down status credentials ssh logs new cluster destroy converge check deploy rollback restart upgrade releases manage settings unlock drain undrain verify plan calibrate dev test test-fast lint rehearse carry bench-fanout bench-converge role-readmes help tools ready
