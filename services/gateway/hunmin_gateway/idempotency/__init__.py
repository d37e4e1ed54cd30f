"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is sent twice is made once.

A route of a caller with a key claims it (`once.py`) before the request is made; the recorder (`recorder.py`) sees the
answer pass, in whatever dialect, and keeps it with the key (`keys.py`) for who asks again. Knows no route.
"""
