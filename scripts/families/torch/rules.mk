# The reference of a case whose model is a .pth.
CHECK := $(R)/$(REFERENCE).check.json

# Asked for only where the file is missing.
$(WEIGHTS):
	@echo "Error: the weights $@ do not exist; put the .pth there, or set weights in $(TOML)." >&2; exit 1

$(CHECK): $(R)/samples.json $(MODEL) $(call needs,families/torch/check_model)
	$(call step,families/torch/check_model)
