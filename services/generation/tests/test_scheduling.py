"""Scheduling under random schedules: no block is lost or wrongly shared, nobody is overtaken, every sequence ends."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hunmin_generation.engine.blocks import BlockPool, next_key, root_key
from hunmin_generation.engine.scheduler import Scheduler, Work
from hunmin_generation.engine.sequence import Sequence, Status
from hypothesis import given, settings
from hypothesis import strategies as st

BLOCK_SIZE = 4
Content = tuple[bytes, tuple[int, ...]]  # all that a key depends on: the root, and every token up to its own


@dataclass
class Run:
    """A scheduler whose sequences grow by one token each time their last token is run, as a model would make them.

    Prompts begin alike. `content` plays the KV pool: what was computed at each place of each block.
    """

    scheduler: Scheduler
    arrived: list[Sequence] = field(default_factory=list)
    content: dict[tuple[int, int], Content] = field(default_factory=dict)

    def arrive(
        self, prompt: int, max_tokens: int, *, root: bytes = b"", priority: int = 0, shared: int = 0, tail: int = 0
    ) -> None:
        """A prompt of that many tokens, of which `shared` are a soft prompt's; what follows these depends on `tail`."""
        tokens = [token + (tail * 100 if token >= shared else 0) for token in range(prompt)]
        sequence = Sequence.of(tokens, max_tokens=max_tokens, root=root, priority=priority, shared=min(shared, prompt))
        self.scheduler.add(sequence)
        self.arrived.append(sequence)

    def step(self) -> list[Work]:
        works = self.scheduler.schedule()
        self.check(works)
        for copy in self.scheduler.copies:
            copied = [self.content[copy.source, offset] for offset in range(copy.count)]
            for offset in range(BLOCK_SIZE):
                self.content.pop((copy.target, offset), None)
            self.content |= {(copy.target, offset): one for offset, one in enumerate(copied)}
        for work in works:
            for position in range(work.start, work.start + work.count):
                self.content[self.place(work.sequence, position)] = self.meaning(work.sequence, position)
        for work in works:
            for position in range(work.start + work.count):
                place = self.place(work.sequence, position)
                assert self.content[place] == self.meaning(work.sequence, position), "it reads what is not its own"
        for work in works:
            if work.reaches_end and len(work.sequence.tokens) < work.sequence.max_length:
                work.sequence.tokens.append(0)
            if work.reaches_end and len(work.sequence.tokens) >= work.sequence.max_length:
                self.scheduler.finish(work.sequence)
        self.check_blocks()
        return works

    def fail(self) -> set[Sequence]:
        """A step that is scheduled, but not computed."""
        sequences = {work.sequence for work in self.scheduler.schedule()}
        self.scheduler.withdraw()
        for sequence in sequences:
            self.scheduler.finish(sequence)
        self.check_blocks()
        return sequences

    def place(self, sequence: Sequence, position: int) -> tuple[int, int]:
        return sequence.blocks[position // BLOCK_SIZE], position % BLOCK_SIZE

    def meaning(self, sequence: Sequence, position: int) -> Content:
        return sequence.root, tuple(sequence.tokens[: position + 1])

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
        order = {sequence: (sequence.priority, place) for place, sequence in enumerate(self.arrived)}
        for line in (scheduler.running, scheduler.waiting):
            places = [order[sequence] for sequence in line]
            assert places == sorted(places), "a sequence overtook another"
        for waiting in scheduler.waiting:
            overtaken = [other for other in scheduler.running if order[other] > order[waiting]]
            assert all(other.priority != waiting.priority for other in overtaken), "one overtook its equal"
        self.check_blocks()

    def check_blocks(self) -> None:
        pool = self.scheduler.blocks
        held = Counter(block for sequence in self.arrived for block in sequence.blocks)
        assert all(pool.holders(block) == held[block] for block in range(pool.count)), "holders are counted wrongly"
        assert len(held) + pool.free == pool.count, "a block was lost"
        assert all(sequence.status is Status.RUNNING or not sequence.blocks for sequence in self.arrived)


def new_run(*, blocks: int, budget: int, running: int, prefix_cache: bool = True) -> Run:
    pool = BlockPool(blocks, block_size=BLOCK_SIZE)
    return Run(Scheduler(pool, max_batch_tokens=max(budget, running), max_running=running, prefix_cache=prefix_cache))


REQUEST = st.tuples(
    st.integers(1, 24),  # tokens of the prompt
    st.integers(0, 16),  # at most generated
    st.sampled_from([b"", b"other"]),
    st.integers(0, 1),  # priority
    st.sampled_from([0, 5, 8, 10]),  # of a soft prompt
    st.integers(0, 3),
)
EVENT = st.one_of(REQUEST, st.just("step"), st.just("step"), st.just("fail"), st.integers(0, 30))


class TestRandomSchedules:
    @settings(max_examples=300, deadline=None)
    @given(
        events=st.lists(EVENT, max_size=60),
        blocks=st.integers(10, 40),
        budget=st.integers(1, 32),
        running=st.integers(1, 8),
        prefix_cache=st.booleans(),
    )
    def test_every_sequence_ends_and_every_block_returns(
        self,
        events: list[tuple[int, int, bytes, int, int, int] | str | int],
        blocks: int,
        budget: int,
        running: int,
        prefix_cache: bool,
    ) -> None:
        run = new_run(blocks=blocks, budget=budget, running=running, prefix_cache=prefix_cache)
        cancelled: set[Sequence] = set()
        for event in events:
            if isinstance(event, tuple):
                prompt, max_tokens, root, priority, shared, tail = event
                run.arrive(prompt, max_tokens, root=root, priority=priority, shared=shared, tail=tail)
            elif event == "fail":
                cancelled |= run.fail()
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
    @given(requests=st.lists(st.tuples(st.integers(1, 24), st.integers(0, 16)), min_size=2, max_size=12))
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
        run.arrive(8, 12, root=b"old")
        run.arrive(8, 8, root=b"young")
        young = run.arrived[1]
        while not run.scheduler.preemptions:
            run.step()
        assert (young.status, young.computed, young.blocks) == (Status.WAITING, 0, [])
        assert young.completion_length > 0

    def test_a_sequence_that_never_fits_is_refused(self) -> None:
        run = new_run(blocks=4, budget=8, running=2)
        with pytest.raises(ValueError, match="never fits"):
            run.arrive(8, 9)

    def test_a_lower_priority_is_admitted_later(self) -> None:
        run = new_run(blocks=6, budget=32, running=1)
        run.arrive(4, 2, priority=1)
        run.step()
        run.arrive(4, 2, priority=1)
        run.arrive(4, 2, priority=0)
        ended: list[Sequence] = []
        while len(ended) < 3:
            run.step()
            ended += [s for s in run.arrived if s.status is Status.FINISHED and s not in ended]
        assert ended == [run.arrived[0], run.arrived[2], run.arrived[1]]


class TestPrefixCache:
    def test_a_sequence_starts_from_the_full_blocks_of_another_that_begins_alike(self) -> None:
        run = new_run(blocks=20, budget=32, running=2)
        run.arrive(10, 1)
        run.step()
        run.arrive(20, 1)
        (work,) = [work for work in run.step() if work.sequence is run.arrived[1]]
        assert (work.start, work.count) == (8, 12)
        assert (run.scheduler.queried_tokens, run.scheduler.cached_tokens) == (30, 8)

    def test_those_that_arrive_together_share_what_the_first_computes(self) -> None:
        run = new_run(blocks=20, budget=64, running=4)
        for _ in range(3):
            run.arrive(10, 1)
        assert [(work.start, work.count) for work in run.step()] == [(0, 10), (8, 2), (8, 2)]

    def test_the_last_token_is_always_run(self) -> None:
        run = new_run(blocks=20, budget=64, running=4)
        run.arrive(8, 1)
        run.arrive(8, 1)
        assert [(work.start, work.count) for work in run.step()] == [(0, 8), (4, 4)]

    @pytest.mark.parametrize("reusable", [0, 3, 4, 7])
    def test_what_must_be_run_again_is(self, reusable: int) -> None:
        run = new_run(blocks=20, budget=64, running=4)
        run.arrive(12, 1)
        run.step()
        run.scheduler.add(again := Sequence.of(range(12), max_tokens=0, reusable=reusable))
        (work,) = [work for work in run.scheduler.schedule() if work.sequence is again]
        assert work.start == reusable // BLOCK_SIZE * BLOCK_SIZE

    def test_what_a_soft_prompt_leaves_of_its_last_block_is_copied(self) -> None:
        run = new_run(blocks=20, budget=64, running=4)
        run.arrive(12, 1, shared=6)
        run.arrive(12, 1, shared=6, tail=1)
        assert [work.start for work in run.step()] == [0, 4]  # in the step that computes it there is nothing to copy
        run.arrive(12, 2, shared=6, tail=2)
        (work,) = [work for work in run.step() if work.sequence is run.arrived[2]]
        assert (work.start, work.count) == (6, 6)
        assert [copy.count for copy in run.scheduler.copies] == [2]
        run.step()
        assert run.scheduler.copies == []

    @pytest.mark.parametrize("shared", [3, 6, 8])
    def test_a_soft_prompt_outlasts_texts(self, shared: int) -> None:
        run = new_run(blocks=8, budget=64, running=2)
        run.arrive(12, 0, root=b"soft", shared=shared)
        run.step()
        for number in range(12):  # more than the pool holds
            run.arrive(12, 0, root=f"text {number}".encode())
            run.step()
        run.arrive(12, 0, root=b"soft", shared=shared, tail=1)
        run.step()
        assert run.scheduler.cached_tokens == shared

    def test_another_root_shares_nothing(self) -> None:
        run = new_run(blocks=20, budget=64, running=4)
        run.arrive(10, 1, root=root_key("acct_a", "sp_1"))
        run.arrive(10, 1, root=root_key("acct_b", "sp_1"))
        run.arrive(10, 1, root=root_key("acct_a", "sp_2"))
        assert [work.start for work in run.step()] == [0, 0, 0]
        assert root_key("ab", "c") != root_key("a", "bc")

    def test_off_it_shares_nothing(self) -> None:
        run = new_run(blocks=20, budget=64, running=4, prefix_cache=False)
        run.arrive(10, 1)
        run.arrive(10, 1)
        assert [work.start for work in run.step()] == [0, 0]


class TestBlockPool:
    @pytest.fixture
    def keys(self) -> list[bytes]:
        keys = [root_key("")]
        for number in range(4):
            keys.append(next_key(keys[-1], Sequence.of([number], max_tokens=0).tokens))
        return keys[1:]

    def test_blocks_are_taken_in_order_around_and_around(self) -> None:
        pool = BlockPool(8, block_size=BLOCK_SIZE)
        first, second = pool.take(3), pool.take(2)
        pool.give_back(first)
        assert (second, pool.take(2), pool.usage) == ([3, 4], [5, 6], 0.5)
        assert pool.take(2) == [7, 0]
        with pytest.raises(ValueError, match="3 blocks"):
            pool.take(3)

    def test_rounds_become_longer_only_as_they_fill_up(self) -> None:
        pool = BlockPool(64, block_size=BLOCK_SIZE)
        touched = set()
        for _ in range(50):
            touched.update(taken := pool.take(3))
            pool.give_back(taken)
        assert touched == set(range(16))
        keys = [root_key(str(number)) for number in range(60)]
        for key in keys:
            (block,) = pool.take(1)
            pool.publish(block, key)
            pool.give_back([block])
        assert all(pool.find([key]) for key in keys)  # nothing goes while there is room that was never used
        assert (len(pool.take(64)), pool.free) == (64, 0)

    def test_content_is_kept_until_the_room_is_needed(self, keys) -> None:
        pool = BlockPool(4, block_size=BLOCK_SIZE)
        taken = pool.take(4)
        for block, key in zip(taken, keys, strict=True):
            pool.publish(block, key)
        pool.give_back(taken)
        assert (pool.free, pool.usage) == (4, 0)
        assert pool.find(keys) == [0, 1, 2, 3]
        assert pool.take(1) == [0]
        assert pool.find(keys) == []
        assert pool.find(keys[1:]) == [1, 2, 3]
        pool.share([1, 2, 3])
        assert pool.free == 0

    def test_what_lasts_outlasts_the_rest_in_half_of_the_pool(self, keys) -> None:
        pool = BlockPool(4, block_size=BLOCK_SIZE)
        taken = pool.take(4)
        for block, key in zip(taken, keys, strict=True):
            pool.publish(block, key, lasting=block < 3)
        for block in taken:
            pool.give_back([block])  # the lasting ones first, of which block 0 is one too many
        assert pool.take(2) == [0, 3]
        assert pool.find(keys[1:]) == [1, 2]
        assert pool.take(2) == [1, 2]  # needed is needed
        assert pool.free == 0

    def test_what_was_used_is_dropped_later(self, keys) -> None:
        pool = BlockPool(4, block_size=BLOCK_SIZE)
        taken = pool.take(4)
        for block, key in zip(taken, keys, strict=True):
            pool.publish(block, key)
            pool.give_back([block])
        pool.touch(0)
        assert pool.take(3) == [1, 2, 3]
        assert pool.find(keys) == [0]
        assert pool.take(1) == [0]  # used once is not used for ever

    def test_what_is_forgotten_is_not_found(self, keys) -> None:
        pool = BlockPool(4, block_size=BLOCK_SIZE)
        (block,) = pool.take(1)
        pool.publish(block, keys[0])
        pool.forget(block)
        pool.give_back([block])
        assert pool.find(keys) == []
        assert pool.take(4) == [1, 2, 3, 0]

    def test_what_nobody_holds_cannot_be_given_back(self) -> None:
        with pytest.raises(ValueError, match="nobody holds"):
            BlockPool(4, block_size=BLOCK_SIZE).give_back([0])
