# Engines, each built from an ONNX. An engine has the inputs and outputs of that.
TRT := $(call of_backend,tensorrt)
config_source_tensorrt = $(call source_artefact,$(1))

# An engine is built with nothing beside it: trtexec times the layers. The order of two is that of
# their names, and the cache spares the second build what the first one timed.
define engine
$(call artefact,$(1)): $(call source_artefact,$(1)) $(call needs,backends/tensorrt/build_engine,tensorrt) \
		| $(foreach earlier,$(filter-out $(1),$(firstword $(TRT))),$(call artefact,$(earlier)))
	$$(call step,backends/tensorrt/build_engine,tensorrt,--variant $(1) --model $$< \
		--timing-cache results/.timing-$(RELEASE).cache --log $(R)/$(1).build.log)

$(R)/$(1).precision.json: $(call artefact,$(1)) $(R)/samples.json $(call needs,backends/tensorrt/prove,tensorrt)
	$$(call step,backends/tensorrt/prove,tensorrt,--variant $(1) --model $$<)
endef
$(foreach variant,$(TRT),$(eval $(call engine,$(variant))))

FOUND += $(TRT:%=$(R)/%.precision.json)
