.PHONY: bench
bench: $(TRITON) ## measure our own speed and memory: a table, and results/bench.json
	$(Q)$(VENV)/bin/python -m scripts.bench.run_bench --out results/bench.json
