"""p-tuning jobs: states, leases, the places they run in."""
