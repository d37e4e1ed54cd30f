"""What stops a start."""


class StartError(Exception):
    """The process cannot start as it is set up. The message is one line that says what to change."""
