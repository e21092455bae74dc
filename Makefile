# Every target sets up what it needs by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format train-isbi train-phc train-dic separation-demo compare segment-demo gpu-check benchmark-published caffe-reference clean

READY := .venv/ready
RUN := .venv/bin/python

NET ?=
SPLIT ?= holdout
SOLVER ?=
WEIGHTING ?=
ITERATIONS ?=
DEVICE ?= auto
PRECISION ?= fp32
MINUTES ?= 8
RELEASE ?=
PYTEST ?=

help: ## this list
	@echo "make TARGET [VARIABLE=value ...]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 20

setup: $(READY) ## .venv with tested versions; PYTHON=python3.12 chooses the Python

$(READY): pyproject.toml constraints.txt tools/setup
	@tools/setup $(PYTHON)

demo: $(READY) ## the whole way in 5 minutes, with as many training steps as fit: data, training, segmenting, scores, pictures
	@$(RUN) tools/run_recipe.py demo --device "$(DEVICE)"

# Half of the suite waits for one process or another: two at a time, each on one core.
test: $(READY) ## all tests; PYTEST="-m 'not slow'" (or 'not reference': without genuine Caffe; -n 8: so many at a time) passes options on
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

lint: $(READY) ## check style and format
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

format: $(READY) ## put code into format
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

TRAIN = @$(RUN) tools/run_recipe.py $(1) --net "$(NET)" --split "$(SPLIT)" --solver "$(SOLVER)" \
	--weighting "$(WEIGHTING)" --iterations "$(ITERATIONS)" --device "$(DEVICE)" --precision "$(PRECISION)"

train-isbi: $(READY) ## train on ISBI 2012: NET=unet|unet_slim SPLIT=holdout|all SOLVER=sgd|adam WEIGHTING=paper|none ITERATIONS= DEVICE=auto|cpu|0 PRECISION=fp32|tf32|bf16
	$(call TRAIN,isbi2012)

train-phc: $(READY) ## train on PhC-C2DH-U373 of the cell tracking challenge, segment, track; variables as above
	$(call TRAIN,phc-u373)

train-dic: $(READY) ## the same on DIC-C2DH-HeLa
	$(call TRAIN,dic-hela)

separation-demo: $(READY) ## what the weight of the gaps between cells is for: touching cells, with and without
	@$(RUN) tools/run_recipe.py separation --device "$(DEVICE)" --precision "$(PRECISION)"

compare: $(READY) ## the paper's comparison: sliding windows of Ciresan et al. beside the U-Net, half an hour; MINUTES=8 of the two long trainings
	@$(RUN) tools/run_recipe.py compare --minutes "$(MINUTES)" --device "$(DEVICE)"

segment-demo: $(READY) ## segment slices with the model that comes with the project
	@$(RUN) tools/run_recipe.py segment-demo --device "$(DEVICE)"

gpu-check: $(READY) ## prove GPU 0: tests and speed in 8 minutes, a training with its scores in 8 more; results in runs/gpu-check
	@$(RUN) tools/gpu_check.py proof -o runs/gpu-check; proven=$$?; if ((proven > 1)); then exit $$proven; fi; \
		$(RUN) tools/gpu_check.py train -o runs/gpu-check && exit $$proven

benchmark-published: $(READY) ## the authors' network of 2015 on their frames, beside ours; RELEASE=folder or archive, else downloaded
	@$(RUN) tools/run_recipe.py published --from "$(RELEASE)" --device "$(DEVICE)"

caffe-reference: ## genuine Caffe 1.0, the judge of the tests; needs root, 1.5 GB
	@tools/caffe-reference --install

clean: ## remove what was built, keep data, runs and genuine Caffe
	@rm -rf .venv .venv.lock build dist python/*.egg-info .pytest_cache .ruff_cache .hypothesis
	@find python tools tests data -name __pycache__ -prune -exec rm -rf {} +
