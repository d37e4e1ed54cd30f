"""What each request used, one row per request. Knows nothing of HTTP."""
