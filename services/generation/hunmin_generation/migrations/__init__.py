"""The history of schema `generation`. Unqualified names: the connection's search path is the schema."""
