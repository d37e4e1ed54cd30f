"""The audit of changes: written in the transaction of each, told as events, and listed. Knows nothing of HTTP."""
