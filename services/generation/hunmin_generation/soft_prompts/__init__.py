"""Soft prompts of accounts: registry, files, and those whose rows are in memory."""
