# TorchScript, traced from the .pth. Its inputs and outputs are those that were checked.
SCRIPTED := $(call of_backend,pytorch)
config_source_pytorch = $(CHECK)

$(REPO)/$(CASE)_torchscript_fp32/1/model.pt: $(CHECK) $(MODEL) $(R)/samples.json \
		$(call needs,backends/pytorch/trace_torchscript)
	$(call step,backends/pytorch/trace_torchscript)

define prove_torchscript
$(R)/$(1).precision.json: $(call artefact,$(1)) $(call needs,backends/pytorch/prove)
	$$(call step,backends/pytorch/prove,,--variant $(1) --model $$<)
endef
$(foreach variant,$(SCRIPTED),$(eval $(call prove_torchscript,$(variant))))

FOUND += $(SCRIPTED:%=$(R)/%.precision.json)
