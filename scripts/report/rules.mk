# Pages and pictures, from the results alone. The first picture of a variant is the target; its others, and
# each one's SVG for report.html, are drawn by the same step and lie beside it.
kinds_of = $(if $(filter $(REFERENCE),$(1)),threshold,deviation) $(if $(filter $(LAYERED),$(1)),layers) \
	$(if $(filter $(REPAIRED),$(1)),culprits)
picture = $(R)/$(if $(filter threshold,$(2)),,$(1).)$(2).png
pictures_of = $(foreach kind,$(call kinds_of,$(1)),$(call picture,$(1),$(kind)))
drawn = $(call pictures_of,$(1)) $(patsubst %.png,%.svg,$(call pictures_of,$(1)))
drawn_from = $(R)/$(1).logits.npy $(COMPARED) $(R)/labels.npy \
	$(foreach kind,$(filter layers culprits,$(call kinds_of,$(1))),$(R)/$(1).$(kind).json)
define pictures
$(call missing,$(call drawn,$(1)),$(firstword $(call drawn,$(1))))
$(firstword $(call drawn,$(1))): $(call drawn_from,$(1)) \
		$(call code,report/draw_pictures $(foreach kind,$(call kinds_of,$(1)),report/plot_$(kind)))
	$$(call program,report/draw_pictures) --variant $(1) --results $(R) --reference $(REFERENCE) $(call kinds_of,$(1))
endef
$(foreach variant,$(VARIANTS),$(eval $(call pictures,$(variant))))
PICTURES += $(foreach variant,$(VARIANTS),$(firstword $(call drawn,$(variant))))

HOW := $(sort $(foreach one,$(LAYERED),$(call part_of,$(one),layers)))
$(R)/report.md: $(R)/report.json $(PICTURES) $(call code,report/write_report $(HOW))
	$(call program,report/write_report) $< --out $@

$(R)/report.html: $(R)/report.json $(PICTURES) $(REFERENCE_LOGITS) $(R)/samples.json $(R)/labels.npy \
		$(call needs,report/write_html $(HOW))
	$(call program,report/write_html) $< --case $(TOML) --samples $(R)/samples.json --out $@

# results/report.md is the report of the case that was run last; its first line says which.
ifneq ($(shell sed -n 1p results/report.md 2>/dev/null),\# Verdict report: $(CASE))
.PHONY: results/report.md
endif
results/report.md: $(R)/report.json $(R)/report.md $(call code,report/write_report $(HOW))
	$(call program,report/write_report) $< --pictures $(CASE)/ --out $@

.PHONY: compare
compare: $(R)/report.json ## what changed since an earlier report: make compare OLD=path/report.json
	$(call program,report/compare_reports) "$(OLD)" $(R)/report.json
