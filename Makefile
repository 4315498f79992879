# Every target installs what it needs into .venv. The only prerequisites are Python 3.11 or newer, and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: sweep test testbed testbed-sweep simulate mutants nightly bench lint proto reference pictures wheel install install-dev clean

sweep: install ## Real Raft clusters of 3, 5 and 7 nodes, with a live table
	$(BIN)/sweep run quick

test: install-dev ## All tests but those on several hosts; in two processes, because most tests wait
	$(BIN)/pytest -n 2 --dist loadfile

testbed: install-dev ## Tests on several hosts, in network namespaces of this machine; needs root; 25 minutes
	$(BIN)/pytest -m testbed tests/testbed

PRESET ?= scalability
HOSTS ?= 4
testbed-sweep: install ## A sweep over hosts in namespaces: make testbed-sweep PRESET=scalability HOSTS=4 ARGS="-o repeats=3"
	$(BIN)/python -m orchestration.testbed --hosts $(HOSTS) sweep $(PRESET) $(ARGS)

simulate: install ## Simulate and check 1000 clusters under faults; 3 minutes
	$(BIN)/sweep simulate --seeds 1000

mutants: install-dev ## Check that the tests catch every planted bug; 10 minutes
	$(BIN)/python -m tests.mutants

nightly: install-dev ## Long checks: 10 000 simulated clusters, repeated host losses, all scenarios on real processes; 2 hours
	$(BIN)/sweep simulate --seeds 10000 --seed $$(date +%Y%m%d)0000 --plain
	$(BIN)/python -m tests.mutants --first 1000
	NIGHTLY=1 $(BIN)/pytest -m testbed tests/testbed/test_bars.py
	for preset in scenarios disks survival bad-parameters chaos; do $(BIN)/sweep run $$preset --plain || exit; done

bench: install-dev ## Benchmarks: throughput next to an echo server, recovery, footprint, simulation, checker; needs an idle machine
	$(BIN)/python -m tests.bench

lint: install-dev ## Check style and types; a test checks that generated code is fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/orchestration/test_face.py

proto: install-dev ## Generate raft_actor_node/pb from proto/
	$(BIN)/python -m grpc_tools.protoc -Iraft_actor_node/pb=proto --python_out=. --pyi_out=. --grpc_python_out=. proto/*.proto

reference: install ## Generate docs/reference from the code; a test checks that it is fresh
	$(BIN)/python -m docs.generate.reference

pictures: install ## Draw docs/pictures from a real run; 2 minutes
	$(BIN)/python -m docs.generate.pictures

wheel: install ## Build this project as a wheel in dist/, with the versions of its dependencies, for other machines
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	cp requirements-dev.txt dist/constraints.txt

install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python " + sys.version.split()[0] + "; 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean: ## Remove the environment and caches; keep results
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
