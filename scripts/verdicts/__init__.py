"""Numbers: heads, thresholds, policies, bounds, claims."""
