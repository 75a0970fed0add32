"""The group commit thread over a store that fails on demand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from runferry.server.ingest import commit
from runferry.server.ingest.commit import GroupCommitter, Submission
from runferry.server.store.protocol import Appended, Batch, OutcomeUnknownError, Store, StoreBusyError, StoreError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Sequence

RUN = b"r" * 16


class FailingStore:
    """Takes batches of one writer; raises what it is told to, once each."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.next_seq = 1
        self.groups: list[int] = []
        self.poison: Batch | None = None

    def commit_groups(self, batches: Sequence[Batch]) -> list[list[int]]:
        return [list(range(len(batches)))]

    def append(self, batches: Sequence[Batch]) -> list[Appended]:
        if self.failures:
            raise self.failures.pop(0)
        if any(batch is self.poison for batch in batches):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        self.groups.append(len(batches))
        answers = []
        for batch in batches:
            is_gap = batch.first_seq > self.next_seq
            if not is_gap:
                self.next_seq = max(self.next_seq, batch.next_seq)
            answers.append(Appended(self.next_seq, 0 if is_gap else len(batch.frames), 0, is_gap))
        return answers

    def next_seqs(self, _run_id: bytes, writer_ids: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(writer_ids, self.next_seq)


class Listener:
    """A stream that notes what it is told."""

    def __init__(self) -> None:
        self.is_gone = False
        self.generation = 0
        self.told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def settled(self, submission: Submission, appended: Appended) -> None:
        self.told.put_nowait(("settled", submission.batch.first_seq, appended.next_seq))

    def unsettled(self, next_seq: int | None, reason: str) -> None:
        self.generation += 1
        self.told.put_nowait(("unsettled", next_seq, reason))

    def throttled(self, retry_after_s: float, _reason: str) -> None:
        self.told.put_nowait(("throttled", retry_after_s))


def submission(stream: Listener, seq: int) -> Submission:
    """One frame."""
    return Submission(stream, stream.generation, Batch(RUN, 1, seq, seq + 1, [b"f"]), 1, has_documents=False)


def committer(store: FailingStore, *shortages: str) -> GroupCommitter:
    """A committer that has not begun, so that a test decides what the first group is; the disk is short of room so many times."""
    left = list(shortages)
    loop = asyncio.get_running_loop()
    return GroupCommitter(
        cast("Store", store), loop, linger_s=0.001, group_bytes=1 << 20, shortage=lambda _bytes: left.pop(0) if left else None
    )


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry soon."""
    monkeypatch.setattr(commit, "FULL_RETRY_S", 0.01)
    monkeypatch.setattr(commit, "ERROR_RETRY_S", 0.01)


def test_what_waits_together_is_committed_together() -> None:
    async def scene() -> None:
        store, stream = FailingStore(), Listener()
        commits = committer(store)
        for seq in (1, 2, 3):
            commits.submit(submission(stream, seq))

        commits.start()
        told = [await asyncio.wait_for(stream.told.get(), 5) for _ in range(3)]
        commits.stop()

        assert store.groups == [3]
        assert told == [("settled", 1, 2), ("settled", 2, 3), ("settled", 3, 4)]

    asyncio.run(scene())


def test_a_full_disk_throttles_acks_nothing_and_commits_when_there_is_room() -> None:
    async def scene() -> None:
        store, stream = FailingStore(StoreFullError("full"), StoreFullError("full")), Listener()
        commits = committer(store)
        commits.submit(submission(stream, 1))

        commits.start()
        told = [await asyncio.wait_for(stream.told.get(), 5) for _ in range(3)]
        commits.stop()

        assert [kind for kind, *_ in told] == ["throttled", "throttled", "settled"]

    asyncio.run(scene())


@pytest.mark.fault(72)
def test_writers_wait_before_the_disk_is_full_and_go_on_when_there_is_room() -> None:
    async def scene() -> None:
        store, stream = FailingStore(), Listener()
        commits = committer(store, "3 MiB free, 4 MiB have to stay free", "the same")
        commits.submit(submission(stream, 1))

        commits.start()
        told = [await asyncio.wait_for(stream.told.get(), 5) for _ in range(3)]
        commits.stop()

        assert [kind for kind, *_ in told] == ["throttled", "throttled", "settled"]
        assert store.groups == [1]

    asyncio.run(scene())


def test_frames_of_a_stream_that_has_gone_are_let_go_while_the_disk_is_full() -> None:
    async def scene() -> None:
        store, gone, here = FailingStore(StoreFullError("full")), Listener(), Listener()
        gone.is_gone = True
        commits = committer(store)
        commits.submit(submission(gone, 1))
        commits.submit(submission(here, 1))

        commits.start()
        told = [await asyncio.wait_for(here.told.get(), 5) for _ in range(2)]
        commits.stop()

        assert [kind for kind, *_ in told] == ["throttled", "settled"]
        assert store.groups == [1]

    asyncio.run(scene())


@pytest.mark.fault(83)
def test_while_somebody_else_holds_the_database_the_same_frames_are_tried_again() -> None:
    async def scene() -> None:
        store, stream = FailingStore(StoreBusyError("database is locked")), Listener()
        commits = committer(store)
        commits.submit(submission(stream, 1))
        commits.submit(submission(stream, 2))

        commits.start()
        told = [await asyncio.wait_for(stream.told.get(), 5) for _ in range(3)]
        commits.stop()

        assert [kind for kind, *_ in told] == ["throttled", "settled", "settled"]
        assert stream.generation == 0, "nobody had to go back"
        assert store.groups == [2]

    asyncio.run(scene())


@pytest.mark.fault(88)
def test_a_batch_that_cannot_be_stored_costs_its_own_stream_and_no_other() -> None:
    async def scene() -> None:
        store, stream, poisoner = FailingStore(), Listener(), Listener()
        commits = committer(store)
        commits.submit(submission(stream, 1))
        poisoned = submission(poisoner, 9)
        store.poison = poisoned.batch
        commits.submit(poisoned)
        commits.submit(submission(stream, 2))

        commits.start()
        told = [await asyncio.wait_for(stream.told.get(), 5) for _ in range(2)]
        kind, next_seq, _reason = await asyncio.wait_for(poisoner.told.get(), 5)
        commits.stop()

        assert [kind for kind, *_ in told] == ["settled", "settled"]
        assert (kind, next_seq) == ("unsettled", None), "its stream ends"
        assert stream.generation == 0

    asyncio.run(scene())


@pytest.mark.parametrize("failure", [StoreError("a reader's trouble"), RuntimeError("a bug")])
def test_a_group_that_failed_without_effect_is_stored_batch_by_batch(failure: Exception) -> None:
    async def scene() -> None:
        store, stream = FailingStore(failure), Listener()
        commits = committer(store)
        for seq in (1, 2):
            commits.submit(submission(stream, seq))

        commits.start()
        told = [await asyncio.wait_for(stream.told.get(), 5) for _ in range(2)]
        commits.stop()

        assert told == [("settled", 1, 2), ("settled", 2, 3)]
        assert store.groups == [1, 1]

    asyncio.run(scene())


@pytest.mark.parametrize("failure", [OutcomeUnknownError("commit")])
def test_after_a_failed_commit_the_writer_goes_back_and_its_older_frames_are_void(failure: Exception) -> None:
    async def scene() -> None:
        store, stream = FailingStore(failure), Listener()
        commits = committer(store)
        commits.submit(submission(stream, 1))
        stale = submission(stream, 2)

        commits.start()
        kind, next_seq, _reason = await asyncio.wait_for(stream.told.get(), 5)
        commits.submit(stale)
        commits.submit(submission(stream, 1))
        told = await asyncio.wait_for(stream.told.get(), 5)
        commits.stop()

        assert (kind, next_seq) == ("unsettled", 1)
        assert told == ("settled", 1, 2)
        assert store.groups == [1]

    asyncio.run(scene())


def test_stopping_commits_what_was_submitted() -> None:
    async def scene() -> None:
        store, stream = FailingStore(), Listener()
        commits = committer(store)
        commits.start()
        commits.submit(submission(stream, 1))

        commits.stop()

        assert store.next_seq == 2

    asyncio.run(scene())


def test_stopping_does_not_wait_for_a_full_disk() -> None:
    async def scene() -> None:
        store, stream = FailingStore(*[StoreFullError("full")] * 10_000), Listener()
        commits = committer(store)
        commits.submit(submission(stream, 1))
        commits.start()
        await asyncio.wait_for(stream.told.get(), 5)

        commits.stop()

        assert store.groups == []

    asyncio.run(scene())
