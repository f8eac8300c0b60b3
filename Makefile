# Verdict: one rule per arrow, from a .pth to a Triton model with the proof beside it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables --no-print-directory
# No .DELETE_ON_ERROR: every step renames whole files into place, and make would delete the untouched
# second file of a pair, a good result, when the step that makes both is refused.
.DEFAULT_GOAL := help

# ---- settings ------------------------------------------------------------------------------------
PYTHON ?= python3
V ?=
Q := $(if $(V),,@)
CASE ?= digits
MODE ?= local
GPU ?= $(if $(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null),yes,no)
GPU := $(GPU)

why = $(if $(filter command environment,$(firstword $(origin $(1)))),asked for,$(2))
WHY_MODE := $(call why,MODE,the only mode of this version)
WHY_GPU := $(call why,GPU,nvidia-smi $(if $(filter yes,$(GPU)),lists one,lists none here))
DEVICE := $(if $(filter yes,$(GPU)),cuda,cpu)

ifneq ($(filter-out local,$(MODE)),)
  $(error MODE is "$(MODE)"; this version knows MODE=local only)
endif
ifneq ($(filter-out yes no,$(GPU)),)
  $(error GPU is "$(GPU)"; write GPU=yes or GPU=no)
endif

# ---- facts ---------------------------------------------------------------------------------------
VENV := .venv
REQUIREMENTS := docker/requirements.txt docker/requirements-$(if $(filter yes,$(GPU)),gpu,cpu).txt
INSTALLED := $(VENV)/installed-$(DEVICE).txt
TOOLS := $(VENV)/installed-dev.txt
in := $(VENV)/bin/python -m

ifneq ($(shell [[ "$(CASE)" =~ ^[A-Za-z][A-Za-z0-9_-]*$$ ]] && echo good),good)
  $(error CASE is "$(CASE)"; a case is named with letters, digits, _ and -, a letter first)
endif
CASES := $(patsubst data/%/case.toml,%,$(wildcard data/*/case.toml))
D := data/$(CASE)
R := results/$(CASE)
REPO := model_repository
TOML := $(D)/case.toml

# Which case is needed is known from the goals: help, new, test and bench work without one.
FREE := help new test lint bench
ifneq ($(filter-out $(FREE),$(MAKECMDGOALS)),)
  ifeq ($(wildcard $(TOML)),)
    $(error There is no $(TOML). The cases here: $(CASES). "make new CASE=$(CASE)" starts one)
  endif
  escape := sed 's/[][ ?*:|;]/\\&/g'
  FILES := $(shell find -L $(D) -mindepth 1 -name __pycache__ -prune -o -type f -print -o -type d -print | $(escape))
  # scripts/case.py refuses a case.toml in which these two would be read otherwise.
  WEIGHTS := $(D)/$(shell sed -nE "s/^[[:blank:]]*weights[[:blank:]]*=[[:blank:]]*[\"']([A-Za-z0-9._\/-]+)[\"'].*/\1/p" $(TOML) | head -n 1)
  SKIP := $(shell sed -nE 's/^[[:blank:]]*skip[[:blank:]]*=[[:blank:]]*\[([^]]*)\].*/\1/p' $(TOML) | tr "\"'," '   ')
else
  FILES :=
  WEIGHTS := $(D)/weights.pth
  SKIP :=
endif
MODEL := $(TOML) $(WEIGHTS) $(filter %.py,$(FILES))
DATA := $(filter-out $(MODEL),$(FILES))

# Every variant that runs here, from the one list.
VARIANTS := $(shell $(PYTHON) -m scripts.variants --gpu $(GPU) --skip $(SKIP))
ONNX := $(filter onnx_%,$(VARIANTS))
artefact = $(if $(filter torch_fp32,$(1)),$(WEIGHTS),$(REPO)/$(CASE)_$(1)/1/model.onnx)
ARTEFACTS := $(foreach variant,$(VARIANTS),$(call artefact,$(variant)))

# The scripts a step runs: its own file and what that imports from the package, read from the files.
EDGES := $(shell grep -oE '^ *from scripts\.[a-z0-9_]+|^ *from scripts import [a-z0-9_]+' scripts/*.py \
	| sed -E 's/scripts\/([a-z0-9_]+)\.py: *from scripts(\.| import )/\1:/')
closure = $(1) $(foreach m,$(patsubst $(1):%,%,$(filter $(1):%,$(EDGES))),$(call closure,$(m)))
code = $(patsubst %,scripts/%.py,$(sort $(call closure,$(1)))) $(INSTALLED)

all: $(INSTALLED) results/report.md $(R)/report.md $(REPO)/$(CASE)/config.pbtxt ## check, convert, compare, conclude, publish: the report of CASE

# ---- set-up, once --------------------------------------------------------------------------------
$(INSTALLED): $(REQUIREMENTS)
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 10) or sys.exit(f"Python 3.10 or newer is needed; {sys.executable} is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(addprefix --requirement ,$(REQUIREMENTS))
	$(VENV)/bin/pip freeze > $@.tmp && mv $@.tmp $@

$(TOOLS): docker/requirements-dev.txt $(INSTALLED)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	$(VENV)/bin/pip freeze > $@.tmp && mv $@.tmp $@

# The two files of a step that makes a pair: when one is missing both are made again, and all that
# depends on them in the same run.
pair = $(if $(filter 2,$(words $(wildcard $(1) $(2)))),,.PHONY: $(1) $(2))

# ---- the arrows ----------------------------------------------------------------------------------
# Ctrl-C: make may not delete these either, for the reason above.
.PRECIOUS: $(R)/samples.json $(R)/labels.npy $(VARIANTS:%=$(R)/%.logits.npy) $(VARIANTS:%=$(R)/%.score.json)

$(eval $(call pair,$(R)/samples.json,$(R)/labels.npy))
$(R)/samples.json $(R)/labels.npy &: $(TOML) $(DATA) $(call code,read_samples)
	$(Q)$(in) scripts.read_samples $(TOML) --out $(R)/samples.json

# Asked for only where the file is missing.
$(WEIGHTS):
	@echo "Error: the weights $@ do not exist; put the .pth there, or set weights in $(TOML)." >&2; exit 1

$(R)/torch_fp32.check.json: $(R)/samples.json $(MODEL) $(call code,check_model)
	$(Q)$(in) scripts.check_model $(TOML) --samples $(R)/samples.json --out $@

$(REPO)/$(CASE)_onnx_fp32/1/model.onnx: $(R)/torch_fp32.check.json $(MODEL) $(R)/samples.json $(call code,export_onnx)
	$(Q)$(in) scripts.export_onnx $(TOML) --samples $(R)/samples.json --out $@

$(REPO)/$(CASE)_onnx_fp16/1/model.onnx: $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(call code,convert_fp16)
	$(Q)$(in) scripts.convert_fp16 $(TOML) --samples $(R)/samples.json --model $< --out $@

$(ONNX:%=$(REPO)/$(CASE)_%/config.pbtxt): $(REPO)/$(CASE)_%/config.pbtxt: $(REPO)/$(CASE)_%/1/model.onnx $(TOML) $(call code,write_config)
	$(Q)$(in) scripts.write_config $(TOML) --name $(CASE)_$* --model $< --gpu $(GPU) --out $@

$(ONNX:%=$(R)/%.precision.json): $(R)/%.precision.json: $(REPO)/$(CASE)_%/1/model.onnx $(call code,prove_precision)
	$(Q)$(in) scripts.prove_precision --variant $* --model $< --out $@

define score
$(call pair,$(R)/$(1).logits.npy,$(R)/$(1).score.json)
$(R)/$(1).logits.npy $(R)/$(1).score.json &: $(R)/samples.json $(R)/torch_fp32.check.json $(call artefact,$(1)) $(MODEL) $(call code,score_variant)
	$(Q)$(in) scripts.score_variant $(TOML) --variant $(1) --samples $(R)/samples.json --model $(call artefact,$(1)) --mode $(MODE) --device $(DEVICE) --out $(R)/$(1).logits.npy
endef
$(foreach variant,$(VARIANTS),$(eval $(call score,$(variant))))

$(R)/torch_fp32.threshold.json: $(TOML) $(R)/torch_fp32.logits.npy $(R)/labels.npy $(call code,choose_threshold)
	$(Q)$(in) scripts.choose_threshold $(TOML) --logits $(R)/torch_fp32.logits.npy --labels $(R)/labels.npy --out $@

COMPARED := $(R)/torch_fp32.logits.npy $(R)/torch_fp32.threshold.json
$(VARIANTS:%=$(R)/%.verdicts.json): $(R)/%.verdicts.json: $(R)/%.logits.npy $(COMPARED) $(R)/labels.npy $(R)/samples.json $(call code,compare_verdicts)
	$(Q)$(in) scripts.compare_verdicts --variant $* --logits $< --reference $(R)/torch_fp32.logits.npy --labels $(R)/labels.npy --samples $(R)/samples.json --threshold $(R)/torch_fp32.threshold.json --out $@

$(ONNX:%=$(R)/%.deviation.png): $(R)/%.deviation.png: $(R)/%.logits.npy $(COMPARED) $(call code,plot_deviation)
	$(Q)$(in) scripts.plot_deviation --variant $* --logits $< --reference $(R)/torch_fp32.logits.npy --threshold $(R)/torch_fp32.threshold.json --out $@

$(R)/threshold.png: $(COMPARED) $(R)/labels.npy $(call code,plot_threshold)
	$(Q)$(in) scripts.plot_threshold --logits $(R)/torch_fp32.logits.npy --labels $(R)/labels.npy --threshold $(R)/torch_fp32.threshold.json --out $@

# Layer by layer: each ONNX variant that is made from another one, against that one.
LAYERED := $(filter-out onnx_fp32,$(ONNX))
$(LAYERED:%=$(R)/%.layers.json): $(R)/%.layers.json: $(REPO)/$(CASE)_%/1/model.onnx $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(R)/%.logits.npy $(COMPARED) $(R)/samples.json $(TOML) $(call code,compare_layers)
	$(Q)$(in) scripts.compare_layers $(TOML) --variant $* --samples $(R)/samples.json --model $< --source $(REPO)/$(CASE)_onnx_fp32/1/model.onnx --logits $(R)/$*.logits.npy --reference $(R)/torch_fp32.logits.npy --threshold $(R)/torch_fp32.threshold.json --out $@

$(LAYERED:%=$(R)/%.layers.png): $(R)/%.layers.png: $(R)/%.layers.json $(call code,plot_layers)
	$(Q)$(in) scripts.plot_layers $< --out $@

PICTURES := $(R)/threshold.png $(ONNX:%=$(R)/%.deviation.png) $(LAYERED:%=$(R)/%.layers.png)
FOUND := $(LAYERED:%=$(R)/%.layers.json) $(VARIANTS:%=$(R)/%.verdicts.json) $(VARIANTS:%=$(R)/%.score.json) $(ONNX:%=$(R)/%.precision.json)
CONFIGS := $(ONNX:%=$(REPO)/$(CASE)_%/config.pbtxt)

# Timed when nothing else is left to run, also under make -j.
$(R)/latency.json: $(ARTEFACTS) $(TOML) $(R)/samples.json $(call code,measure_latency) | $(FOUND) $(PICTURES) $(CONFIGS)
	$(Q)$(in) scripts.measure_latency $(TOML) --mode $(MODE) --device $(DEVICE) --samples $(R)/samples.json --out $@ $(foreach variant,$(VARIANTS),$(variant)=$(call artefact,$(variant)))

$(R)/report.json: $(FOUND) $(R)/latency.json $(TOML) $(call code,conclude)
	$(Q)$(in) scripts.conclude $(TOML) --results $(R) --mode $(MODE) --why-mode "$(WHY_MODE)" --gpu $(GPU) --why-gpu "$(WHY_GPU)" --out $@

$(R)/report.md: $(R)/report.json $(PICTURES) $(call code,write_report)
	$(Q)$(in) scripts.write_report $< --out $@

# results/report.md is the report of the case that was run last; its first line says which.
ifneq ($(shell sed -n 1p results/report.md 2>/dev/null),\# Verdict report: $(CASE))
.PHONY: results/report.md
endif
results/report.md: $(R)/report.json $(R)/report.md $(call code,write_report)
	$(Q)$(in) scripts.write_report $< --pictures $(CASE)/ --out $@

ifeq ($(wildcard $(REPO)/$(CASE)/[1-9]*/model.*),)
.PHONY: $(REPO)/$(CASE)/config.pbtxt
endif
$(REPO)/$(CASE)/config.pbtxt: $(R)/report.json $(R)/report.md $(CONFIGS) $(ARTEFACTS) $(call code,publish_model)
	$(Q)$(in) scripts.publish_model $< --repository $(REPO) --out $@

# ---- the other verbs -----------------------------------------------------------------------------
.PHONY: all new test lint bench clean help

new: $(INSTALLED) ## write a commented data/CASE/case.toml to fill in
	$(Q)$(in) scripts.new_case data/$(CASE)

test: lint ## ruff, mypy and all tests
	$(in) pytest tests

lint: $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(INSTALLED) ## measure our own speed and memory: a table, and results/bench.json
	$(Q)$(in) scripts.bench --out results/bench.json

clean: ## remove what was made for CASE; its data stays
	rm -rf $(R) $(REPO)/$(CASE)_* results/report.md

help: ## this list, and the settings
	@echo "Verdict: from a trained .pth to a Triton model that gives the same verdicts."
	@echo
	@sed -nE 's/^([a-z]+):.* ## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo
	@echo "  CASE=$(CASE)   a folder in data/; here: $(CASES)"
	@echo "  MODE=$(MODE)   where steps run ($(WHY_MODE))"
	@echo "  GPU=$(GPU)   whether a GPU is used ($(WHY_GPU))"
	@echo "  PYTHON=$(PYTHON)   makes $(VENV), once"
	@echo "  V=$(V)   V=1 shows each command"
