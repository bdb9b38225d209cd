# What a developer runs. CI runs .ci/run, which is check with an eye on skipped
# tests.

.PHONY: check test race lint fmt fuzz bench build servers

check: ## formatting, vet, linter and all tests with the race detector
	@test -z "$$(gofmt -l .)" || { echo "not formatted, run make fmt:"; gofmt -l .; exit 1; }
	go vet ./...
	.ci/lint
	go test -race -timeout 30m ./...

build: ## the command, as ./keifs
	go build ./cmd/keifs

test:
	go test ./...

servers: ## build the servers that the tests start, where this machine does not have them
	go test -timeout 30m ./test/versitygw ./test/fakegcs ./test/azurite ./test/minio

race:
	go test -race -timeout 30m ./...

lint:
	.ci/lint

fmt: ## format, and apply what the linter can repair by itself
	gofmt -w .
	.ci/lint --fix

FUZZTIME ?= 10s

fuzz: ## each fuzz test for a short time
	@go list ./... | while read -r pkg; do \
		go test -list '^Fuzz' $$pkg | grep '^Fuzz' | while read -r name; do \
			echo "== $$pkg $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$pkg </dev/null || exit 1; \
		done || exit 1; \
	done

ROUNDS ?= 1
SCALE ?= 1

bench: ## the tables of test/bench/README.md: all rows, or those in ROWS, as ROWS=read1,cat
	go test ./test/bench -run '^$$' -bench . -benchtime 1x -count $(ROUNDS) -timeout 3h -scale $(SCALE) -rows '$(ROWS)' -log '$(abspath $(LOG))'
