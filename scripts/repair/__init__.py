"""Which nodes flip verdicts, and the fewest to leave in float32."""
