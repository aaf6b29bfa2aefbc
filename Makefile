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

# How long each fuzz target runs in `make test` and `make fuzz`.
FUZZTIME ?= 5s
export FUZZTIME

.DEFAULT_GOAL := help
.PHONY: help demo test build generate lint fuzz bench cross setup-tests clean

help: ## List the targets
	@echo "Offboard: usage: make TARGET"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Build, start everything on this machine, run six items, and show what happens
	@bin/offboard demo

test: ## Install what the tests need, then check everything: what CI runs
	@scripts/test

build: ## Build bin/offboard
	@$(GO) build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/offboard ./cmd/offboard

generate: ## Write the generated files anew (deep copies of the API types)
	@scripts/generate

lint: ## Run golangci-lint, whose version tools/lint pins
	@tool="$$(scripts/tool golangci-lint)" && "$$tool" run ./...

fuzz: ## Run every fuzz target for FUZZTIME (5s)
	@scripts/fuzz

bench: build setup-tests ## Measure the latency, the throughput and the idle cost, and print them
	@$(GO) run ./bench

cross: ## Compile for every supported system
	@scripts/cross

setup-tests: ## Install what the tests need and this machine lacks
	@scripts/setup-tests

clean: ## Remove what was built in the checkout
	rm -rf bin .cache
