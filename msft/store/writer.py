"""One thread that writes a run's files while training goes on."""

import contextlib
import time
import warnings
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer(contextlib.AbstractContextManager):
    """Does jobs one after the other beside the thread that gives them; what one raises is raised there, never lost.

    Between `submit` and `wait` the files, the store and the journal belong to the jobs, and what a job was given must
    not change. As a context manager it waits at the end, whatever ended it.
    seconds: how long its jobs have taken.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, "msft-writer")
        self._jobs: deque[Future] = deque()
        self.seconds = 0.0

    @property
    def busy(self) -> bool:
        """Whether a job is not done yet."""
        return any(not job.done() for job in self._jobs)

    def submit(self, job: Callable) -> Future:
        """Queues a job behind those before it."""

        def timed():
            started = time.monotonic()
            try:
                return job()
            finally:
                self.seconds += time.monotonic() - started

        self._jobs.append(self._pool.submit(timed))
        return self._jobs[-1]

    def check(self, wait: bool = False) -> None:
        """Raises what a job that is done raised; waits for none unless told to."""
        while self._jobs and (wait or self._jobs[0].done()):
            self._jobs[0].result()  # one that raised stays, to raise again
            self._jobs.popleft()

    def wait(self) -> None:
        """Until every job is done; raises what one raised."""
        self.check(wait=True)

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            if failure is not error:  # a second error beside the one that is on its way already
                warnings.warn(str(failure), stacklevel=2)
        finally:
            self._pool.shutdown()
