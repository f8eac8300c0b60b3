# The conclusion, and what follows from it: the production model, checked as it was published.
# A report of other settings is drawn up anew: that step refuses to mix results and says what to do.
RELEASED := $(if $(filter docker,$(MODE)),$(RELEASE),none)
PLACE := $(MODE) $(GPU) $(RELEASED) $(SERVED)
PLACE_BEFORE := $(shell sed -nE 's/^  "(mode|gpu|release|served)": "(.*)",?$$/\2/p' $(R)/report.json 2>/dev/null)
ifneq ($(PLACE_BEFORE),$(PLACE))
.PHONY: $(R)/report.json
endif

PROMOTION := $(R)/promotion.json
PROMOTING := $(filter promote,$(MAKECMDGOALS))
ifneq ($(PROMOTING),)
.PHONY: $(PROMOTION)
$(PROMOTION): $(call where)
	$(call program,release/promote_variant) --variant "$(VARIANT)" --out $@
endif

CONCLUDED := $(FOUND) $(if $(CONVERTED),$(R)/claims.json) $(TIMED)
CONCLUDED += $(if $(PROMOTING),$(PROMOTION),$(wildcard $(PROMOTION)))
# A tie between two is settled by what their backends say of themselves, too.
TIES := $(sort $(foreach one,$(CONVERTED),$(call part_of,$(one),config)))
$(R)/report.json: $(R)/decided.mk $(CONCLUDED) $(call needs,release/conclude $(TIES))
	$(call step,release/conclude,,--results $(R) --why-mode "$(WHY_MODE)" --gpu $(GPU) --why-gpu "$(WHY_GPU)" \
		--release $(RELEASED) --served $(SERVED))

VERSION_FILES := $(addprefix $(REPO)/$(CASE),/[1-9]*/model.* /[1-9]*.json _decision/[1-9]*/model.py \
	_decision/[1-9]*/heads.py $(foreach end,_decision _verdict,$(end)/config.pbtxt) \
	$(foreach end,/ _decision/ _verdict/,$(end)[1-9]*.pbtxt))
ifneq ($(strip $(foreach pattern,$(VERSION_FILES),$(if $(wildcard $(pattern)),,missing))),)
.PHONY: $(REPO)/$(CASE)/config.pbtxt
endif
DECISION := scripts/release/decision.py scripts/verdicts/heads.py
$(REPO)/$(CASE)/config.pbtxt: $(R)/report.json $(R)/report.md $(CONFIGS) $(ARTEFACTS) $(DECISION) \
		$(call needs,release/publish_model)
	$(call step,release/publish_model,,--report $< --repository $(REPO))

# Asked once for each report: make rollback may put an earlier version in its place.
$(R)/production.json: $(R)/report.json $(R)/samples.json $(call needs,release/check_production,tritonserver) \
		| $(REPO)/$(CASE)/config.pbtxt
	$(call step,release/check_production,tritonserver,--repository $(REPO) --results $(R))

.PHONY: gate promote rollback
gate: results/report.md $(R)/report.html ## may the recommended variant be released? Else make fails, and says why
	$(Q)$(PYTHON) -m scripts.release.decide_release $(R)/report.json

promote: results/report.md $(REPO)/$(CASE)/config.pbtxt ## put VARIANT into production, whatever the report recommends

rollback: $(call where) ## put the production model one version back
	$(call program,release/rollback_model) $(CASE) --repository $(REPO)
