# Every target works on a machine that has Python 3.11 or newer and nothing else: uv comes from requirements/uv.txt,
# everything after it through uv, and every file is checked against its hash.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# `:=`, not `?=`: some shells export HOST, and the service must not leave the loopback by accident.
HOST :=
PORT :=
ARGS :=
ONLY :=

SERVE = -m service serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(ARGS)

UV := .venv-uv/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--custom-compile-command "make lock"

export UV_PYTHON_DOWNLOADS := never
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve serve-gpu test bench container-test container-test-training lint format docs audit lock hooks clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: .venv-serve/.ready ## start the service on 127.0.0.1:8000, or HOST=... PORT=... (environment without torch)
	.venv-serve/bin/python $(SERVE)

serve-gpu: .venv-serve-gpu/.ready ## the same on a GPU (needs the CUDA 13 and cuDNN 9 libraries)
	HEATQUERY_PROVIDER=cuda .venv-serve-gpu/bin/python $(SERVE)

test: .venv/.ready ## make the full environment and run all tests; ARGS="-k name" narrows them
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder $(ARGS)

bench: .venv/.ready ## measure all that this machine can, or ONLY="name ...", and write benchmarks/README.md anew
	.venv/bin/python benchmarks/book.py --run $(ONLY) $(ARGS)

container-test: ## build the service's image, start it locked down and check it (buildah, podman; docs/deploy.md)
	'$(PYTHON)' tests/container/check_service.py

container-test-training: ## the same for the training image, from drawn pictures to a model folder (takes 12 GB of disk)
	'$(PYTHON)' tests/container/check_training.py

lint: .venv/.ready ## ruff, formatting, types, import rules, Dockerfiles
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright
	.venv/bin/lint-imports --no-logo
	.venv/bin/hadolint docker/serve.Dockerfile docker/train.Dockerfile

format: .venv/.ready ## let ruff fix and format the code
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

docs: .venv-docs/.ready ## build the site into build/site/; a link that leads nowhere fails it
	.venv-docs/bin/sphinx-build -c docs -b html --fail-on-warning --keep-going -q . build/site

audit: .venv-audit/.ready .venv-serve/.ready ## known vulnerabilities, licences and SBOM, into build/audit/ (needs the network)
	.venv-audit/bin/python requirements/audit.py .venv-serve/bin/python

hooks: .venv/.ready ## run these checks before each commit
	.venv/bin/pre-commit install

# The service's versions are those that the tests ran with: every other file is resolved under dev.txt as constraint.
lock: .venv-uv/.ready ## write requirements/*.txt from pyproject.toml; ARGS=--upgrade takes the newest versions
	$(COMPILE) $(ARGS) pyproject.toml --extra serve --extra client --extra ray --extra train --extra export --extra dev -o requirements/dev.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra serve -c requirements/dev.txt -o requirements/serve.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra serve --extra ray -c requirements/dev.txt -o requirements/ray.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra train --extra export -c requirements/dev.txt -o requirements/train.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra serve-gpu -c requirements/dev.txt -o requirements/serve-gpu.txt
	$(COMPILE) $(ARGS) benchmarks/requirements-peers.in -c requirements/dev.txt -o benchmarks/requirements-peers.txt
	$(COMPILE) $(ARGS) benchmarks/requirements-serving.in -c requirements/dev.txt -o benchmarks/requirements-serving.txt
	$(COMPILE) $(ARGS) benchmarks/requirements-scenes.in -c requirements/dev.txt -o benchmarks/requirements-scenes.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra serve --group docs -c requirements/dev.txt -o requirements/docs.txt
	$(COMPILE) $(ARGS) --group audit -c requirements/dev.txt -o requirements/audit.txt
	$(COMPILE) $(ARGS) --group build -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) $(ARGS) --group uv -o requirements/uv.txt

clean: ## remove environments and caches
	rm -rf .venv .venv-serve .venv-serve-gpu .venv-docs .venv-audit .venv-uv build dist
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find model training export service tests benchmarks docs requirements -name __pycache__ -prune -exec rm -rf {} +

.venv-uv/.ready: requirements/uv.txt
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "heatquery needs Python 3.11 or newer; '$(PYTHON)' is $$('$(PYTHON)' --version 2>/dev/null || echo absent)." \
			"Name another: make PYTHON=/path/to/python3.11 TARGET" >&2; exit 1; }
	'$(PYTHON)' -m venv --clear .venv-uv
	.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# $(call environment,FOLDER,REQUIREMENTS): made once; afterwards only what changed is installed or removed.
define environment
$(1)/.ready: $(2) requirements/build.txt pyproject.toml .venv-uv/.ready
	test -x $(1)/bin/python || $(UV) venv --quiet --clear --python '$(PYTHON)' $(1)
	$(UV) pip sync --quiet --python $(1)/bin/python --require-hashes $(2) requirements/build.txt
	$(UV) pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .
	@touch $$@
endef

$(eval $(call environment,.venv,requirements/dev.txt))
$(eval $(call environment,.venv-serve,requirements/serve.txt))
$(eval $(call environment,.venv-serve-gpu,requirements/serve-gpu.txt))
$(eval $(call environment,.venv-docs,requirements/docs.txt))
$(eval $(call environment,.venv-audit,requirements/audit.txt))
