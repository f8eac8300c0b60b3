"""Running a variant in process: logits, repeats, latency, layers."""
