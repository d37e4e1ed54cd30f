"""Logs, traces and metrics, the same for every service. None of them ever holds prompt or completion text."""
