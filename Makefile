# Verdict: one rule per arrow, from a .pth to a Triton model with the proof beside it.
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

# Where steps run and whether on a GPU: found out where it is not said.
why = $(if $(filter command environment,$(firstword $(origin $(1)))),asked for,$(2))
GPU_FOUND := $(if $(shell command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null),yes,no)
WHY_GPU := $(call why,GPU,nvidia-smi $(if $(filter yes,$(GPU_FOUND)),lists one,lists none here))
GPU ?= $(GPU_FOUND)
ifneq ($(filter-out yes no,$(GPU)),)
  $(error GPU is "$(GPU)"; write GPU=yes or GPU=no)
endif
MODE_FOUND := $(if $(filter yes,$(GPU)),$(if $(shell docker version --format '{{.Server.Version}}' 2>/dev/null),docker,local),local)
WHY_MODE := $(call why,MODE,$(if $(filter no,$(GPU)),without a GPU the containers add nothing,$(if $(filter docker,$(MODE_FOUND)),there is a GPU and docker answers,docker does not answer)))
MODE ?= $(MODE_FOUND)
ifneq ($(filter-out docker local,$(MODE)),)
  $(error MODE is "$(MODE)"; write MODE=docker or MODE=local)
endif
DEVICE := $(if $(filter yes,$(GPU)),cuda,cpu)
ifneq ($(filter-out yes no,$(SERVED))$(filter-out production all,$(SERVE)),)
  $(error SERVED is "$(SERVED)" and SERVE is "$(SERVE)"; write SERVED=yes or no, SERVE=production or all)
endif

# True float32 in every library, whatever this machine or an image says of TF32.
export TORCH_ALLOW_TF32_CUBLAS_OVERRIDE := 0
export NVIDIA_TF32_OVERRIDE := 0

# ---- facts ---------------------------------------------------------------------------------------
VENV := .venv
REQUIREMENTS := docker/requirements.txt docker/requirements-$(if $(filter yes,$(GPU)),gpu,cpu).txt
INSTALLED := $(VENV)/installed-$(DEVICE).txt
TOOLS := $(VENV)/installed-dev.txt

# An image is a file that holds its ID. Steps depend on it and run that ID; in local mode on .venv.
IMAGES := pytorch tensorrt tritonserver client
image_file = docker/.$(1)-$(RELEASE)-$(DEVICE).iid
base = $(REGISTRY)/$(if $(filter client,$(1)),tritonserver,$(1)):$(RELEASE)-py3$(if $(filter client,$(1)),-sdk)
TRITON := $(VENV)/triton/server.json
where = $(if $(filter docker,$(MODE)),$(call image_file,$(1)),$(if $(filter tritonserver,$(1)),$(TRITON),$(INSTALLED)))
NEEDED := pytorch $(if $(filter yes,$(GPU)),tensorrt) $(if $(filter yes,$(GPU) $(SERVED)),tritonserver) $(if $(filter yes,$(SERVED)),client)
DOCTOR = $(PYTHON) -m scripts.doctor.check_machine --mode $(MODE) --gpu $(GPU) --release $(RELEASE) $(foreach image,$(NEEDED),--base $(image)=$(call base,$(image)))

# The container line, once. The caller's uid and gid, which the image need not know, with a HOME and
# caches in memory; the project at the same path as outside. $(2) is how it runs: a step has no
# network; serve listens on 127.0.0.1 of this machine, and sees the project read-only; beside is a
# server in the background, $$server, without network, and asks is the step that shares 127.0.0.1 with it.
HOME_ENV := HOME=/caches USER=verdict LOGNAME=verdict XDG_CACHE_HOME=/caches MPLCONFIGDIR=/caches \
	TORCHINDUCTOR_CACHE_DIR=/caches TRITON_CACHE_DIR=/caches \
	TORCH_ALLOW_TF32_CUBLAS_OVERRIDE NVIDIA_TF32_OVERRIDE PYTHONDONTWRITEBYTECODE=1
as_step := --rm
as_serve := --rm
as_beside := --detach --name "$$server"
as_asks := --rm --name "$$server-client"
network_step := none
network_serve := host
network_beside := none
network_asks := "container:$$server"
container = docker run $(as_$(2)) --init --user "`id -u`:`id -g`" --network $(network_$(2)) \
	--security-opt no-new-privileges --shm-size 1g --tmpfs /caches:rw,exec,mode=1777 \
	$(HOME_ENV:%=--env %) --env VERDICT_IMAGE="$(1) $(RELEASE) `cat $(call image_file,$(1))`" \
	--volume "$(CURDIR):$(CURDIR)$(if $(filter serve,$(2)),:ro)" --workdir "$(CURDIR)" $(LINKED) $(if $(filter yes,$(GPU)),$(GPU_FLAGS)) \
	"`cat $(call image_file,$(1))`"
in = $(if $(filter docker,$(MODE)),$(call container,$(1),step) python3 -m,$(VENV)/bin/python -m)

ifneq ($(shell [[ "$(CASE)" =~ ^[A-Za-z][A-Za-z0-9_-]*$$ ]] && echo good),good)
  $(error CASE is "$(CASE)"; a case is named with letters, digits, _ and -, a letter first)
endif
CASES := $(patsubst data/%/case.toml,%,$(wildcard data/*/case.toml))
D := data/$(CASE)
R := results/$(CASE)
REPO := model_repository
TOML := $(D)/case.toml

# Which case is needed is known from the goals: help, new, test and bench work without one.
FREE := help new test lint bench doctor images
ifneq ($(filter-out $(FREE),$(MAKECMDGOALS)),)
  ifeq ($(wildcard $(TOML)),)
    $(error There is no $(TOML). The cases here: $(CASES). "make new CASE=$(CASE)" starts one)
  endif
  escape := sed 's/[][ ?*:|;]/\\&/g'
  # Links in the case's folder that lead out of the project: containers see their targets too.
  LINKED := $(shell find $(D) -type l -exec readlink -f {} + | while read -r path; do [ -d "$$path" ] && echo "$$path" || dirname "$$path"; done \
	| sort -u | grep -vE '^$(CURDIR)(/|$$)' | sed 's/.*/--volume "&:&:ro"/')
  FILES := $(shell find -L $(D) -mindepth 1 -name __pycache__ -prune -o -type f -print -o -type d -print | $(escape))
  # scripts/case/read_case.py refuses a case.toml in which these two would be read otherwise.
  WEIGHTS := $(D)/$(shell sed -nE "s/^[[:blank:]]*weights[[:blank:]]*=[[:blank:]]*[\"']([A-Za-z0-9._\/-]+)[\"'].*/\1/p" $(TOML) | head -n 1)
  UNLABELLED := $(shell sed -nE "s/^[[:blank:]]*unlabelled[[:blank:]]*=[[:blank:]]*[\"']([A-Za-z0-9._\/-]+)[\"'].*/\1/p" $(TOML) | head -n 1)
  SKIP := $(shell sed -nE 's/^[[:blank:]]*skip[[:blank:]]*=[[:blank:]]*\[([^]]*)\].*/\1/p' $(TOML) | tr "\"'," '   ')
else
  LINKED :=
  FILES :=
  WEIGHTS := $(D)/weights.pth
  SKIP :=
  UNLABELLED :=
endif
MODEL := $(TOML) $(WEIGHTS) $(filter %.py,$(FILES))
DATA := $(filter-out $(MODEL),$(FILES))

# Every variant that runs here, from the one list. Some are made only where a step finds a reason to:
# what those steps have decided stands in decided.mk, which make brings up to date first, and then
# reads again. Not where it is only asked what would be done: make remakes what it includes even then.
MADE :=
VERBS := all gate compare promote results/report.% $(R)/report.% $(R)/claims.json $(REPO)/$(CASE)/config.pbtxt $(R)/production.json
ifneq ($(filter $(VERBS),$(MAKECMDGOALS)),)
ifeq ($(findstring n,$(short))$(findstring q,$(short))$(findstring t,$(short)),)
include $(R)/decided.mk
else
MADE := $(shell sed -n 's/^MADE := //p' $(R)/decided.mk 2>/dev/null)
endif
endif
LISTED := --mode $(MODE) --gpu $(GPU) --skip $(SKIP) --made $(MADE)
VARIANTS := $(shell $(PYTHON) -m scripts.variants $(LISTED))
DECISIONS := $(shell $(PYTHON) -m scripts.variants $(LISTED) --decided)
ifeq ($(VARIANTS),)
  $(error $(PYTHON) -m scripts.variants, which lists the variants, failed; its words stand above)
endif
ONNX := $(filter onnx_%,$(VARIANTS))
TRT := $(filter trt_%,$(VARIANTS))
SCRIPTED := $(filter torchscript_%,$(VARIANTS))
CONVERTED := $(SCRIPTED) $(ONNX) $(TRT)
ending = $(if $(filter trt_%,$(1)),plan,$(if $(filter torchscript_%,$(1)),pt,onnx))
artefact = $(if $(filter torch_fp32,$(1)),$(WEIGHTS),$(REPO)/$(CASE)_$(1)/1/model.$(ending))
ARTEFACTS := $(foreach variant,$(VARIANTS),$(call artefact,$(variant)))
image_of = $(if $(filter trt_%,$(1)),tensorrt,pytorch)
# The ONNX file with the inputs and outputs of a variant: its own, or what its engine is built from.
onnx_of = $(call artefact,$(1:trt_%=onnx_%))
ends_of = $(if $(filter torchscript_%,$(1)),$(R)/torch_fp32.check.json,$(onnx_of))

# What a step runs: its own script, what that imports from the package, read from the files, and the
# image or .venv.
EDGES := $(shell grep -roE --include=*.py '^ *from scripts[a-z0-9_.]* import [a-z0-9_]+' scripts \
	| sed -E 's/scripts\/([^:]*)\.py: *from scripts\.?([a-z0-9_.]*) import ([a-z0-9_]+)/\1 \2 \3/' \
	| while read -r user module name; do [ -f "scripts/$${module//.//}.py" ] && echo "$$user:$${module//.//}" || echo "$$user:$${module//.//}/$$name"; done)
closure = $(1) $(foreach m,$(patsubst $(1):%,%,$(filter $(1):%,$(EDGES))),$(call closure,$(m)))
sources = $(patsubst %,scripts/%.py,$(sort $(call closure,$(1))))
code = $(sources) $(call where,$(2))

all: $(call where,pytorch) $(R)/request.json results/report.md $(R)/report.md $(R)/report.html $(REPO)/$(CASE)/config.pbtxt $(if $(filter yes,$(SERVED)),$(R)/production.json) ## check, convert, compare, conclude, publish: the report of CASE

# ---- set-up, once --------------------------------------------------------------------------------
$(INSTALLED): $(REQUIREMENTS)
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 10) or sys.exit(f"Python 3.10 or newer is needed; {sys.executable} is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.12 ...")'
	$(if $(filter yes,$(GPU)),@$(PYTHON) -c 'import sys; sys.version_info[:2] >= (3, 11) or sys.exit("GPU=yes without containers needs Python 3.11 or newer: ONNX Runtime for 3.10 is built for CUDA 12, PyTorch for CUDA 13. Name another one: make PYTHON=python3.12 ... after removing $(VENV)")')
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(addprefix --requirement ,$(REQUIREMENTS))
	$(VENV)/bin/pip freeze > $@.tmp && mv $@.tmp $@

# The local mode's Triton: a real tritonserver from a wheel, of which only the binaries are wanted.
$(TRITON): docker/requirements-triton.txt $(INSTALLED) $(call sources,triton/home) $(wildcard scripts/backends/*.py scripts/backends/*/stand_in.py)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	$(Q)$(VENV)/bin/python -m scripts.triton.home --out $@

$(TOOLS): docker/requirements-dev.txt $(INSTALLED)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	$(VENV)/bin/pip freeze > $@.tmp && mv $@.tmp $@

# Before the first container: what a machine needs, and that the base images agree.
docker/.preflight-$(RELEASE)-$(DEVICE).json: $(call sources,doctor/check_machine)
	$(Q)$(DOCTOR) --pull --out $@

# Settings of a network that has an index, an authority or proxies of its own reach the build.
said = $(foreach name,$(1),$(if $(filter environment command,$(firstword $(origin $(name)))),--build-arg $(name)))
$(foreach image,$(IMAGES),$(call image_file,$(image))): docker/.%-$(RELEASE)-$(DEVICE).iid: docker/%.Dockerfile docker/add_packages.py docker/check_image.py docker/requirements.txt docker/requirements-cpu.txt docker/requirements-gpu.txt | docker/.preflight-$(RELEASE)-$(DEVICE).json
	@echo "Building the image $* on $(call base,$*)"
	$(Q)docker build --iidfile $@.tmp --file $< --build-arg BASE=$(call base,$*) $(if $(filter pytorch,$*),--build-arg ONNXRUNTIME=$(notdir $(lastword $(REQUIREMENTS)))) \
		$(call said,PIP_INDEX_URL PIP_CERT HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy) $(BUILD_FLAGS) docker
	@mv $@.tmp $@

# The SVG of a picture, for report.html, lies beside the PNG, which is the target.
drawn = $(if $(wildcard $(1:.png=.svg)),,.PHONY: $(1))
# The two files of a step that makes a pair: when one is missing both are made again, and all that
# depends on them in the same run.
pair = $(if $(filter 2,$(words $(wildcard $(1) $(2)))),,.PHONY: $(1) $(2))

# ---- the arrows ----------------------------------------------------------------------------------
# Ctrl-C: make may not delete these either, for the reason above.
.PRECIOUS: $(R)/samples.json $(R)/labels.npy $(VARIANTS:%=$(R)/%.logits.npy) $(VARIANTS:%=$(R)/%.score.json)

$(eval $(call pair,$(R)/samples.json,$(R)/labels.npy))
$(R)/samples.json $(R)/labels.npy &: $(TOML) $(DATA) $(call code,data/read_samples,pytorch)
	$(Q)$(call in,pytorch) scripts.data.read_samples $(TOML) --out $(R)/samples.json

# Asked for only where the file is missing.
$(WEIGHTS):
	@echo "Error: the weights $@ do not exist; put the .pth there, or set weights in $(TOML)." >&2; exit 1

$(R)/request.json: $(R)/samples.json $(TOML) $(call code,triton/write_request,pytorch)
	$(Q)$(call in,pytorch) scripts.triton.write_request $(TOML) --samples $< --out $@

$(R)/torch_fp32.check.json: $(R)/samples.json $(MODEL) $(call code,families/torch/check_model,pytorch)
	$(Q)$(call in,pytorch) scripts.families.torch.check_model $(TOML) --samples $(R)/samples.json --out $@

$(REPO)/$(CASE)_onnx_fp32/1/model.onnx: $(R)/torch_fp32.check.json $(MODEL) $(R)/samples.json $(call code,backends/onnxruntime/convert_fp32,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.convert_fp32 $(TOML) --samples $(R)/samples.json --out $@

$(REPO)/$(CASE)_torchscript_fp32/1/model.pt: $(R)/torch_fp32.check.json $(MODEL) $(R)/samples.json $(call code,backends/pytorch/trace_torchscript,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.pytorch.trace_torchscript $(TOML) --samples $(R)/samples.json --device $(DEVICE) --out $@

$(REPO)/$(CASE)_onnx_fp16/1/model.onnx: $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(call code,backends/onnxruntime/convert_fp16,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.convert_fp16 $(TOML) --samples $(R)/samples.json --model $< --out $@

$(REPO)/$(CASE)_onnx_int8/1/model.onnx: $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(R)/samples.json $(R)/labels.npy $(TOML) $(call code,backends/onnxruntime/convert_int8,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.convert_int8 $(TOML) --samples $(R)/samples.json --model $< --out $@

# Whether the runtime computes in bfloat16, and which nodes left in float32 take a variant's flips back.
$(R)/onnx_bf16.support.json: $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(R)/samples.json $(TOML) $(call code,backends/onnxruntime/check_bfloat16,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.check_bfloat16 $(TOML) --samples $(R)/samples.json --model $< --mode $(MODE) --device $(DEVICE) --out $@

$(REPO)/$(CASE)_onnx_bf16/1/model.onnx: $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(R)/onnx_bf16.support.json $(call code,backends/onnxruntime/convert_bf16,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.convert_bf16 $(TOML) --samples $(R)/samples.json --model $< --support $(R)/onnx_bf16.support.json --out $@

define repair
$(call pair,$(R)/$(1)_mixed.repair.json,$(R)/$(1).culprits.json)
$(R)/$(1)_mixed.repair.json $(R)/$(1).culprits.json &: $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(R)/$(1).logits.npy $(R)/torch_fp32.logits.npy $(R)/torch_fp32.threshold.json $(R)/labels.npy $(R)/samples.json $(TOML) $(call code,repair/repair_verdicts,pytorch)
	$(Q)$(call in,pytorch) scripts.repair.repair_verdicts $(TOML) --variant $(1) --samples $(R)/samples.json --source $(REPO)/$(CASE)_onnx_fp32/1/model.onnx --logits $(R)/$(1).logits.npy --reference $(R)/torch_fp32.logits.npy --threshold $(R)/torch_fp32.threshold.json --mode $(MODE) --device $(DEVICE) --out $(R)/$(1)_mixed.repair.json

$(REPO)/$(CASE)_$(1)_mixed/1/model.onnx: $(R)/$(1)_mixed.repair.json $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(call code,backends/onnxruntime/convert_mixed,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.convert_mixed $(TOML) --samples $(R)/samples.json --repair $$< --source $(REPO)/$(CASE)_onnx_fp32/1/model.onnx --out $$@

$(call drawn,$(R)/$(1).culprits.png)
$(R)/$(1).culprits.png: $(R)/$(1).culprits.json $(call code,report/plot_culprits,pytorch)
	$(Q)$(call in,pytorch) scripts.report.plot_culprits $(R)/$(1).culprits.json --out $(R)/$(1).culprits.png
endef
REPAIRED := $(patsubst %_mixed.repair,%,$(filter %_mixed.repair,$(DECISIONS)))
$(foreach variant,$(REPAIRED),$(eval $(call repair,$(variant))))

$(R)/decided.mk: $(DECISIONS:%=$(R)/%.json)
	$(Q){ echo 'MADE := '`grep -lE '^ "made": true' $(if $^,$^,/dev/null) | sed -E 's/.*\/([a-z0-9_]+)\.[a-z]+\.json$$/\1/'`; } > $@.tmp && mv $@.tmp $@

# An engine is built with nothing beside it: trtexec times the layers. The order of two is that of
# their names, and the cache spares the second build what the first one timed.
define engine
$(call artefact,$(1)): $(call onnx_of,$(1)) $(TOML) $(call code,backends/tensorrt/build_engine,tensorrt) | $(foreach earlier,$(filter-out $(1),$(firstword $(TRT))),$(call artefact,$(earlier)))
	$(Q)$(call in,tensorrt) scripts.backends.tensorrt.build_engine $(TOML) --variant $(1) --model $$< --timing-cache results/.timing-$(RELEASE).cache --log $(R)/$(1).build.log --out $$@
endef
$(foreach variant,$(TRT),$(eval $(call engine,$(variant))))

$(TRT:%=$(R)/%.precision.json): $(R)/%.precision.json: $(REPO)/$(CASE)_%/1/model.plan $(TOML) $(R)/samples.json $(call code,backends/tensorrt/prove,tensorrt)
	$(Q)$(call in,tensorrt) scripts.backends.tensorrt.prove $(TOML) --variant $* --samples $(R)/samples.json --model $< --out $@

define config
$(REPO)/$(CASE)_$(1)/config.pbtxt: $(call ends_of,$(1)) $(TOML) $(call code,triton/write_config,pytorch)
	$(Q)$(call in,pytorch) scripts.triton.write_config $(TOML) --variant $(1) --model $$< --gpu $(GPU) --out $$@
endef
$(foreach variant,$(CONVERTED),$(eval $(call config,$(variant))))

# The largest value of every inner tensor on the whole test set: what float16 cannot hold.
$(R)/onnx_fp32.range.json: $(REPO)/$(CASE)_onnx_fp32/1/model.onnx $(R)/samples.json $(TOML) $(call code,backends/onnxruntime/check_range,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.check_range $(TOML) --samples $(R)/samples.json --model $< --mode $(MODE) --device $(DEVICE) --out $@

ranged = $(if $(filter onnx_fp16%,$(1)),$(R)/onnx_fp32.range.json)
define precision
$(R)/$(1).precision.json: $(call artefact,$(1)) $(call ranged,$(1)) $(call code,backends/onnxruntime/prove,pytorch)
	$(Q)$(call in,pytorch) scripts.backends.onnxruntime.prove --variant $(1) --model $$< $(addprefix --range ,$(call ranged,$(1))) --out $$@
endef
$(foreach variant,$(SCRIPTED) $(ONNX),$(eval $(call precision,$(variant))))

define score
$(call pair,$(R)/$(1).logits.npy,$(R)/$(1).score.json)
$(R)/$(1).logits.npy $(R)/$(1).score.json &: $(R)/samples.json $(R)/torch_fp32.check.json $(call artefact,$(1)) $(MODEL) $(call code,score/score_variant,$(call image_of,$(1)))
	$(Q)$(call in,$(call image_of,$(1))) scripts.score.score_variant $(TOML) --variant $(1) --samples $(R)/samples.json --model $(call artefact,$(1)) --mode $(MODE) --device $(DEVICE) --out $(R)/$(1).logits.npy
endef
$(foreach variant,$(VARIANTS),$(eval $(call score,$(variant))))

$(R)/torch_fp32.threshold.json: $(TOML) $(R)/torch_fp32.logits.npy $(R)/labels.npy $(call code,verdicts/choose_threshold,pytorch)
	$(Q)$(call in,pytorch) scripts.verdicts.choose_threshold $(TOML) --logits $(R)/torch_fp32.logits.npy --labels $(R)/labels.npy --out $@

COMPARED := $(R)/torch_fp32.logits.npy $(R)/torch_fp32.threshold.json
$(VARIANTS:%=$(R)/%.verdicts.json): $(R)/%.verdicts.json: $(R)/%.logits.npy $(COMPARED) $(R)/labels.npy $(R)/samples.json $(call code,verdicts/compare_verdicts,pytorch)
	$(Q)$(call in,pytorch) scripts.verdicts.compare_verdicts --variant $* --logits $< --reference $(R)/torch_fp32.logits.npy --labels $(R)/labels.npy --samples $(R)/samples.json --threshold $(R)/torch_fp32.threshold.json --out $@

define deviation
$(call drawn,$(R)/$(1).deviation.png)
$(R)/$(1).deviation.png: $(R)/$(1).logits.npy $(COMPARED) $(call code,report/plot_deviation,pytorch)
	$(Q)$(call in,pytorch) scripts.report.plot_deviation --variant $(1) --logits $(R)/$(1).logits.npy --reference $(R)/torch_fp32.logits.npy --threshold $(R)/torch_fp32.threshold.json --out $(R)/$(1).deviation.png
endef
$(foreach variant,$(CONVERTED),$(eval $(call deviation,$(variant))))

# Again under other conditions: other slots, an odd batch, alone; the reference's own noise.
define repeats
$(R)/$(1).repeats.json: $(R)/$(1).logits.npy $(R)/$(1).verdicts.json $(call artefact,$(1)) $(MODEL) $(R)/samples.json $(call code,score/repeat_scoring,$(call image_of,$(1)))
	$(Q)$(call in,$(call image_of,$(1))) scripts.score.repeat_scoring $(TOML) --variant $(1) --samples $(R)/samples.json --model $(call artefact,$(1)) --mode $(MODE) --device $(DEVICE) --logits $$< --verdicts $(R)/$(1).verdicts.json --out $$@
endef
$(foreach variant,$(VARIANTS),$(eval $(call repeats,$(variant))))

$(eval $(call drawn,$(R)/threshold.png))
$(R)/threshold.png: $(COMPARED) $(R)/labels.npy $(call code,report/plot_threshold,pytorch)
	$(Q)$(call in,pytorch) scripts.report.plot_threshold --logits $(R)/torch_fp32.logits.npy --labels $(R)/labels.npy --threshold $(R)/torch_fp32.threshold.json --out $(R)/threshold.png

# Layer by layer: each variant that is made from an ONNX one, against that one.
LAYERED := $(filter-out onnx_fp32 torchscript_%,$(CONVERTED))
layer_source = $(call artefact,$(if $(filter trt_%,$(1)),$(1:trt_%=onnx_%),onnx_fp32))
define layers
$(R)/$(1).layers.json: $(call artefact,$(1)) $(call layer_source,$(1)) $(R)/$(1).logits.npy $(COMPARED) $(R)/samples.json $(TOML) $(call code,score/compare_layers,$(call image_of,$(1)))
	$(Q)$(call in,$(call image_of,$(1))) scripts.score.compare_layers $(TOML) --variant $(1) --samples $(R)/samples.json --model $$< --source $(call layer_source,$(1)) --logits $(R)/$(1).logits.npy --reference $(R)/torch_fp32.logits.npy --threshold $(R)/torch_fp32.threshold.json --out $$@

$(call drawn,$(R)/$(1).layers.png)
$(R)/$(1).layers.png: $(R)/$(1).layers.json $(call code,report/plot_layers,pytorch)
	$(Q)$(call in,pytorch) scripts.report.plot_layers $(R)/$(1).layers.json --out $(R)/$(1).layers.png
endef
$(foreach variant,$(LAYERED),$(eval $(call layers,$(variant))))


# Through a real Triton, from the model repository as it is.
define served
$(R)/$(1).served.json: $(call artefact,$(1)) $(REPO)/$(CASE)_$(1)/config.pbtxt $(R)/$(1).logits.npy $(R)/$(1).verdicts.json $(R)/samples.json $(TOML) $(call code,triton/score_served,tritonserver)
	$(Q)$(call in,tritonserver) scripts.triton.score_served $(TOML) --variant $(1) --samples $(R)/samples.json --repository $(REPO) --mode $(MODE) --device $(DEVICE) --logits $(R)/$(1).logits.npy --verdicts $(R)/$(1).verdicts.json --log $(R)/$(1).server.log --out $$@
endef
SERVABLE := $(if $(filter yes,$(SERVED)),$(CONVERTED))
$(foreach variant,$(SERVABLE),$(eval $(call served,$(variant))))

PICTURES := $(R)/threshold.png $(REPAIRED:%=$(R)/%.culprits.png) $(CONVERTED:%=$(R)/%.deviation.png) $(LAYERED:%=$(R)/%.layers.png)
FOUND := $(LAYERED:%=$(R)/%.layers.json) $(foreach step,verdicts repeats score,$(VARIANTS:%=$(R)/%.$(step).json)) $(CONVERTED:%=$(R)/%.precision.json) $(SERVABLE:%=$(R)/%.served.json) $(DECISIONS:%=$(R)/%.json) $(REPAIRED:%=$(R)/%.culprits.json) $(if $(filter onnx_fp32,$(VARIANTS)),$(R)/onnx_fp32.range.json)
CONFIGS := $(CONVERTED:%=$(REPO)/$(CASE)_%/config.pbtxt)

# What is claimed of new data; served verdicts count where Triton was asked.
TRAFFIC := $(if $(UNLABELLED),$(R)/traffic.json)
ifneq ($(TRAFFIC),)
$(TRAFFIC): $(TOML) $(DATA) $(call code,data/read_traffic,pytorch)
	$(Q)$(call in,pytorch) scripts.data.read_traffic $(TOML) --out $@

define traffic
$(R)/$(1).traffic.npy: $(TRAFFIC) $(R)/torch_fp32.check.json $(call artefact,$(1)) $(MODEL) $(call code,score/score_variant,$(call image_of,$(1)))
	$(Q)$(call in,$(call image_of,$(1))) scripts.score.score_variant $(TOML) --variant $(1) --samples $(TRAFFIC) --model $(call artefact,$(1)) --mode $(MODE) --device $(DEVICE) --out $$@
endef
$(foreach variant,$(VARIANTS),$(eval $(call traffic,$(variant))))
endif

ifneq ($(shell sed -nE 's/^ "served": "(.*)",?$$/\1/p' $(R)/claims.json 2>/dev/null),$(SERVED))
.PHONY: $(R)/claims.json
endif
CLAIMED := $(foreach end,logits.npy verdicts.json repeats.json $(if $(TRAFFIC),traffic.npy),$(VARIANTS:%=$(R)/%.$(end)))
$(R)/claims.json: $(TOML) $(R)/samples.json $(CLAIMED) $(SERVABLE:%=$(R)/%.served.json) $(if $(SERVABLE),$(R)/served_latency.json) $(call code,verdicts/state_claims,pytorch)
	$(Q)$(call in,pytorch) scripts.verdicts.state_claims $(TOML) --results $(R) --samples $(R)/samples.json --served $(SERVED) --out $@ $(CONVERTED)

# Timed when nothing else is left to run, also under make -j: first what runs in the pytorch image,
# interleaved; then TensorRT, in its own.
$(R)/latency.json: $(filter-out %.plan,$(ARTEFACTS)) $(TOML) $(R)/samples.json $(call code,score/measure_latency,pytorch) | $(FOUND) $(PICTURES) $(CONFIGS)
	$(Q)$(call in,pytorch) scripts.score.measure_latency $(TOML) --mode $(MODE) --device $(DEVICE) --samples $(R)/samples.json --out $@ $(foreach variant,$(filter-out $(TRT),$(VARIANTS)),$(variant)=$(call artefact,$(variant)))

LATENCY := $(R)/latency.json $(if $(TRT),$(R)/latency_tensorrt.json)
$(R)/latency_tensorrt.json: $(filter %.plan,$(ARTEFACTS)) $(TOML) $(R)/samples.json $(call code,score/measure_latency,tensorrt) | $(R)/latency.json
	$(Q)$(call in,tensorrt) scripts.score.measure_latency $(TOML) --mode $(MODE) --device $(DEVICE) --samples $(R)/samples.json --out $@ $(foreach variant,$(TRT),$(variant)=$(call artefact,$(variant)))

$(R)/served_latency.json: $(foreach variant,$(SERVABLE),$(call artefact,$(variant)) $(REPO)/$(CASE)_$(variant)/config.pbtxt $(R)/$(variant).verdicts.json) $(TOML) $(R)/samples.json $(call code,triton/measure_served,tritonserver) | $(LATENCY)
	$(Q)$(call in,tritonserver) scripts.triton.measure_served $(TOML) --samples $(R)/samples.json --repository $(REPO) --results $(R) --mode $(MODE) --device $(DEVICE) --out $@ $(SERVABLE)

# perf_analyzer, of NVIDIA's SDK image, asks a server of the variant's own: first the one, then the
# next, when nothing else runs. Neither container outlives the recipe, whatever ends it.
PERF := $(if $(filter docker,$(MODE)),$(SERVABLE:%=$(R)/%.perf.json))
define perf
$(R)/$(1).perf.json: $(call artefact,$(1)) $(REPO)/$(CASE)_$(1)/config.pbtxt | $(R)/served_latency.json $(EARLIER)
EARLIER := $(R)/$(1).perf.json
endef
EARLIER :=
$(foreach variant,$(if $(PERF),$(SERVABLE)),$(eval $(call perf,$(variant))))
$(PERF): $(R)/%.perf.json: $(TOML) $(R)/samples.json $(call code,triton/measure_perf_analyzer,client) $(call code,triton/serve_variant,tritonserver)
	$(Q)server=verdict-$(CASE)-$*-$$RANDOM$$RANDOM; \
	trap 'trap "" INT TERM; docker rm --force "$$server-client" "$$server" >/dev/null 2>&1 || :' EXIT; \
	trap 'exit 130' INT; trap 'exit 143' TERM; \
	$(call container,tritonserver,beside) python3 -m scripts.triton.serve_variant $(CASE) --variant $* --repository $(REPO) --log $(R)/$*.perf.log --ports 8000 8001 8002 >/dev/null; \
	until [[ "`docker logs "$$server" 2>/dev/null`" == *ready:* ]]; do \
	  [[ "`docker inspect --format '{{.State.Running}}' "$$server"`" == true ]] || { docker logs "$$server" >&2; exit 1; }; sleep 0.2; \
	done; \
	$(call container,client,asks) python3 -m scripts.triton.measure_perf_analyzer $(TOML) --variant $* --samples $(R)/samples.json --repository $(REPO) --http 127.0.0.1:8000 --grpc 127.0.0.1:8001 --mode $(MODE) --device $(DEVICE) --out $@ & \
	wait $$! || { timeout 20 docker wait "$$server" >/dev/null || :; docker logs "$$server" 2>&1 >/dev/null | tail -n 3 >&2; exit 1; }

# A report of other settings is drawn up anew: that step refuses to mix results and says what to do.
PLACE := $(MODE) $(GPU) $(if $(filter docker,$(MODE)),$(RELEASE),none) $(SERVED)
ifneq ($(shell sed -nE 's/^  "(mode|gpu|release|served)": "(.*)",?$$/\2/p' $(R)/report.json 2>/dev/null),$(PLACE))
.PHONY: $(R)/report.json
endif
PROMOTION := $(R)/promotion.json
VARIANT ?=
ifneq ($(filter promote,$(MAKECMDGOALS)),)
.PHONY: $(PROMOTION)
$(PROMOTION): $(call where,pytorch)
	$(Q)$(call in,pytorch) scripts.release.promote_variant --variant "$(VARIANT)" --out $@
endif
$(R)/report.json: $(if $(filter promote,$(MAKECMDGOALS)),$(PROMOTION),$(wildcard $(PROMOTION)))
$(R)/report.json: $(R)/decided.mk $(FOUND) $(if $(CONVERTED),$(R)/claims.json) $(LATENCY) $(if $(SERVABLE),$(R)/served_latency.json) $(PERF) $(TOML) $(call code,release/conclude,pytorch)
	$(Q)$(call in,pytorch) scripts.release.conclude $(TOML) --results $(R) --mode $(MODE) --why-mode "$(WHY_MODE)" --gpu $(GPU) --why-gpu "$(WHY_GPU)" --release $(word 3,$(PLACE)) --served $(SERVED) --out $@

$(R)/report.md: $(R)/report.json $(PICTURES) $(call code,report/write_report,pytorch)
	$(Q)$(call in,pytorch) scripts.report.write_report $< --out $@

$(R)/report.html: $(R)/report.json $(PICTURES) $(R)/torch_fp32.logits.npy $(R)/samples.json $(R)/labels.npy $(TOML) $(call code,report/write_html,pytorch)
	$(Q)$(call in,pytorch) scripts.report.write_html $< --case $(TOML) --samples $(R)/samples.json --out $@

# results/report.md is the report of the case that was run last; its first line says which.
ifneq ($(shell sed -n 1p results/report.md 2>/dev/null),\# Verdict report: $(CASE))
.PHONY: results/report.md
endif
results/report.md: $(R)/report.json $(R)/report.md $(call code,report/write_report,pytorch)
	$(Q)$(call in,pytorch) scripts.report.write_report $< --pictures $(CASE)/ --out $@

PUBLISHED := $(addprefix $(REPO)/$(CASE),/[1-9]*/model.* /[1-9]*.json _decision/[1-9]*/model.py _decision/[1-9]*/heads.py \
	$(foreach end,_decision _verdict,$(end)/config.pbtxt) $(foreach end,/ _decision/ _verdict/,$(end)[1-9]*.pbtxt))
ifneq ($(strip $(foreach pattern,$(PUBLISHED),$(if $(wildcard $(pattern)),,missing))),)
.PHONY: $(REPO)/$(CASE)/config.pbtxt
endif
$(REPO)/$(CASE)/config.pbtxt: $(R)/report.json $(R)/report.md $(CONFIGS) $(ARTEFACTS) scripts/release/decision.py scripts/verdicts/heads.py $(call code,release/publish_model,pytorch)
	$(Q)$(call in,pytorch) scripts.release.publish_model $(TOML) --report $< --repository $(REPO) --out $@

# Asked once for each report: make rollback may put an earlier version in its place.
$(R)/production.json: $(R)/report.json $(R)/samples.json $(TOML) $(call code,release/check_production,tritonserver) | $(REPO)/$(CASE)/config.pbtxt
	$(Q)$(call in,tritonserver) scripts.release.check_production $(TOML) --samples $(R)/samples.json --repository $(REPO) --results $(R) --mode $(MODE) --device $(DEVICE) --out $@

# ---- the other verbs -----------------------------------------------------------------------------
.PHONY: all gate compare serve promote rollback new doctor images test lint bench clean help

doctor: ## what this machine has and lacks for MODE and GPU
	@$(DOCTOR) --ports $(HTTP_PORT) $(GRPC_PORT) $(METRICS_PORT)

images: $(foreach image,$(IMAGES),$(call image_file,$(image))) ## build the four container images now (MODE=docker)

serve: $(call where,tritonserver) $(wildcard $(R)/request.json) ## Triton with the production model, on 127.0.0.1, until Ctrl-C
	$(Q)$(if $(filter docker,$(MODE)),$(call container,tritonserver,serve) python3 -m,$(VENV)/bin/python -m) scripts.triton.serve_models $(CASE) --repository $(REPO) --models $(SERVE) --request $(R)/request.json --log $(if $(filter docker,$(MODE)),/caches,$(R))/server.log --ports $(HTTP_PORT) $(GRPC_PORT) $(METRICS_PORT)

promote: results/report.md $(REPO)/$(CASE)/config.pbtxt ## put VARIANT into production, whatever the report recommends

gate: results/report.md $(R)/report.html ## may the recommended variant be released? 0: yes; else make fails, and says why
	$(Q)$(PYTHON) -m scripts.release.decide_release $(R)/report.json

OLD ?=
compare: $(R)/report.json ## what changed since an earlier report: make compare OLD=path/report.json
	$(Q)$(call in,pytorch) scripts.report.compare_reports "$(OLD)" $(R)/report.json

rollback: $(call where,pytorch) ## put the production model one version back
	$(Q)$(call in,pytorch) scripts.release.rollback_model $(CASE) --repository $(REPO)

new: $(call where,pytorch) ## write a commented data/CASE/case.toml to fill in
	$(Q)$(call in,pytorch) scripts.case.new_case data/$(CASE)

test: lint $(TRITON) ## ruff, mypy, hadolint, shellcheck and all tests
	$(VENV)/bin/python -m pytest tests

lint: $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/hadolint docker/*.Dockerfile
	$(VENV)/bin/shellcheck .ci/run

bench: $(TRITON) ## measure our own speed and memory: a table, and results/bench.json
	$(Q)$(VENV)/bin/python -m scripts.bench.run_bench --out results/bench.json

clean: ## remove what was made for CASE; its data stays
	rm -rf $(R) $(REPO)/$(CASE)_* results/report.md

help: ## this list, and the settings
	@echo "Verdict: from a trained .pth to a Triton model that gives the same verdicts."
	@echo
	@sed -nE 's/^([a-z]+):.* ## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
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
	@echo "  V=$(V)   V=1 shows each command"
