# Verdict: one rule per arrow, from a .pth to a Triton model with the proof beside it.
# Here stand the settings, where steps run, and what all rules share; the rules stand beside the
# programs they call, in each room's rules.mk, read below in the order of the data.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
short := $(filter-out --%,$(firstword -$(MAKEFLAGS)))
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables --no-print-directory
# No .DELETE_ON_ERROR: every step renames whole files into place, and make would delete the untouched
# second file of a pair, a good result, when the step that makes both is refused.
.DEFAULT_GOAL := help

# ---- settings ------------------------------------------------------------------------------------
PYTHON ?= python3
V ?=
Q := $(if $(V),,@)
CASE ?= digits
RELEASE ?= 26.07
REGISTRY ?= nvcr.io/nvidia
BUILD_FLAGS ?=
GPU_FLAGS ?= --gpus all --ulimit memlock=-1 --ulimit stack=67108864
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
SERVE ?= production
SERVED ?= yes
VARIANT ?=
OLD ?=
FAST ?=

# Where steps run and whether on a GPU: found out where it is not said.
why = $(if $(filter command environment,$(firstword $(origin $(1)))),asked for,$(2))
GPU_FOUND := $(if $(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null),yes,no)
WHY_GPU := $(call why,GPU,nvidia-smi $(if $(filter yes,$(GPU_FOUND)),lists one,lists none here))
GPU ?= $(GPU_FOUND)
DOCKER_ANSWERS = $(shell docker version --format '{{.Server.Version}}' 2>/dev/null)
MODE_FOUND := $(if $(filter yes,$(GPU)),$(if $(DOCKER_ANSWERS),docker,local),local)
WHY_DOCKER := $(if $(filter docker,$(MODE_FOUND)),there is a GPU and docker answers,docker does not answer)
WHY_LOCAL := without a GPU the containers add nothing
WHY_MODE := $(call why,MODE,$(if $(filter no,$(GPU)),$(WHY_LOCAL),$(WHY_DOCKER)))
MODE ?= $(MODE_FOUND)
DEVICE := $(if $(filter yes,$(GPU)),cuda,cpu)

ifneq ($(filter-out yes no,$(GPU)),)
  $(error GPU is "$(GPU)"; write GPU=yes or GPU=no)
endif
ifneq ($(filter-out docker local,$(MODE)),)
  $(error MODE is "$(MODE)"; write MODE=docker or MODE=local)
endif
ifneq ($(filter-out yes no,$(SERVED))$(filter-out production all,$(SERVE)),)
  $(error SERVED is "$(SERVED)" and SERVE is "$(SERVE)"; write SERVED=yes or no, SERVE=production or all)
endif
ifneq ($(shell [[ "$(CASE)" =~ ^[A-Za-z][A-Za-z0-9_-]*$$ ]] && echo good),good)
  $(error CASE is "$(CASE)"; a case is named with letters, digits, _ and -, a letter first)
endif

# Two steps at once where nothing is timed and they do not share a GPU; make -j1 asks for one.
ifeq ($(GPU)$(filter -j% --jobs%,$(MAKEFLAGS)),no)
  MAKEFLAGS += --jobs=2
endif
# True float32 in every library, whatever this machine or an image says of TF32; and threads that wait
# leave the processor to the step beside them.
export TORCH_ALLOW_TF32_CUBLAS_OVERRIDE := 0
export NVIDIA_TF32_OVERRIDE := 0
export OMP_WAIT_POLICY := PASSIVE

# ---- the case ------------------------------------------------------------------------------------
CASES := $(patsubst data/%/case.toml,%,$(wildcard data/*/case.toml))
D := data/$(CASE)
R := results/$(CASE)
REPO := model_repository
TOML := $(D)/case.toml

# Which case is needed is known from the goals: help, new, test and bench work without one.
FREE := help new test lint bench doctor images
NEEDS_CASE := $(filter-out $(FREE),$(MAKECMDGOALS))
ifneq ($(NEEDS_CASE),)
ifeq ($(wildcard $(TOML)),)
  $(error There is no $(TOML). The cases here: $(CASES). "make new CASE=$(CASE)" starts one)
endif
endif
# What make itself has to know of case.toml; read_case.py refuses one in which these would be read otherwise.
TEXT_OF = s/^[[:blank:]]*$(1)[[:blank:]]*=[[:blank:]]*[\"']([A-Za-z0-9._\/-]+)[\"'].*/\1/p
said_in_toml = $(if $(NEEDS_CASE),$(shell sed -nE "$(call TEXT_OF,$(1))" $(TOML) | head -n 1))
LIST_OF = s/^[[:blank:]]*$(1)[[:blank:]]*=[[:blank:]]*\[([^]]*)\].*/\1/p
FAMILY := $(or $(call said_in_toml,family),torch)
FAMILIES := $(patsubst scripts/families/%/rules.mk,%,$(wildcard scripts/families/*/rules.mk))
ifeq ($(filter $(FAMILY),$(FAMILIES)),)
  $(error $(TOML): family in [model] is "$(FAMILY)"; known are $(FAMILIES))
endif
WEIGHTS := $(D)/$(or $(call said_in_toml,weights),weights.pth)
UNLABELLED := $(call said_in_toml,unlabelled)
SKIP := $(if $(NEEDS_CASE),$(shell sed -nE '$(call LIST_OF,skip)' $(TOML) | tr "\"'," '   '))

ESCAPE := sed 's/[][ ?*:|;]/\\&/g'
FOUND_FILES := find -L $(D) -mindepth 1 -name __pycache__ -prune -o -type f -print -o -type d -print
FILES := $(if $(NEEDS_CASE),$(shell $(FOUND_FILES) | $(ESCAPE)))
MODEL := $(TOML) $(WEIGHTS) $(filter %.py,$(FILES))
DATA := $(filter-out $(MODEL),$(FILES))

# ---- the variants --------------------------------------------------------------------------------
# Some are made only where a step finds a reason to: what those steps have decided stands in decided.mk,
# which make brings up to date first, and then reads again. Not where it is only asked what would be
# done: make remakes what it includes even then. Until the first time it is empty, and older than all.
MADE :=
VERBS := all gate compare promote results/report.% $(R)/report.% $(R)/claims.json \
	$(REPO)/$(CASE)/config.pbtxt $(R)/production.json
ifneq ($(filter $(VERBS),$(MAKECMDGOALS)),)
ifeq ($(findstring n,$(short))$(findstring q,$(short))$(findstring t,$(short)),)
$(shell [ -e $(R)/decided.mk ] || { mkdir -p $(R) && touch -d @0 $(R)/decided.mk; })
include $(R)/decided.mk
else
MADE := $(shell sed -n 's/^MADE := //p' $(R)/decided.mk 2>/dev/null)
endif
endif

# Every variant that runs here, from the one list: name|source|backend|environment|file; and
# <variant>.<step> of each that a step decides on.
LIST := $(shell $(PYTHON) -m scripts.variants --facts --family $(FAMILY) --mode $(MODE) --gpu $(GPU) \
	--skip $(SKIP) --made $(MADE))
ifeq ($(LIST),)
  $(error $(PYTHON) -m scripts.variants, which lists the variants, failed; its words stand above)
endif
fact = $(word $(2),$(subst |, ,$(filter $(1)|%,$(LIST))))
source_of = $(call fact,$(1),2)
backend_of = $(call fact,$(1),3)
environment_of = $(call fact,$(1),4)
DECISIONS := $(foreach one,$(LIST),$(if $(findstring |,$(one)),,$(one)))
VARIANTS := $(foreach one,$(filter-out $(DECISIONS),$(LIST)),$(firstword $(subst |, ,$(one))))
REFERENCE := $(strip $(foreach one,$(VARIANTS),$(if $(filter -,$(call source_of,$(one))),$(one))))
CONVERTED := $(filter-out $(REFERENCE),$(VARIANTS))
SERVABLE := $(if $(filter yes,$(SERVED)),$(CONVERTED))
of_backend = $(foreach one,$(CONVERTED),$(if $(filter $(1),$(call backend_of,$(one))),$(one)))
artefact = $(if $(filter $(REFERENCE),$(1)),$(WEIGHTS),$(REPO)/$(CASE)_$(1)/1/$(call fact,$(1),5))
source_artefact = $(call artefact,$(call source_of,$(1)))
ARTEFACTS := $(foreach variant,$(VARIANTS),$(call artefact,$(variant)))
CONFIGS := $(CONVERTED:%=$(REPO)/$(CASE)_%/config.pbtxt)
# The folder of a variant's backend, or of the reference's family, as scripts.variants.part takes it.
part_of = $(if $(filter $(REFERENCE),$(1)),families/$(FAMILY),backends/$(call backend_of,$(1)))/$(2)
has = $(wildcard scripts/$(call part_of,$(1),$(2)).py)

# ---- how a step is run ---------------------------------------------------------------------------
# A step depends on its own script, what that imports from the package, read from the files, the image
# or .venv it runs in, and case.toml.
SOURCES := $(shell $(PYTHON) -m scripts.imports)
ifeq ($(SOURCES),)
  $(error $(PYTHON) -m scripts.imports, which reads what scripts import, failed; its words stand above)
endif
comma := ,
sources = $(sort $(foreach one,$(1),$(subst $(comma), ,$(patsubst $(one)=%,%,$(filter $(one)=%,$(SOURCES))))))
code = $(call sources,$(1)) $(call where,$(2))
needs = $(call code,$(1),$(2)) $(TOML)

# $(call step,program,environment,more arguments,file): what every step is told is told here. The
# arguments that a call leaves out are empty.
2 :=
3 :=
4 :=
program = $(Q)$(call in,$(2)) scripts.$(subst /,.,$(1))
step = $(call program,$(1),$(2)) $(TOML) --samples $(R)/samples.json --mode $(MODE) --device $(DEVICE) \
	--out $(or $(4),$@) $(3)

# The files of a step that makes several: when one is missing all are made again, and all that depends
# on them in the same run.
missing = $(if $(filter $(words $(1)),$(words $(wildcard $(1)))),,.PHONY: $(2))
pair = $(call missing,$(1),$(1))

# What the rooms below add to: results for the report, pictures, and what is timed, in that order.
FOUND :=
PICTURES :=
TIMED :=

include docker/rules.mk
include scripts/doctor/rules.mk
include scripts/case/rules.mk
include scripts/data/rules.mk
include scripts/families/$(FAMILY)/rules.mk
include $(sort $(wildcard scripts/backends/*/rules.mk))
include scripts/score/rules.mk
include scripts/verdicts/rules.mk
include scripts/repair/rules.mk
include scripts/triton/rules.mk
include scripts/report/rules.mk
include scripts/release/rules.mk
include scripts/bench/rules.mk
include tests/rules.mk

# While steps find out which variants are made, all is made that does not wait for that.
DEPENDING := $(MADE) $(foreach one,$(VARIANTS),$(if $(filter $(MADE),$(call source_of,$(one))),$(one)))
$(R)/decided.mk: | $(filter-out $(DEPENDING:%=$(R)/%.%),$(FOUND) $(PICTURES))

# What is timed is timed when nothing else is left to run, also under make -j: one after the other.
BEFORE := $(FOUND) $(PICTURES) $(CONFIGS) $(R)/request.json
define timed
$(1): | $(BEFORE)
BEFORE := $(1)
endef
$(foreach one,$(TIMED),$(eval $(call timed,$(one))))

# ---- the verbs that are of no room ---------------------------------------------------------------
.PHONY: all clean help
REPORTS := results/report.md $(R)/report.md $(R)/report.html
PUBLISHED := $(REPO)/$(CASE)/config.pbtxt $(if $(filter yes,$(SERVED)),$(R)/production.json)
ALL := $(call where,pytorch) $(R)/request.json $(REPORTS) $(PUBLISHED)
all: $(ALL) ## check, convert, compare, conclude, publish: the report of CASE

clean: ## remove what was made for CASE; its data stays
	rm -rf $(R) $(REPO)/$(CASE)_* results/report.md

help: ## this list, and the settings
	@echo "Verdict: from a trained .pth to a Triton model that gives the same verdicts."
	@echo
	@sed -nE 's/^([a-z]+):.* ## (.*)/  make \1\t\2/p' $(filter %Makefile %rules.mk,$(MAKEFILE_LIST)) | expand -t 16
	@echo
	@echo "  CASE=$(CASE)   a folder in data/; here: $(CASES)"
	@echo "  MODE=$(MODE)   where steps run: docker or local ($(WHY_MODE))"
	@echo "  GPU=$(GPU)   whether a GPU is used ($(WHY_GPU))"
	@echo "  SERVED=$(SERVED)   whether each model is tried in a real Triton"
	@echo "  SERVE=$(SERVE)   what make serve loads: production or all"
	@echo "  HTTP_PORT=$(HTTP_PORT) GRPC_PORT=$(GRPC_PORT) METRICS_PORT=$(METRICS_PORT)   of make serve"
	@echo "  RELEASE=$(RELEASE)   of NVIDIA's containers, for MODE=docker"
	@echo "  REGISTRY=$(REGISTRY)   where they come from"
	@echo "  GPU_FLAGS=$(GPU_FLAGS)   of docker run, with GPU=yes"
	@echo "  BUILD_FLAGS=$(BUILD_FLAGS)   of docker build, e.g. --network host"
	@echo "  PYTHON=$(PYTHON)   makes $(VENV), once"
	@echo "  FAST=$(FAST)   FAST=yes: make test without containers and end-to-end runs"
	@echo "  V=$(V)   V=1 shows each command"
