"""A small job queue on SQLite: jobs survive a restart, failed ones are tried again later."""

from __future__ import annotations

import argparse
import json
import logging
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    payload TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    run_after REAL NOT NULL,
    finished_at REAL,
    error TEXT
);
CREATE INDEX IF NOT EXISTS jobs_due ON jobs (run_after) WHERE finished_at IS NULL;
"""

MAX_ATTEMPTS = 5
FIRST_DELAY_S = 2.0


@dataclass
class Job:
    """One unit of work as it is stored."""

    id: int
    name: str
    payload: dict[str, Any]
    attempts: int = 0
    run_after: float = 0.0

    @property
    def next_delay(self) -> float:
        """Seconds to wait before the next attempt; doubles each time."""
        return FIRST_DELAY_S * 2**self.attempts


class JobQueue:
    """Jobs in a SQLite file, handed out in the order in which they are due."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock
        self.connection = sqlite3.connect(path)
        self.connection.executescript(SCHEMA)

    def add(self, name: str, payload: dict[str, Any], delay: float = 0.0) -> int:
        """Store a job and return its id."""
        run_after = self.clock() + delay
        with self.connection:
            cursor = self.connection.execute(
                "INSERT INTO jobs (name, payload, run_after) VALUES (?, ?, ?)",
                (name, json.dumps(payload), run_after),
            )
        logger.info("added job %s: %s", cursor.lastrowid, name)
        return int(cursor.lastrowid or 0)

    def due(self, limit: int = 10) -> list[Job]:
        """Return the jobs that may run now, the oldest first."""
        rows = self.connection.execute(
            "SELECT id, name, payload, attempts, run_after FROM jobs"
            " WHERE finished_at IS NULL AND run_after <= ? ORDER BY run_after LIMIT ?",
            (self.clock(), limit),
        )
        jobs = []
        for row in rows:
            job_id, name, payload, attempts, run_after = row
            jobs.append(Job(job_id, name, json.loads(payload), attempts, run_after))
        return jobs

    def finish(self, job: Job) -> None:
        """Mark a job as done."""
        with self.connection:
            self.connection.execute(
                "UPDATE jobs SET finished_at = ?, error = NULL WHERE id = ?",
                (self.clock(), job.id),
            )
        logger.info("finished job %s: %s", job.id, job.name)

    def fail(self, job: Job, error: str) -> None:
        """Try a job again later, or give it up after too many attempts."""
        job.attempts += 1
        run_after = self.clock() + job.next_delay
        finished_at = self.clock() if job.attempts >= MAX_ATTEMPTS else None
        with self.connection:
            self.connection.execute(
                "UPDATE jobs SET attempts = ?, run_after = ?, finished_at = ?, error = ?"
                " WHERE id = ?",
                (job.attempts, run_after, finished_at, error, job.id),
            )
        logger.warning("job %s failed: %s", job.id, error)

    def counts(self) -> dict[str, int]:
        """Return how many jobs wait, are done and were given up."""
        counts = {"waiting": 0, "done": 0, "given up": 0}
        rows = self.connection.execute("SELECT finished_at, error FROM jobs")
        for finished_at, error in rows:
            if finished_at is None:
                counts["waiting"] += 1
            elif error is None:
                counts["done"] += 1
            else:
                counts["given up"] += 1
        return counts

    def close(self) -> None:
        self.connection.close()


class Worker:
    """Runs due jobs with the handlers that were registered for their names."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self.handlers: dict[str, Callable[[dict[str, Any]], None]] = {}

    def register(self, name: str, handler: Callable[[dict[str, Any]], None]) -> None:
        if name in self.handlers:
            raise ValueError(f"there is a handler for {name!r} already")
        self.handlers[name] = handler

    def run_once(self) -> int:
        """Run every job that is due; returns how many ran without an error."""
        n_finished = 0
        for job in self.queue.due():
            handler = self.handlers.get(job.name)
            if handler is None:
                self.queue.fail(job, f"no handler for {job.name!r}")
                continue
            try:
                handler(job.payload)
            except Exception as error:
                self.queue.fail(job, str(error))
            else:
                self.queue.finish(job)
                n_finished += 1
        return n_finished


def read_jobs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and payload of each line of a JSON lines file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                entry = json.loads(line)
                yield entry["name"], entry.get("payload", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("--add", type=Path, help="a JSON lines file with jobs to add")
    args = parser.parse_args()

    logging.basicConfig(level=logging.INFO)
    queue = JobQueue(args.database)
    if args.add:
        for name, payload in read_jobs(args.add):
            queue.add(name, payload)

    worker = Worker(queue)
    worker.register("print", lambda payload: print(payload["text"]))
    n_finished = worker.run_once()
    print(f"{n_finished} finished, {queue.counts()}")
    queue.close()


if __name__ == "__main__":
    main()
