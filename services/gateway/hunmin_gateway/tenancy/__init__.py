"""Accounts, their projects, and who is a member of them. Knows nothing of HTTP and of no dialect."""
