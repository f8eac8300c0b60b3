# Through a real Triton, from the model repository as it is.
$(R)/request.json: $(R)/samples.json $(call needs,triton/write_request)
	$(call step,triton/write_request)

# Each backend says from which file its configuration takes the inputs and outputs.
config_source = $(call config_source_$(call backend_of,$(1)),$(1))
define config
$(REPO)/$(CASE)_$(1)/config.pbtxt: $(call config_source,$(1)) \
		$(call needs,triton/write_config $(call part_of,$(1),config))
	$$(call step,triton/write_config,,--variant $(1) --model $$< --gpu $(GPU))
endef
$(foreach variant,$(CONVERTED),$(eval $(call config,$(variant))))

define served
$(R)/$(1).served.json: $(call artefact,$(1)) $(REPO)/$(CASE)_$(1)/config.pbtxt $(R)/$(1).logits.npy \
		$(R)/$(1).verdicts.json $(R)/samples.json $(call needs,triton/score_served,tritonserver)
	$$(call step,triton/score_served,tritonserver,--variant $(1) --repository $(REPO) \
		--logits $(R)/$(1).logits.npy --verdicts $(R)/$(1).verdicts.json --log $(R)/$(1).server.log)
endef
$(foreach variant,$(SERVABLE),$(eval $(call served,$(variant))))
FOUND += $(SERVABLE:%=$(R)/%.served.json)

served_from = $(call artefact,$(1)) $(REPO)/$(CASE)_$(1)/config.pbtxt $(R)/$(1).verdicts.json
LOADED := $(foreach one,$(SERVABLE),$(call served_from,$(one)))
$(R)/served_latency.json: $(LOADED) $(R)/samples.json $(call needs,triton/measure_served,tritonserver)
	$(call step,triton/measure_served,tritonserver,--repository $(REPO) --results $(R) $(SERVABLE))
TIMED += $(if $(SERVABLE),$(R)/served_latency.json)

# perf_analyzer, of NVIDIA's SDK image, asks a server of the variant's own. Neither container outlives
# the recipe, whatever ends it.
PERF := $(if $(filter docker,$(MODE)),$(SERVABLE:%=$(R)/%.perf.json))
TIMED += $(PERF)
$(PERF): $(R)/%.perf.json: $(R)/samples.json $(call needs,triton/measure_perf_analyzer,client) \
		$(call code,triton/serve_variant,tritonserver)
	$(Q)server=verdict-$(CASE)-$*-$$RANDOM$$RANDOM; \
	trap 'trap "" INT TERM; docker rm --force "$$server-client" "$$server" >/dev/null 2>&1 || :' EXIT; \
	trap 'exit 130' INT; trap 'exit 143' TERM; \
	$(call in,tritonserver,beside) scripts.triton.serve_variant $(CASE) --variant $* --repository $(REPO) \
	  --log $(R)/$*.perf.log --ports 8000 8001 8002 >/dev/null; \
	until [[ "`docker logs "$$server" 2>/dev/null`" == *ready:* ]]; do \
	  [[ "`docker inspect --format '{{.State.Running}}' "$$server"`" == true ]] || \
	    { docker logs "$$server" >&2; exit 1; }; sleep 0.2; \
	done; \
	$(call in,client,asks) scripts.triton.measure_perf_analyzer $(TOML) --variant $* \
	  --samples $(R)/samples.json --repository $(REPO) --http 127.0.0.1:8000 --grpc 127.0.0.1:8001 \
	  --mode $(MODE) --device $(DEVICE) --out $@ & \
	wait $$! || { timeout 20 docker wait "$$server" >/dev/null || :; \
	  docker logs "$$server" 2>&1 >/dev/null | tail -n 3 >&2; exit 1; }
$(foreach one,$(if $(PERF),$(SERVABLE)),$(eval \
	$(R)/$(one).perf.json: $(call artefact,$(one)) $(REPO)/$(CASE)_$(one)/config.pbtxt))

.PHONY: serve
SERVER_LOG := $(if $(filter docker,$(MODE)),/caches,$(R))/server.log
REQUEST := $(wildcard $(R)/request.json)
serve: $(call where,tritonserver) $(REQUEST) ## Triton with the production model, on 127.0.0.1, until Ctrl-C
	$(Q)$(call in,tritonserver,serve) scripts.triton.serve_models $(CASE) --repository $(REPO) --models $(SERVE) \
		--request $(R)/request.json --log $(SERVER_LOG) --ports $(HTTP_PORT) $(GRPC_PORT) $(METRICS_PORT)
