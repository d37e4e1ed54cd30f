"""The engine: many requests decoded together on one model. Start reading at `engine.py`."""
