"""case.toml: its keys and rules, and the commented one to fill in."""
