"""The job: trains a prompt encoder over a frozen model. Runs as a process of its own; knows no HTTP and no database."""
