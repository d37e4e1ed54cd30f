"""API keys: their text, how they are stored, who may use them. Knows nothing of HTTP."""
