# Numbers from the logits: the threshold, the verdicts of each variant, what is claimed of new data.
$(THRESHOLD): $(REFERENCE_LOGITS) $(R)/labels.npy $(call needs,verdicts/choose_threshold)
	$(call step,verdicts/choose_threshold,,--logits $< --labels $(R)/labels.npy)

VERDICTS := $(VARIANTS:%=$(R)/%.verdicts.json)
$(VERDICTS): $(R)/%.verdicts.json: $(R)/%.logits.npy $(COMPARED) $(R)/labels.npy $(R)/samples.json \
		$(call code,verdicts/compare_verdicts)
	$(call step,verdicts/compare_verdicts,,--variant $* --logits $< --reference $(REFERENCE_LOGITS) \
		--labels $(R)/labels.npy --threshold $(THRESHOLD))
FOUND += $(VERDICTS)

# Served verdicts count where Triton was asked; claims of another setting are stated anew.
SERVED_BEFORE := $(shell sed -nE 's/^ "served": "(.*)",?$$/\1/p' $(R)/claims.json 2>/dev/null)
ifneq ($(SERVED_BEFORE),$(SERVED))
.PHONY: $(R)/claims.json
endif
CLAIM_FROM := logits.npy verdicts.json repeats.json $(if $(TRAFFIC),traffic.npy)
ASKED := $(if $(SERVABLE),$(SERVABLE:%=$(R)/%.served.json) $(R)/served_latency.json)
$(R)/claims.json: $(R)/samples.json $(foreach end,$(CLAIM_FROM),$(VARIANTS:%=$(R)/%.$(end))) $(ASKED) \
		$(call needs,verdicts/state_claims)
	$(call step,verdicts/state_claims,,--results $(R) --served $(SERVED) $(CONVERTED))
