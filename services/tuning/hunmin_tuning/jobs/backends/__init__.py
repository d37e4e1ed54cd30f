"""Where the process of a job runs: one Protocol, and what is behind it."""
