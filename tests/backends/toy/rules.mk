TOY := $(call of_backend,toy)
config_source_toy = $(call artefact,$(1))

$(REPO)/$(CASE)_toy_fp32/1/model.onnx: $(call source_artefact,toy_fp32) $(call needs,backends/toy/convert_fp32)
	$(call step,backends/toy/convert_fp32,,--model $<)

$(TOY:%=$(R)/%.precision.json): $(R)/%.precision.json: $(REPO)/$(CASE)_%/1/model.onnx $(call needs,backends/toy/prove)
	$(call step,backends/toy/prove,,--variant $* --model $<)

FOUND += $(TOY:%=$(R)/%.precision.json)
