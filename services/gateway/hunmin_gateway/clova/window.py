"""A chat whose oldest turns are left out until the others fit. Pure but for what tells whether they do."""

from collections.abc import Awaitable, Callable, Sequence

from hunmin_contracts.generation import Message


class Window:
    """A chat in turns: a message of the user, and what follows it up to the next one. What is the system's stays."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        turn = -1
        self._turns: list[int | None] = []  # the turn of each message; None: it is the system's
        for message in self._messages:
            if message.role == "user" or turn < 0:
                turn += message.role != "system"
            self._turns.append(None if message.role == "system" else turn)
        self.most = max(turn, 0)  # turns that can be left out: all but the last

    def without(self, left_out: int) -> list[Message]:
        """Return the chat without that many of its oldest turns."""
        return [
            message
            for message, turn in zip(self._messages, self._turns, strict=True)
            if turn is None or turn >= left_out
        ]

    async def fewest(self, fits: Callable[[int], Awaitable[bool]]) -> int:
        """Return how few turns are to be left out, by bisection; `fits` raises where the most are too few."""
        if await fits(0):
            return 0
        too_few, enough = 0, self.most
        await fits(enough)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if await fits(middle):
                enough = middle
            else:
                too_few = middle
        return enough
