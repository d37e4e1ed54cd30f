"""Batches: requests of a file, made at low priority, in any gateway, each with one result. Knows no dialect's routes.

A batch's life: `store.py` makes it, with an event; a consumer lets the worker (`worker.py`) know. That validates its
file (`reading.py`), makes every line a row, runs them a few at a time as any request is run (`running.py`), and writes
what came of them into files (`results.py`). Whatever is being done is claimed (`statements.py`): a gateway that dies is
followed by another, and whoever comes late writes nothing.
"""
