# Every variant in process: its logits, again under other conditions, layer by layer, and timed.
REFERENCE_LOGITS := $(R)/$(REFERENCE).logits.npy
THRESHOLD := $(R)/$(REFERENCE).threshold.json
COMPARED := $(REFERENCE_LOGITS) $(THRESHOLD)
# What runs a variant: its files, and the image or .venv that it runs in.
opened = $(R)/samples.json $(CHECK) $(call artefact,$(1)) $(MODEL)
opening = $(call needs,$(2) $(call part_of,$(1),open),$(call environment_of,$(1)))
OPEN = --variant $(1) --model $(call artefact,$(1))

.PRECIOUS: $(VARIANTS:%=$(R)/%.logits.npy) $(VARIANTS:%=$(R)/%.score.json)
define score
$(call pair,$(R)/$(1).logits.npy $(R)/$(1).score.json)
$(R)/$(1).logits.npy $(R)/$(1).score.json &: $(call opened,$(1)) $(call opening,$(1),score/score_variant)
	$$(call step,score/score_variant,$(call environment_of,$(1)),$(call OPEN,$(1)),$(R)/$(1).logits.npy)

$(R)/$(1).repeats.json: $(R)/$(1).logits.npy $(R)/$(1).verdicts.json $(call opened,$(1)) \
		$(call opening,$(1),score/repeat_scoring)
	$$(call step,score/repeat_scoring,$(call environment_of,$(1)),$(call OPEN,$(1)) \
		--logits $$< --verdicts $(R)/$(1).verdicts.json)
endef
$(foreach variant,$(VARIANTS),$(eval $(call score,$(variant))))

# The same of samples without labels.
define traffic
$(R)/$(1).traffic.npy: $(TRAFFIC) $(call opened,$(1)) $(call opening,$(1),score/score_variant)
	$$(call step,score/score_variant,$(call environment_of,$(1)),$(call OPEN,$(1)) --samples $(TRAFFIC))
endef
$(if $(TRAFFIC),$(foreach variant,$(VARIANTS),$(eval $(call traffic,$(variant)))))

# Layer by layer: each variant that is made from a converted one, against that one.
LAYERED := $(foreach one,$(CONVERTED),$(if $(filter-out $(REFERENCE),$(call source_of,$(one))), \
	$(if $(call has,$(one),layers),$(one))))
define layers
$(R)/$(1).layers.json: $(call artefact,$(1)) $(call source_artefact,$(1)) $(R)/$(1).logits.npy $(COMPARED) \
		$(R)/samples.json \
		$(call needs,score/compare_layers $(call part_of,$(1),layers),$(call environment_of,$(1)))
	$$(call step,score/compare_layers,$(call environment_of,$(1)),$(call OPEN,$(1)) \
		--source $(call source_artefact,$(1)) --logits $(R)/$(1).logits.npy \
		--reference $(REFERENCE_LOGITS) --threshold $(THRESHOLD))
endef
$(foreach variant,$(LAYERED),$(eval $(call layers,$(variant))))

FOUND += $(VARIANTS:%=$(R)/%.score.json) $(VARIANTS:%=$(R)/%.repeats.json) $(LAYERED:%=$(R)/%.layers.json)

# Timed side by side, interleaved: those of one environment in one process, the reference's first.
ENVIRONMENTS := $(call environment_of,$(REFERENCE))
ENVIRONMENTS += $(filter-out $(ENVIRONMENTS),$(sort $(foreach one,$(VARIANTS),$(call environment_of,$(one)))))
latency_of = $(R)/latency$(if $(filter-out $(firstword $(ENVIRONMENTS)),$(1)),_$(1)).json
inside = $(foreach one,$(VARIANTS),$(if $(filter $(1),$(call environment_of,$(one))),$(one)))
define latency
$(call latency_of,$(1)): $(foreach one,$(call inside,$(1)),$(call artefact,$(one))) $(R)/samples.json \
		$(call needs,score/measure_latency $(sort $(foreach one,$(call inside,$(1)),$(call part_of,$(one),open))),$(1))
	$$(call step,score/measure_latency,$(1),$(foreach one,$(call inside,$(1)),$(one)=$(call artefact,$(one))))
endef
$(foreach environment,$(ENVIRONMENTS),$(eval $(call latency,$(environment))))
LATENCY := $(foreach environment,$(ENVIRONMENTS),$(call latency_of,$(environment)))
TIMED += $(LATENCY)
