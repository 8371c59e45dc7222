# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The verbs of dmacore; `make help` lists them. What takes more than five lines is in scripts/.

PREFIX ?= /usr/local
AREA ?= smoke

LIBRARY := build/lib/libdmacore.so
STAGE := $(CURDIR)/build/stage
SOURCES := Package.swift exports.map scripts/build $(shell find Sources include)

# An unchanged library keeps its time, for those who copy it. The link to it has that of the build.
MAKEFLAGS += --check-symlink-times

# By the toolchain's own linker, as in scripts/build. All tests are of Swift Testing.
SWIFT_TEST := swift test --disable-xctest -Xswiftc -use-ld=lld

# The tests that take long and have one thread, of which a sanitizer of threads has nothing to say.
ONE_THREAD := ModelTests FormatConformanceTests

# A crash in a test ends the test, without minutes of backtrace.
export SWIFT_BACKTRACE := enable=no

.PHONY: all stage test check sanitize fuzz bench demo install uninstall clean help
.NOTPARALLEL:

all: $(LIBRARY) ## build the library as it ships, in build/lib

$(LIBRARY): $(SOURCES)
	@scripts/setup build
	scripts/build

# setup-PURPOSE installs what the purpose needs.
setup-%:
	@scripts/setup $*

stage: $(LIBRARY)
	@scripts/install $(STAGE)

test: setup-test stage ## run all tests
	DMACORE_INTERNAL_CHECKS=1 $(SWIFT_TEST) --scratch-path build/debug
	scripts/ctests
	scripts/fuzz replay
	scripts/bench --tiny
	scripts/demo >build/demo.log || { cat build/demo.log; exit 1; }
	scripts/check-install

check: setup-check stage ## check layout, headers, documents and the library's symbols
	scripts/check-format
	scripts/check-headers
	scripts/check-library $(LIBRARY)
	scripts/check-readme
	DMACORE_TIDY=1 $(SWIFT_TEST) --scratch-path build/tidy

sanitize: setup-test setup-sanitize stage ## run tests under the sanitizers and valgrind
	$(SWIFT_TEST) --sanitize=thread -Xcc -DCPLATFORM_THREAD_SANITIZER --scratch-path build/tsan \
		$(ONE_THREAD:%=--skip %)
	$(SWIFT_TEST) --sanitize=address --scratch-path build/asan
	scripts/ctests --asan
	scripts/ctests --valgrind

fuzz: setup-fuzz stage ## run a fuzzer: AREA=iova SEED=1, or AREA=smoke for all of them
	scripts/fuzz $(AREA) $(SEED)

bench: setup-bench stage ## measure, into build/bench.json
	scripts/bench

demo: setup-demo stage ## copy a file through a device, and let the device misbehave: FILE=name
	@scripts/demo $(FILE)

install: $(LIBRARY) ## install under PREFIX=/usr/local, inside DESTDIR= if it is given
	scripts/install $(PREFIX)

uninstall: ## take away what install put there
	scripts/install --undo $(PREFIX)

clean: ## remove build/
	rm -rf build

help: ## list the verbs
	@sed -En 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16
