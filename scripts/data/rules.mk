# The samples of the case, labelled and not.
$(eval $(call pair,$(R)/samples.json $(R)/labels.npy))
.PRECIOUS: $(R)/samples.json $(R)/labels.npy
$(R)/samples.json $(R)/labels.npy &: $(DATA) $(call needs,data/read_samples)
	$(call step,data/read_samples,,,$(R)/samples.json)

TRAFFIC := $(if $(UNLABELLED),$(R)/traffic.json)
ifneq ($(TRAFFIC),)
$(TRAFFIC): $(DATA) $(call needs,data/read_traffic)
	$(call step,data/read_traffic)
endif
