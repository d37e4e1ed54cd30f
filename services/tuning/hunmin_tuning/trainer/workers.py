"""The processes that train together, as torchrun starts them; one alone needs no torch.distributed."""

import os
from typing import TypeVar

import torch
import torch.distributed as dist

# Its functions take the group that there is at their import as their default, and torch's optimizers import them. After
# init_process_group they would keep the group past `close`, and its threads into the interpreter's end, where one that
# frees a tensor aborts the process.
import torch.distributed.nn
from torch import Tensor

ItemT = TypeVar("ItemT")


class Workers:
    """`size` processes, of which this is number `rank`. The first one writes."""

    def __init__(self) -> None:
        """Join the others, if the environment that torchrun sets names any."""
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = "cpu"
        if torch.cuda.is_available():
            self.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("gloo" if self.device == "cpu" else "nccl")

    @property
    def is_first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def mine(self, items: list[ItemT]) -> list[ItemT]:
        """Return this one's part of what all have."""
        return items[self.rank :: self.size]

    def sum(self, part: Tensor) -> Tensor:
        """Return the sum over all, in each the same."""
        if self.size > 1:
            dist.all_reduce(part)
        return part

    def gather(self, mine: list[ItemT]) -> list[ItemT]:
        """Return what `mine` took apart, of all and in order; in each the same."""
        if self.size == 1:
            return mine
        parts: list[list[ItemT]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, mine)
        return [part[place] for place in range(len(parts[0])) for part in parts if place < len(part)]

    def of_first(self, content: bytes | None) -> bytes | None:
        """Return in each what the first one gives: the others may have no disk in common with it."""
        if self.size == 1:
            return content
        given = [content]
        dist.broadcast_object_list(given, src=0)
        return given[0]

    def close(self) -> None:
        """Leave the others."""
        if self.size > 1:
            dist.destroy_process_group()
