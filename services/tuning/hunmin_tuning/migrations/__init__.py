"""The history of schema `tuning`. Unqualified names: the connection's search path is the schema."""
