# Two commands for people: `make demo` and `make test`. Each sets up its own .venv on a bare machine.
PYTHON ?= python3
BIN := .venv/bin
NET := fixtures/torch/dl1

.PHONY: demo test heavy lint equivalence clean

demo: .venv/demo.stamp
	@rm -rf demo && mkdir demo
	$(BIN)/modelhub inspect $(NET)/net.pt2 --interface $(NET)/variables.json
	$(BIN)/modelhub convert --from torch --to json $(NET)/net.pt2 --interface $(NET)/variables.json -o demo/net.json --report demo/json.report.json
	$(BIN)/modelhub convert --from torch --to onnx $(NET)/net.pt2 --interface $(NET)/variables.json -o demo/net.onnx --report demo/onnx.report.json
	$(BIN)/modelhub check demo/net.onnx demo/net.json
	$(BIN)/modelhub registry --registry demo/registry push btag $(NET)/net.pt2 demo/net.json demo/net.onnx --report demo/json.report.json --report demo/onnx.report.json
	$(BIN)/modelhub registry --registry demo/registry alias btag@1 prod
	$(BIN)/modelhub registry --registry demo/registry list
	$(BIN)/modelhub registry --registry demo/registry show btag@prod

test: .venv/dev.stamp
	$(BIN)/python -m pytest

heavy: .venv/dev.stamp
	$(BIN)/python -m pytest -m heavy

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The job that `modelhub init-ci` writes for others, on our own fixtures.
equivalence: .venv/dev.stamp
	$(BIN)/modelhub check --config fixtures/modelhub.yaml --report-dir equivalence --junit equivalence/junit.xml

# The CPU build of torch is pinned by name: any other brings gigabytes of CUDA along.
.venv/demo.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0" -e ".[torch]"
	@touch $@

.venv/dev.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0" -e ".[dev]"
	@touch $@ .venv/demo.stamp

clean:
	rm -rf .venv demo equivalence
