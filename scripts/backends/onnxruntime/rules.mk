# ONNX: exported in float32, and from that in lower number formats.
ONNX := $(call of_backend,onnxruntime)
ONNX_FP32 := $(REPO)/$(CASE)_onnx_fp32/1/model.onnx
onnx_file = $(REPO)/$(CASE)_onnx_$(1)/1/model.onnx
config_source_onnxruntime = $(call artefact,$(1))

$(ONNX_FP32): $(CHECK) $(MODEL) $(R)/samples.json $(call needs,backends/onnxruntime/convert_fp32)
	$(call step,backends/onnxruntime/convert_fp32)

$(call onnx_file,fp16): $(ONNX_FP32) $(call needs,backends/onnxruntime/convert_fp16)
	$(call step,backends/onnxruntime/convert_fp16,,--model $<)

$(call onnx_file,int8): $(ONNX_FP32) $(R)/samples.json $(R)/labels.npy $(call needs,backends/onnxruntime/convert_int8)
	$(call step,backends/onnxruntime/convert_int8,,--model $<)

# Whether the runtime computes in bfloat16.
SUPPORT := $(R)/onnx_bf16.support.json
$(SUPPORT): $(ONNX_FP32) $(R)/samples.json $(call needs,backends/onnxruntime/check_bfloat16)
	$(call step,backends/onnxruntime/check_bfloat16,,--model $<)

$(call onnx_file,bf16): $(ONNX_FP32) $(SUPPORT) $(call needs,backends/onnxruntime/convert_bf16)
	$(call step,backends/onnxruntime/convert_bf16,,--model $< --support $(SUPPORT))

# With the nodes that a repair keeps left in float32.
MIXED := $(filter %_mixed,$(ONNX))
$(MIXED:%=$(REPO)/$(CASE)_%/1/model.onnx): $(REPO)/$(CASE)_%/1/model.onnx: $(R)/%.repair.json $(ONNX_FP32) \
		$(call needs,backends/onnxruntime/convert_mixed)
	$(call step,backends/onnxruntime/convert_mixed,,--repair $< --source $(ONNX_FP32))

# The largest value of every inner tensor on the whole test set: what float16 cannot hold.
RANGE := $(if $(filter onnx_fp32,$(ONNX)),$(R)/onnx_fp32.range.json)
$(RANGE): $(ONNX_FP32) $(R)/samples.json $(call needs,backends/onnxruntime/check_range)
	$(call step,backends/onnxruntime/check_range,,--model $<)

ranged = $(if $(filter onnx_fp16%,$(1)),$(RANGE))
define prove_onnx
$(R)/$(1).precision.json: $(call artefact,$(1)) $(call ranged,$(1)) $(call needs,backends/onnxruntime/prove)
	$$(call step,backends/onnxruntime/prove,,--variant $(1) --model $$< $(addprefix --range ,$(call ranged,$(1))))
endef
$(foreach variant,$(ONNX),$(eval $(call prove_onnx,$(variant))))

FOUND += $(RANGE) $(ONNX:%=$(R)/%.precision.json)
