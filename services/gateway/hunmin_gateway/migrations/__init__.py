"""The history of schema `gateway`. Unqualified names: the connection's search path is the schema."""
