# The verbs of Channels Kit. Bare `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ENV ?= staging
EDGE_PORT ?=
HOST ?=
UNIT ?=
DEV_PORT ?= 8000
ROUNDS ?= 1
REF ?=
RELEASE ?=
WITHOUT ?=
STEPS ?=

export WITHOUT

BIN := .venv/bin
CLUSTER := $(BIN)/python scripts/staging/cluster.py

##@ A cluster on this machine
up: ## four hosts in containers, converged, proved; EDGE_PORT=8080
	@scripts/up $(EDGE_PORT)

down: ## remove it; the image stays
	@scripts/down

status: tools ## hosts, units, URL
	@$(CLUSTER) status

credentials: tools ## who may log in, with which password
	@$(CLUSTER) credentials

ssh: tools ## a shell on a host: HOST=app1
	@$(CLUSTER) ssh "$(HOST)"

logs: tools ## follow a host's journal: HOST=app1 [UNIT='channels-web@*']
	@$(CLUSTER) logs "$(HOST)" "$(UNIT)"

##@ Any cluster: ENV=staging (a directory of inventories/)
converge: tools ## set it up, or bring it up to the inventory
	@scripts/operate "$(ENV)" converge

check: tools ## show what converge would change
	@scripts/ansible-playbook -i inventories/$(ENV) site.yml --check --diff

deploy: tools ## bring the application as it is, or as it was at REF=v1.2, rolling, drained, proved
	@scripts/operate "$(ENV)" deploy "$(REF)"

rollback: tools ## go back to the release before, or to RELEASE=...
	@scripts/operate "$(ENV)" rollback "$(RELEASE)"

restart: tools ## restart every worker, rolling
	@scripts/operate "$(ENV)" restart

upgrade: tools ## bring this version of the kit, with the application as it is
	@scripts/operate "$(ENV)" upgrade

releases: tools ## which release runs where
	@scripts/ansible-playbook -i inventories/$(ENV) playbooks/releases.yml

unlock: tools ## break the lock of a deploy that was given up
	@scripts/ansible-playbook -i inventories/$(ENV) playbooks/unlock.yml

drain: tools ## move everybody off a host and stop it: HOST=app1
	@scripts/operate "$(ENV)" drain "$(HOST)"

undrain: tools ## bring it back: HOST=app1
	@scripts/operate "$(ENV)" undrain "$(HOST)"

verify: tools ## prove it, changing nothing: limits, and every worker reaches every worker
	@scripts/ansible-playbook -i inventories/$(ENV) playbooks/verify.yml

##@ The application
dev: ## the sample alone: one process, SQLite, in-memory layer; DEV_PORT=8000
	@scripts/dev $(DEV_PORT)

##@ Tests
test: ## everything, on hosts of its own
	@scripts/test all

test-fast: ## what needs no hosts
	@scripts/test fast

lint: ## the linters alone
	@scripts/test lint

rehearse: tools ## every operation on a cluster of its own while 500 clients talk; STEPS="deploy rollback"
	@scripts/bootstrap engine
	@$(BIN)/python scripts/rehearse.py $(STEPS)

bench-converge: tools ## time site.yml on bare hosts against plain apt-get and pip; ROUNDS=1
	@scripts/bootstrap engine
	@$(BIN)/python scripts/bench_converge.py --rounds $(ROUNDS)

help:
	@awk 'BEGIN { FS = ":.*## " } \
	    /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
	@echo

tools:
	@scripts/bootstrap tools

ready:
	@scripts/bootstrap tools engine

.PHONY: up down status credentials ssh logs converge check deploy rollback restart upgrade releases unlock drain undrain verify dev test test-fast lint rehearse bench-converge help tools ready
