"""Guesses when a job in the queue starts, by going through the queue as runners do. Pure: it knows no table."""

from collections import Counter, deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush


def starts_in_s(
    account_id: str,
    *,
    ahead: Sequence[str],
    running: Sequence[tuple[str, float]],
    duration_s: float,
    slots: int,
    max_running_per_account: int,
) -> float:
    """Return in how many seconds a job of the account starts, if each job takes `duration_s`.

    `ahead` are the accounts of the jobs before it, in order; `running` those of the ones that run, with the seconds
    that are left of each.
    """
    queues: dict[str, deque[int]] = {}
    for number, account in enumerate([*ahead, account_id]):
        queues.setdefault(account, deque()).append(number)
    ends = [(left_s, account) for account, left_s in running]
    heapify(ends)
    busy = Counter(account for account, _ in running)
    now = 0.0
    while True:
        may_start = [account for account, queue in queues.items() if queue and busy[account] < max_running_per_account]
        if may_start and len(ends) < slots:
            number, account = min((queues[account][0], account) for account in may_start)
            if number == len(ahead):
                return now
            queues[account].popleft()
            busy[account] += 1
            heappush(ends, (now + duration_s, account))
        else:
            now, account = heappop(ends)
            busy[account] -= 1
