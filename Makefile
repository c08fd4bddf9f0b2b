# make run [CMD="uname -a"]   set up what is missing, then a shell (or one command) in a new VM
# make test                   set up what is missing, then every test once, real guests included
# make help                   the other targets

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:

# As it was typed, also with a "$" in it.
override CMD := $(value CMD)
export CMD

# The stamp below says more, and a clone of another user (sudo make) has none. Tests are built as the programs are: what is compiled for one
# serves the other.
export GOFLAGS := $(GOFLAGS) -buildvcs=false -trimpath
export CGO_ENABLED := 0

COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
# The commit's time, not now: the same sources give the same programs.
BUILT   := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null)
STAMP   := -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.built=$(BUILT)

SMOKE    := ./internal/ext4/write ./internal/guest ./internal/image ./internal/lifecycle ./internal/workspace ./test/smoke/... ./test/dist

BIN      := build/bin
PROGRAMS := banger bangerd banger-machine

.PHONY: run setup build install test smoke soak check lint coverage test-arm64 dist bench clean help

help:
	@sed -n 's/^# make/make/p' Makefile
	echo 'make build                  build/bin/{banger,bangerd,banger-machine,banger-guest}'
	echo 'make install [PREFIX=DIR]   those, in ~/.local/bin or DIR/bin'
	echo 'make check                  lint, format, vet, tests with the race detector, no guests'
	echo 'make lint                   staticcheck, dead code, known vulnerabilities and licences of dependencies'
	echo 'make coverage               what tests run of each package (RUN=REGEXP: with the programs of these scenarios), and what none runs'
	echo 'make test-arm64             what tests an emulator can run of the programs for arm64'
	echo 'make dist                   build/dist: archives and Debian packages for amd64 and arm64'
	echo 'make smoke                  more and longer tests with real guests (LIST=1: their names; RUN=REGEXP: those that match;'
	echo '                            JSON=FILE: the result of each)'
	echo 'make soak                   thousands of random trees, and hours of fuzzing'
	echo 'make bench                  the benchmarks behind docs/promises.md, and their figures written into it'

run: setup build
	@scripts/run

setup:
	@scripts/setup run

build:
	@echo '== build: $(BIN)' >&2
	mkdir -p '$(BIN)'
	for program in $(PROGRAMS); do
		go build -ldflags '-s -w $(STAMP)' -o '$(BIN)'/$$program ./cmd/$$program
	done
	go build -ldflags '-s -w' -o '$(BIN)/banger-guest' ./cmd/banger-guest

PREFIX ?= $(HOME)/.local

install: build
	@install -d '$(DESTDIR)$(PREFIX)/bin'
	install build/bin/* '$(DESTDIR)$(PREFIX)/bin/'
	echo '== install: $(DESTDIR)$(PREFIX)/bin' >&2
	case ":$$PATH:" in *':$(PREFIX)/bin:'*) ;; *) echo '   That is not on your PATH yet: export PATH="$(PREFIX)/bin:$$PATH"' >&2 ;; esac

test:
	@scripts/setup test
	BANGER_TIER=test go run ./scripts/testsum

smoke:
	@if [ -n "$(LIST)" ]; then exec go run ./scripts/testsum -list $(SMOKE); fi
	scripts/setup smoke
	BANGER_TIER=smoke go run ./scripts/testsum -guests -run '$(value RUN)' -json '$(JSON)' $(SMOKE)

soak:
	@scripts/setup smoke
	BANGER_TIER=soak go run ./scripts/testsum -guests -fuzz 2h -fuzz-budget 2h $(SMOKE)

check: lint
	@CGO_ENABLED=1 go run ./scripts/testsum -race

lint:
	@go run ./scripts/testsum -lint -summary build/lint-summary

coverage:
	@scripts/setup test
	scripts/coverage '$(value RUN)'

test-arm64:
	@scripts/setup arm64
	go run ./scripts/testsum -arm64 -summary build/arm64-summary

dist:
	@scripts/dist

bench:
	@scripts/setup smoke
	go run ./scripts/promises

clean:
	rm -rf build
