"""How any service runs: web, data, observation, process. Knows no service by name, no Korean, no model."""
