# make serve   environment, demo model, service answering on http://127.0.0.1:8000
# make test    everything that CI runs
VENV ?= .venv
PYTHON ?= python3
# A CPU build where one is offered; elsewhere on Linux this is CUDA's, several GB. To choose:
#   make test TORCH='torch --index-url URL-OF-YOUR-BUILD'
TORCH ?= torch==2.13.0
HOST ?= 127.0.0.1
PORT ?= 8000
DATA ?=
TRAIN ?=
TEST ?=
LABEL ?=
NORMAL ?=
SCHEMA ?=
CASES ?= 2000
SECONDS ?= 600
BUNDLES ?= build/bundles
PEERS ?= build/peers
PARTS ?=
JOBS ?= 2
CALLS ?=
SOAK ?=
AUDIT ?=
IMAGE ?= build/image

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Of each library the digests of all its files, so that a lock serves every processor; no word of where they come from.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command "make lock" \
  --python-version 3.11 --python-platform linux -c constraints.txt
INTO_IMAGE := $(BIN)/python -m pip --python $(IMAGE)/environment/bin/python install --quiet --no-compile --no-deps

.PHONY: serve test check lock audit sbom demo training format readme bench-false-alarms bench-agreement bench-start bench-large-table bench-mixed-traffic bench-serving bench-serving-peers bench-score-files bench-access bench-quality bench-quality-categories bench-wrong-cells bench-labelled bench-fit-cost bench-fit-speed bench-drift bench-decisions bench-time-order bench-contamination bench-swap bench-bundles bench-drain bench-slow-clients fuzz bench-openapi bench-kills soak test-faults clean

serve: $(VENV)/.serve
	$(BIN)/nelbo serve --host $(HOST) --port $(PORT)

# In as many processes as JOBS, a file of tests in one of them; some take 1.5 GB.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart=0

# The tests that docs/reliability.md names: what is promised when something fails.
test-faults: $(VENV)/.dev
	$(BIN)/python -m tests.reliability

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --quiet --offline --persona auditor --strict-collection deploy/actions/verify-bundle/*.yml

# What the images are installed from, of pyproject.toml and constraints.txt: run it after a change of either. A library that
# constraints.txt does not name gets its newest version, which then belongs there too.
lock: $(VENV)/.dev
	$(PIP) uv
	$(LOCK) --extra service pyproject.toml -o requirements/service.txt
	$(LOCK) --extra training pyproject.toml --no-emit-package torch -o requirements/training.txt
	echo hatchling cyclonedx-bom | tr ' ' '\n' | $(LOCK) - -o requirements/build.txt
	echo pyarrow | $(LOCK) - -o requirements/pyarrow.txt

# Known vulnerabilities of everything pinned; fails too where nothing could be looked up. AUDIT="--vulnerability-service osv"
# asks another service, AUDIT="--ignore-vuln ID" passes one that was judged.
audit: $(VENV)/.dev
	@mkdir -p build
	@echo '$(firstword $(TORCH))' > build/torch.txt
	$(BIN)/python -m supply.audit requirements/*.txt constraints.txt build/torch.txt $(AUDIT)

# The environment that an image of the service gets, made here without one, and its bill of materials:
# $(IMAGE)/sbom.cdx.json
sbom: $(VENV)/.dev
	rm -rf $(IMAGE)
	$(PYTHON) -m venv --without-pip $(IMAGE)/environment
	$(INTO_IMAGE) --report $(IMAGE)/locked.json --only-binary :all: --require-hashes -r requirements/service.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(IMAGE) .
	$(INTO_IMAGE) --report $(IMAGE)/nelbo.json --no-index $(IMAGE)/*.whl
	$(BIN)/python -m supply.sbom $(IMAGE)/environment/bin/python --output $(IMAGE)/sbom.cdx.json \
	  --reports $(IMAGE)/locked.json $(IMAGE)/nelbo.json

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Fits the demo model anew; it becomes the live version beside the committed one.
demo: $(VENV)/.training
	$(BIN)/nelbo fit deploy/demo/ai4i2020.csv --name machines --schema deploy/demo/schema.json \
	  --config deploy/demo/config.toml \
	  --label "Machine failure" --normal 0
	$(BIN)/nelbo verify machines

# What `nelbo fit` needs, installed.
training: $(VENV)/.training

# Writes the answers in README.md anew, after the demo model has changed.
readme: $(VENV)/.dev
	$(BIN)/python -m tests.readme

# DATA is a table with a label column; the results go to benchmarks/results/.
bench-false-alarms: $(VENV)/.dev
	$(BIN)/python -m benchmarks.false_alarms $(DATA)

bench-agreement: $(VENV)/.dev
	$(BIN)/python -m benchmarks.agreement $(DATA)

# A million records of 35 fields; minutes, and some GB of memory.
bench-large-table: $(VENV)/.dev
	$(BIN)/python -m benchmarks.large_table --format parquet
	$(BIN)/python -m benchmarks.large_table --format csv

# DATA is a folder of .npz (X, y) or .csv (with a label column); about half an hour on a core for 29 tables and three seeds.
# A run that is started again goes on; figures, page and picture go to benchmarks/results/. PyOD's detectors join in
# where it is installed: $(VENV)/bin/pip install -c constraints.txt -e '.[pyod]'
bench-quality: $(VENV)/.dev
	$(BIN)/python -m benchmarks.quality --data $(DATA) --out benchmarks/results/quality.csv

# The same with half of each table's columns made categories: how mixed tables fare.
bench-quality-categories: $(VENV)/.dev
	$(BIN)/python -m benchmarks.quality --data $(DATA) --categories --out benchmarks/results/quality_categories.csv

# DATA="TABLE --label COLUMN --normal VALUE"
bench-wrong-cells: $(VENV)/.dev
	$(BIN)/python -m benchmarks.wrong_cells $(DATA)

# TRAIN and TEST are tables, LABEL a column, NORMAL its value in normal records; without TEST a part of TRAIN is ranked.
bench-labelled: $(VENV)/.dev
	$(BIN)/python -m benchmarks.labelled --train $(TRAIN) $(if $(TEST),--test $(TEST)) \
	  --label "$(LABEL)" --normal "$(NORMAL)" $(if $(SCHEMA),--schema $(SCHEMA))

bench-fit-cost: $(VENV)/.dev
	$(BIN)/python -m benchmarks.fit_cost --repeat

# The steps of a fit beside a bare loop, and what a whole fit spends its time on, of a synthetic table of a million records
# and of DATA="TABLE --label COLUMN --normal VALUE"; some minutes.
bench-fit-speed: $(VENV)/.dev
	$(BIN)/python -m benchmarks.fit_speed $(DATA)

# What the decisions promise, table after table: false-alarm rates, false discoveries, extrapolation, explanations, drift.
# DATA is a folder as for bench-quality, TRAIN a mixed table with its LABEL and NORMAL. About two hours on two cores; a run
# that is started again goes on. All of them run, and the last word says whether one of the figures was missed.
bench-decisions: $(VENV)/.dev
	@missed=; \
	for run in independent known_generator "realised_rates --data $(DATA) --bundles $(BUNDLES)" extremes \
	  "explanations --data $(DATA) --bundles $(BUNDLES) --mixed $(TRAIN) --label $(LABEL) --normal $(NORMAL)" drift; do \
	  $(BIN)/python -m benchmarks.$$run || missed="$$missed $${run%% *}"; \
	done; \
	test -z "$$missed" || { echo "missed:$$missed"; exit 1; }

# DATA is a folder of runs in time, `;`-separated: what becomes of a rate where records follow each other.
bench-time-order: $(VENV)/.dev
	$(BIN)/python -m benchmarks.time_order --data $(DATA)

# DATA is a list of labelled tables: anomalies among the records of a fit, and whether it lists them.
bench-contamination: $(VENV)/.dev
	$(BIN)/python -m benchmarks.contamination --data $(DATA)

# False alarms and delays of drift; minutes.
bench-drift: $(VENV)/.dev
	$(BIN)/python -m benchmarks.drift

# What serving costs, beside bare uvicorn, its own parts alone and peers; a quarter of an hour on two idle cores, `wrk`
# installed. PARTS="single thousand" measures only these anew. The peers' environments take some GB and minutes more.
bench-serving: $(VENV)/.dev bench-serving-peers
	$(BIN)/python -m benchmarks.serving --peers $(PEERS) $(if $(PARTS),--only $(PARTS))

bench-serving-peers: $(VENV)/.dev
	-$(BIN)/python -m benchmarks.serving.peers $(PEERS)

# Stops under load, 20 of each kind, two minutes; `haproxy` installed.
bench-drain: $(VENV)/.dev
	$(BIN)/python -m benchmarks.stopping

# 300 clients that send, read or say nothing in time, beside good ones; a minute on two idle cores.
bench-slow-clients: $(VENV)/.dev
	$(BIN)/python -m benchmarks.slow_clients

bench-start: $(VENV)/.dev
	$(BIN)/python -m benchmarks.service_start

# What an API key costs a request; two minutes on two idle cores, `wrk` installed.
bench-access: $(VENV)/.dev
	$(BIN)/python -m benchmarks.access

# Bits flipped, keys wrong, versions old, graphs hostile: whether all of it is refused; a minute.
bench-bundles: $(VENV)/.dev
	$(BIN)/python -m benchmarks.hostile_bundles

bench-mixed-traffic: $(VENV)/.dev
	$(BIN)/python -m benchmarks.mixed_traffic

# Ten million records of 30 numbers as a file, made under build/: half an hour of one core, and 3 GB of disk.
bench-score-files: $(VENV)/.dev
	$(BIN)/python -m benchmarks.score_files

# Kills the work on stores and files at every step, and fails every file operation in up to seven ways; minutes.
# CALLS=1 kills at the system calls, by strace.
bench-kills: $(VENV)/.dev
	$(BIN)/python -m benchmarks.kills $(if $(CALLS),--calls)

# Half an hour of requests of every kind, and a thousand reloads; a picture in build/soak.png. SOAK="--minutes 5 …" for less.
soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak $(SOAK)

# What no bytes of a stranger may break, by coverage-guided fuzzing; CI does a little of it.
fuzz: $(VENV)/.dev
	$(BIN)/python -m benchmarks.fuzzing --seconds $(SECONDS)

# Requests made from /openapi.json by schemathesis, CASES a route, and their answers held to it; CI does a few of them.
bench-openapi: $(VENV)/.dev
	$(BIN)/python -m benchmarks.openapi --cases $(CASES)

# A hundred swaps of two versions under 200 requests a second, and a hundred reload calls at once; a minute.
bench-swap: $(VENV)/.dev
	$(BIN)/python -m benchmarks.swap

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# With pyarrow, so that CSV and Arrow bodies are read: the image leaves it out, being half as large without.
$(VENV)/.serve: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[service]' pyarrow
	touch $@

$(VENV)/.training: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) $(TORCH)
	$(PIP) -e '.[training]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) $(TORCH)
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
