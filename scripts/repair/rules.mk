# Which nodes left in float32 take a variant's flips back; and what steps have decided to make.
REPAIRED := $(patsubst %_mixed.repair,%,$(filter %_mixed.repair,$(DECISIONS)))
define repair
$(call pair,$(R)/$(1)_mixed.repair.json $(R)/$(1).culprits.json)
$(R)/$(1)_mixed.repair.json $(R)/$(1).culprits.json &: $(call source_artefact,$(1)) $(R)/$(1).logits.npy \
		$(COMPARED) $(R)/labels.npy $(R)/samples.json $(call needs,repair/repair_verdicts)
	$$(call step,repair/repair_verdicts,,--variant $(1) --source $(call source_artefact,$(1)) \
		--logits $(R)/$(1).logits.npy --reference $(REFERENCE_LOGITS) --threshold $(THRESHOLD), \
		$(R)/$(1)_mixed.repair.json)
endef
$(foreach variant,$(REPAIRED),$(eval $(call repair,$(variant))))
FOUND += $(DECISIONS:%=$(R)/%.json) $(REPAIRED:%=$(R)/%.culprits.json)

MADE_ONES := sed -E 's/.*\/([a-z0-9_]+)\.[a-z]+\.json$$/\1/'
$(R)/decided.mk: $(DECISIONS:%=$(R)/%.json)
	$(Q){ echo 'MADE := '`grep -lE '^ "made": true' $(or $^,/dev/null) | $(MADE_ONES)`; } > $@.tmp && mv $@.tmp $@
