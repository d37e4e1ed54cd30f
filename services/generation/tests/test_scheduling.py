"""Scheduling under random schedules: no block is lost or shared, the budget holds, nobody is overtaken, all end."""

from dataclasses import dataclass, field

import pytest
from hunmin_generation.engine.blocks import BlockPool
from hunmin_generation.engine.scheduler import Scheduler, Work
from hunmin_generation.engine.sequence import Sequence, Status
from hypothesis import given, settings
from hypothesis import strategies as st

BLOCK_SIZE = 4


@dataclass
class Run:
    """A scheduler whose sequences grow by one token each time their last token is run, as a model would make them."""

    scheduler: Scheduler
    arrived: list[Sequence] = field(default_factory=list)
    seen_positions: dict[Sequence, int] = field(default_factory=dict)

    def arrive(self, prompt: int, max_tokens: int) -> None:
        sequence = Sequence.of(range(prompt), max_tokens=max_tokens)
        self.scheduler.add(sequence)
        self.arrived.append(sequence)

    def step(self) -> list[Work]:
        before = {sequence: sequence.computed for sequence in self.arrived}
        works = self.scheduler.schedule()
        for work in works:
            assert work.start == (before[work.sequence] if before[work.sequence] <= work.start else 0)
        self.check(works)
        for work in works:
            if work.reaches_end and len(work.sequence.tokens) < work.sequence.max_length:
                work.sequence.tokens.append(0)
            if work.reaches_end and len(work.sequence.tokens) >= work.sequence.max_length:
                self.scheduler.finish(work.sequence)
        self.check_blocks()
        return works

    def check(self, works: list[Work]) -> None:
        scheduler = self.scheduler
        assert sum(work.count for work in works) <= scheduler.max_batch_tokens
        assert len(scheduler.running) <= scheduler.max_running
        assert len({id(work.sequence) for work in works}) == len(works)
        for work in works:
            assert work.count > 0
            assert work.sequence.status is Status.RUNNING
            assert work.sequence.computed == work.start + work.count <= len(work.sequence.tokens)
            assert len(work.sequence.blocks) * BLOCK_SIZE >= work.sequence.computed
        order = {sequence: place for place, sequence in enumerate(self.arrived)}
        places = [order[sequence] for sequence in [*scheduler.running, *scheduler.waiting]]
        assert places == sorted(places), "a sequence overtook another"
        self.check_blocks()

    def check_blocks(self) -> None:
        pool = self.scheduler.blocks
        held = [block for sequence in self.arrived for block in sequence.blocks]
        assert len(held) == len(set(held)), "two sequences hold one block"
        assert len(held) + pool.free == pool.count, "a block was lost"
        assert all(sequence.status is Status.RUNNING or not sequence.blocks for sequence in self.arrived)


def new_run(*, blocks: int, budget: int, running: int) -> Run:
    pool = BlockPool(blocks, block_size=BLOCK_SIZE)
    return Run(Scheduler(pool, max_batch_tokens=max(budget, running), max_running=running))


REQUEST = st.tuples(st.integers(1, 24), st.integers(0, 16))
EVENT = st.one_of(REQUEST, st.just("step"), st.just("step"), st.integers(0, 30))


class TestRandomSchedules:
    @settings(max_examples=300, deadline=None)
    @given(
        events=st.lists(EVENT, max_size=60),
        blocks=st.integers(10, 40),
        budget=st.integers(1, 32),
        running=st.integers(1, 8),
    )
    def test_every_sequence_ends_and_every_block_returns(
        self, events: list[tuple[int, int] | str | int], blocks: int, budget: int, running: int
    ) -> None:
        run = new_run(blocks=blocks, budget=budget, running=running)
        cancelled: set[Sequence] = set()
        for event in events:
            if isinstance(event, tuple):
                run.arrive(*event)
            elif isinstance(event, int) and run.arrived:
                sequence = run.arrived[event % len(run.arrived)]
                if sequence.status is not Status.FINISHED:
                    cancelled.add(sequence)
                run.scheduler.finish(sequence)
                run.check_blocks()
            else:
                run.step()
        for _ in range(20_000):
            if all(sequence.status is Status.FINISHED for sequence in run.arrived):
                break
            assert run.step(), "sequences wait, but nothing runs"
        assert run.scheduler.blocks.free == blocks
        assert not run.scheduler.running
        assert not run.scheduler.waiting
        for sequence in set(run.arrived) - cancelled:
            assert len(sequence.tokens) == sequence.max_length

    @settings(max_examples=100, deadline=None)
    @given(requests=st.lists(REQUEST, min_size=2, max_size=12))
    def test_the_oldest_never_gives_up_its_blocks(self, requests: list[tuple[int, int]]) -> None:
        run = new_run(blocks=10, budget=16, running=8)
        for request in requests:
            run.arrive(*request)
        oldest = run.arrived[0]
        while oldest.status is not Status.FINISHED:
            computed = oldest.computed
            run.step()
            assert oldest.computed > computed


class TestOneStep:
    def test_decodes_run_before_prompts(self) -> None:
        run = new_run(blocks=20, budget=8, running=4)
        run.arrive(2, 8)
        run.step()
        run.arrive(20, 4)
        assert [work.count for work in run.step()] == [1, 7]

    def test_a_prompt_longer_than_the_budget_is_run_in_chunks(self) -> None:
        run = new_run(blocks=20, budget=8, running=4)
        run.arrive(20, 1)
        chunks = [run.step() for _ in range(3)]
        assert [[(work.start, work.count) for work in works] for works in chunks] == [[(0, 8)], [(8, 8)], [(16, 4)]]

    def test_the_youngest_is_preempted_and_computed_again(self) -> None:
        run = new_run(blocks=6, budget=32, running=2)
        run.arrive(8, 12)
        run.arrive(8, 8)
        young = run.arrived[1]
        while not run.scheduler.preemptions:
            run.step()
        assert (young.status, young.computed, young.blocks) == (Status.WAITING, 0, [])
        assert young.completion_length > 0

    def test_a_sequence_that_never_fits_is_refused(self) -> None:
        run = new_run(blocks=4, budget=8, running=2)
        with pytest.raises(ValueError, match="never fits"):
            run.arrive(8, 9)

    def test_the_lowest_free_blocks_are_taken_first(self) -> None:
        pool = BlockPool(8, block_size=BLOCK_SIZE)
        first, second = pool.take(3), pool.take(2)
        pool.give_back(first)
        assert (second, pool.take(2), pool.usage) == ([3, 4], [0, 1], 0.5)
        with pytest.raises(ValueError, match="5 blocks"):
            pool.take(5)
