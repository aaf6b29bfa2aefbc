# `make` alone lists what there is. Everything works in a plain checkout with Go, make and bash; whatever else a target
# needs it builds or installs itself.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# The version comes from VERSION, so Go need not ask git, which fails in a checkout that belongs to somebody else.
# Further flags of the environment, or of `go env -w`, stay in force. All targets compile with the same flags, so that
# they share what is compiled already.
export GOFLAGS := $(strip $(filter-out -buildvcs=% -trimpath,$(shell $(GO) env GOFLAGS 2>/dev/null)) -buildvcs=false -trimpath)
export CGO_ENABLED := 0
export GO

# How much each fuzz target runs in `make test` and `make fuzz`: a number of executions, or a time such as 1m.
FUZZTIME ?= 6000x
export FUZZTIME

.DEFAULT_GOAL := help
.PHONY: help demo test test-vault chaos build generate lint fuzz bench bench-machine bench-cluster bench-scale bench-triggers \
	cross cluster cluster-stop setup-tests manifests clean

help: ## List the targets
	@echo "Offboard: usage: make TARGET"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Build, start everything on this machine, run six items, and show what happens
	@bin/offboard demo

test: ## Install what the tests need, then check everything: what CI runs
	@scripts/test

build: ## Build bin/offboard
	@$(GO) build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/offboard ./cmd/offboard

generate: ## Write the generated files anew: deep copies and CustomResourceDefinitions of the API types, docs/triggers
	@scripts/generate

lint: ## Run golangci-lint, whose version tools/lint pins
	@tool="$$(scripts/tool golangci-lint)" && "$$tool" run ./...

fuzz: ## Run every fuzz target for FUZZTIME (6000x: that many executions)
	@scripts/fuzz

chaos: setup-tests ## Run the chaos tests of every queue with 5,000 items each, where `make test` has 500 but for Redis lists
	CHAOS_ITEMS=5000 CGO_ENABLED=1 $(GO) test -trimpath=false -race -count=1 -timeout 4h -p 1 -v -run ClaimChaos ./test/e2e ./test/cluster

test-vault: ## Check the reading of secrets with HashiCorp Vault itself, which takes ten minutes to build once
	CGO_ENABLED=1 $(GO) test -trimpath=false -race -count=1 -tags vault -timeout 30m -run TestRealVault ./internal/auth/vault

bench: build setup-tests ## Measure latency, throughput and idle cost, next to the limits of the same run
	@$(GO) run ./bench

bench-machine: build setup-tests ## Measure `offboard up` alone
	@$(GO) run ./bench machine

bench-cluster: build setup-tests ## Measure `offboard operator` on a Kubernetes control plane alone
	@$(GO) run ./bench cluster

bench-scale: build setup-tests ## Measure what 100, 1,000 and 10,000 idle ScaledJobs cost, and plot it to bin/scale.svg
	@$(GO) run ./bench -plot bin/scale.svg scale

cross: ## Compile for every supported system
	@scripts/cross

bench-triggers: setup-tests ## Measure what each trigger type adds to the answer time of a bare client
	@$(GO) test -trimpath=false -run '^$$' -bench 'BenchmarkMeasure$$' -benchtime 2000x ./internal/trigger/...

cluster: ## Leave a Kubernetes control plane with a node running, and print its kubeconfig
	@scripts/controlplane >/dev/null
	@$(GO) build -o .cache/cluster/control ./test/controlplane/cmd
	@.cache/cluster/control start .cache/cluster

cluster-stop: ## Stop what `make cluster` has started
	@$(GO) build -o .cache/cluster/control ./test/controlplane/cmd
	@.cache/cluster/control stop .cache/cluster

setup-tests: ## Install what the tests need and this machine lacks
	@scripts/setup-tests

manifests: ## Write dist/offboard.yaml, the operator for clusters without Helm
	@scripts/manifests

clean: ## Remove what was built in the checkout
	@[ ! -x .cache/cluster/control ] || .cache/cluster/control stop .cache/cluster
	rm -rf bin dist .cache
