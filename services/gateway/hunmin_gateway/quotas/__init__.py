"""Exact quotas: what a call may use at most is reserved before, and settled with its usage after. Knows no dialect."""
