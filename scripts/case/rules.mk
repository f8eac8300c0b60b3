.PHONY: new
new: $(call where) ## write a commented data/CASE/case.toml to fill in
	$(call program,case/new_case) data/$(CASE)
