# The two commands of the README are `make demo` and `make test`; both set up .venv on first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test test-all lint clean
setup: $(READY)

# torch goes first: pip would otherwise choose it for another package, in a newer version. What is there already (a
# build for your CUDA, say) stays. On Linux the package index serves the CUDA build, gigabytes of it: for the CPU build,
# make setup TORCH_FLAGS='--index-url URL' with the URL that PyTorch's installation page gives.
TORCH_FLAGS ?=
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "worldtrace needs Python 3.11 or later: make setup PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --disable-pip-version-check torch -c constraints.txt $(TORCH_FLAGS)
	grep -v '^torch==' constraints.txt > .venv/constraints.txt
	$(BIN)/pip install --disable-pip-version-check -e '.[dev,view,s3]' -c .venv/constraints.txt
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes: half of the time the tests of the cluster wait for Ray, which the others use (tests/conftest.py).
test: lint
	$(BIN)/pytest -m "not slow" -n 2 --dist loadgroup --durations=15

test-all: lint
	$(BIN)/pytest

DEMO := out/demo
WT := $(BIN)/worldtrace
# Assets in, a trained model and a layered point cloud out: the five commands of the README, one after the other.
# Objects are larger and nearer to the middle of the image than in a real data set, for it has 112 pixels.
demo: $(READY)
	rm -rf $(DEMO)
	$(WT) render 'procedural:objects?count=600' --out $(DEMO)/dataset --views 4 --size 112 \
	  --set framing_median=0.5 --set framing_deviation=0.3 --set aim_deviation=0.02,0.02 --set crop=0
	$(WT) shards info $(DEMO)/dataset
	$(WT) shards verify $(DEMO)/dataset
	$(WT) shards show $(DEMO)/dataset --count 6 --out $(DEMO)/sheet.png
	$(WT) train tiny data.path=$(DEMO)/dataset out=$(DEMO)/run steps=1700
	cp $(DEMO)/run/training.png $(DEMO)/training.png
	$(WT) predict "$(DEMO)/dataset#heldout" --checkpoint $(DEMO)/run --steps 20 \
	  --out $(DEMO)/prediction.glb --out $(DEMO)/prediction.ply --out $(DEMO)/prediction.png
	$(WT) eval --checkpoint $(DEMO)/run --data $(DEMO)/dataset --seeds 4 --steps 10 --limit 64 --out $(DEMO)/report.json

clean:
	rm -rf out .mypy_cache .ruff_cache .pytest_cache
