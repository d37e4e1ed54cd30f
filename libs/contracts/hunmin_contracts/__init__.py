"""What services say to each other: ids, errors, endpoints, one module per service. Knows pydantic and nothing else."""
