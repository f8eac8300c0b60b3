.PHONY: doctor
doctor: ## what this machine has and lacks for MODE and GPU
	@$(DOCTOR) --ports $(HTTP_PORT) $(GRPC_PORT) $(METRICS_PORT)
