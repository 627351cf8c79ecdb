"""The worker: takes each batch from where it stands to its end, and after a crash goes on from there.

    validating   every line is looked at; one that is wrong fails the batch before anything ran
    in_progress  lines are answered, a few at a time over all batches; an answer counts once it is on disk
    finalizing   the answers become files, whose ids were settled before, so that a crash cannot make them twice
    cancelling   as finalizing, with what was answered by then

Above it: `gateway.batches.desk`, which tells it of new and of cancelled batches. Below it: the stores, and `Lines`, which answers.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import msgspec
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.access.delegation import Delegation
from gateway.batches.batch import Batch, Problem, Status
from gateway.batches.lines import Answer, LineError, Lines, answered, numbered, read_line, unanswered
from gateway.batches.store import BatchStore
from gateway.errors import GatewayError
from gateway.files.description import BATCH_OUTPUT, Description
from gateway.files.store import FileStore
from gateway.identifiers import Identifiers
from gateway.telemetry.counts import BatchCounts

_log = logging.getLogger(__name__)

MOST_LINES: Final = 50_000
"""How many lines a batch may have."""
_MOST_PROBLEMS = 100
_ATTEMPTS = 8
"""How often a line is tried that is told to come again later."""
_LONGEST_PAUSE_SECONDS = 60.0
_AGAIN_AFTER_SECONDS = 30.0
"""After what pause a batch goes on that the disk has stopped."""
_REASONS = {
    Status.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    Status.CANCELLED: ("batch_cancelled", "This request was not executed, for the batch was cancelled."),
}


class _Stopped(Exception):  # noqa: N818 (no fault)
    """The gateway is stopping, and the batch is left where it stands."""


class BatchWorker:
    """Runs batches until it is stopped.

    Attributes:
        lines: Answers lines.
        resting: Whether another process runs the batches, so that this one begins none.
    """

    def __init__(
        self,
        store: BatchStore,
        files: FileStore,
        lines: Lines,
        delegation: Delegation,
        *,
        counts: BatchCounts,
        concurrency: int,
        most_line_bytes: Callable[[], int],
    ) -> None:
        """Makes a worker.

        Args:
            store: The batches.
            files: Where their output goes.
            lines: Answers lines.
            delegation: Lets a line run as the key that made its batch.
            counts: What is counted.
            concurrency: Most lines of all batches at a time.
            most_line_bytes: Returns how long a line may be.
        """
        self.lines = lines
        self.resting = False
        self._counts = counts
        self._store = store
        self._files = files
        self._delegation = delegation
        self._most_line_bytes = most_line_bytes
        self._slots = asyncio.Semaphore(concurrency)
        self._stopping = asyncio.Event()
        self._resuming: asyncio.Task[None] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: dict[str, asyncio.Event] = {}
        self._ids = Identifiers("batch_req_")

    def resume(self) -> None:
        """Goes on with all batches that an earlier run has not ended, as soon as their directory can be used."""
        self._resuming = asyncio.create_task(self._resume())

    def run(self, id_: str) -> None:
        """Begins, or goes on with, a batch."""
        if id_ not in self._tasks and not self.resting and not self._stopping.is_set():
            self._cancelled[id_] = asyncio.Event()
            self._tasks[id_] = task = asyncio.create_task(self._run(id_))
            self._counts.active += 1
            task.add_done_callback(lambda _: self._forget(id_))

    def cancel(self, id_: str) -> None:
        """Stops a batch whose status says that it is to be."""
        self.run(id_)
        if id_ in self._cancelled:
            self._cancelled[id_].set()

    async def stop(self, grace_seconds: float) -> None:
        """Begins no further line, lets those under way end for so long, and leaves the batches where they stand. Idempotent."""
        self._stopping.set()
        if self._resuming is not None:
            await self._resuming
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _resume(self) -> None:
        while not self._stopping.is_set():
            try:
                unfinished = await self._store.unfinished()
            except GatewayError:  # it is in the log
                await self._pause(_AGAIN_AFTER_SECONDS)
                continue
            for id_, _ in unfinished:
                self.run(id_)
            return

    def _forget(self, id_: str) -> None:
        self._counts.active -= 1
        self._tasks.pop(id_, None)
        self._cancelled.pop(id_, None)

    async def _run(self, id_: str) -> None:
        while not self._stopping.is_set():
            try:
                await self._advance(id_)
            except _Stopped:
                return
            except Exception as error:  # noqa: BLE001 (whatever it is, it is logged, and later may do better)
                fault = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                if isinstance(fault, GatewayError):  # the disk's, and in the log
                    _log.warning("The batch %s pauses: %s", id_, fault)
                else:
                    _log.exception("The batch %s failed, and is tried again", id_)
                await self._pause(_AGAIN_AFTER_SECONDS)
            else:
                return

    async def _advance(self, id_: str) -> None:
        batch = await self._store.get(id_)
        if batch.status == Status.VALIDATING:
            await self._validate(batch)
            batch = await self._store.get(id_)
        if batch.status == Status.IN_PROGRESS:
            ending = await self._answer_until_end(batch)
            await self._store.change(
                id_, where=(Status.IN_PROGRESS,), status=Status.FINALIZING, ending=ending, finalizing_at=self._store.now()
            )
            batch = await self._store.get(id_)
        if batch.status in {Status.FINALIZING, Status.CANCELLING}:
            await self._write_out(batch)

    async def _validate(self, batch: Batch) -> None:
        problems: list[Problem] = []
        seen: set[str] = set()
        total = 0
        try:
            async with aclosing(self._numbered(batch, self._most_line_bytes())) as lines:
                async for number, raw in lines:
                    total += 1
                    if total > MOST_LINES:
                        raise LineError("too_many_lines", f"A batch has at most {MOST_LINES} lines.")  # noqa: TRY301 (as the others)
                    try:
                        custom_id = read_line(raw, batch.endpoint).custom_id
                        if custom_id in seen:
                            raise LineError("duplicate_custom_id", f"'{custom_id[:64]}' is another line's too.", "custom_id")  # noqa: TRY301 (as the others)
                        seen.add(custom_id)
                    except LineError as error:
                        problems.append(Problem(error.code, error.message, number, error.param))
                    if len(problems) >= _MOST_PROBLEMS or self._cancelled[batch.id].is_set():
                        break
        except LineError as error:
            problems.append(Problem(error.code, error.message))
        if not total and not problems:
            problems.append(Problem("empty_file", "The file has no lines."))
        now = self._store.now()
        if problems:
            errors = msgspec.json.encode(problems).decode()
            if await self._store.change(batch.id, where=(Status.VALIDATING,), status=Status.FAILED, failed_at=now, errors=errors):
                await self._store.end(batch.id, total=0)
            return
        await self._store.change(batch.id, where=(Status.VALIDATING,), status=Status.IN_PROGRESS, in_progress_at=now, total=total)

    async def _answer_until_end(self, batch: Batch) -> Status:
        """Answers lines until all are answered, time is over or somebody cancels; returns how the batch ends.

        Raises:
            _Stopped: The gateway stops.
        """
        remaining = batch.expires_at - self._store.now()
        if batch.completed + batch.failed == batch.total:
            return Status.COMPLETED
        if remaining <= 0:
            return Status.EXPIRED
        answering = asyncio.create_task(self._answer_lines(batch))
        cancelled = asyncio.create_task(self._cancelled[batch.id].wait())
        try:
            await asyncio.wait([answering, cancelled], timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
                if self._stopping.is_set() and len(await self._store.answered_lines(batch.id)) < batch.total:
                    raise _Stopped
                return Status.COMPLETED
            return Status.CANCELLED if cancelled.done() else Status.EXPIRED
        finally:
            for task in (answering, cancelled):
                task.cancel()
            await asyncio.gather(answering, cancelled, return_exceptions=True)

    async def _answer_lines(self, batch: Batch) -> None:
        done = await self._store.answered_lines(batch.id)
        pending = batch.total - len(done)
        self._counts.pending += pending

        def ended(_: "asyncio.Task[None]") -> None:
            nonlocal pending
            pending -= 1
            self._counts.pending -= 1
            self._slots.release()

        try:
            async with asyncio.TaskGroup() as group, aclosing(self._numbered(batch)) as lines:
                async for number, raw in lines:
                    if number in done:
                        continue
                    await self._slots.acquire()
                    if self._stopping.is_set():
                        self._slots.release()
                        return
                    group.create_task(self._answer_line(batch, number, raw)).add_done_callback(ended)
        finally:
            self._counts.pending -= pending

    async def _answer_line(self, batch: Batch, number: int, raw: bytes) -> None:
        line = read_line(raw, batch.endpoint)
        answer = await self._answer(batch, line.url, bytes(line.body))
        if answer is not None:
            ok = 200 <= answer.status < 300
            await self._store.record(batch.id, number, answered(self._ids.new(), line.custom_id, answer), ok=ok)
            self._counts.answered(ok=ok)

    async def _answer(self, batch: Batch, url: str, body: bytes) -> Answer | None:
        """Returns what came of a request; None if the gateway stops before that is known."""
        metadata = self._delegation.metadata(batch.owner)
        for attempt in range(_ATTEMPTS):
            answer = await self.lines.answer(url, body, metadata)
            if answer.retry_after_seconds is None or attempt == _ATTEMPTS - 1:
                return answer
            # The line keeps its slot: a provider that is overrun is asked less by all lines.
            await self._pause(min(max(answer.retry_after_seconds, 2.0**attempt / 4), _LONGEST_PAUSE_SECONDS))
            if self._stopping.is_set():
                return None
        raise AssertionError

    async def _write_out(self, batch: Batch) -> None:
        """Writes the files of a batch, and ends it. All of it may be done again."""
        ending = Status(batch.ending)
        if not batch.output_reserved:
            reserved = {"output_reserved": await self._files.new_id(), "error_reserved": await self._files.new_id()}
            await self._store.change(batch.id, where=(batch.status,), **reserved)
            batch = await self._store.get(batch.id)
        output = await self._write_file(batch, batch.output_reserved, "output", self._store.outputs(batch.id, ok=True))
        error = await self._write_file(batch, batch.error_reserved, "error", self._failures(batch, ending))
        await self._store.end(
            batch.id, status=ending, output_file_id=output, error_file_id=error, **{f"{ending}_at": self._store.now()}
        )

    async def _write_file(self, batch: Batch, id_: str, kind: str, pieces: AsyncGenerator[bytes, None]) -> str | None:
        """Makes a file of what there is to be written, unless it is there already; returns its id, or None for an empty one."""
        async with aclosing(pieces):
            try:
                return (await self._files.get(id_, None)).id
            except GatewayError as error:
                if error.kind != ErrorKind.ERROR_KIND_NOT_FOUND:
                    raise
            async with await self._files.begin(bounded=False) as upload:
                async for piece in pieces:
                    await upload.write(piece)
                if not upload.bytes:
                    return None
                description = Description(f"{batch.id}_{kind}.jsonl", BATCH_OUTPUT, batch.output_seconds)
                return (await self._files.commit(upload, batch.owner, description, id=id_)).id

    async def _failures(self, batch: Batch, ending: Status) -> AsyncGenerator[bytes, None]:
        """Gives the lines of the error file: those that failed, and after them those that never ran."""
        async with aclosing(self._store.outputs(batch.id, ok=False)) as failed:
            async for piece in failed:
                yield piece
        if ending not in _REASONS or not batch.total:
            return
        done = await self._store.answered_lines(batch.id)
        async with aclosing(self._numbered(batch)) as lines:
            async for number, raw in lines:
                if number not in done:
                    yield unanswered(self._ids.new(), read_line(raw, batch.endpoint).custom_id, *_REASONS[ending])

    def _numbered(self, batch: Batch, most_bytes: int = sys.maxsize) -> AsyncGenerator[tuple[int, bytes], None]:
        return numbered(self._store.input_path(batch.id), most_bytes)

    async def _pause(self, seconds: float) -> None:
        """Waits; not longer than the gateway runs."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
