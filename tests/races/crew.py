"""Racers: real processes, each with Django on the same database, that start every round together.

Nothing of Django is imported at the top: a spawned process reads this module before it knows its database.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from types import TracebackType
from typing import Any, Self

PATIENCE = 120  # seconds a racer waits for the others


@dataclass(frozen=True, slots=True)
class Task:
    """One act of one racer in one round. `after`: seconds between the common start and the act."""

    act: str
    args: dict[str, Any] = field(default_factory=dict)
    after: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What came of a task. Times are of one clock for all processes of this machine, in nanoseconds."""

    started: int
    finished: int
    result: Any = None
    error: str = ""


class Crew:
    """`processes` times `threads` racers. Racer n lives in process n % processes, so the first ones are processes of their own."""

    def __init__(self, database_url: str, *, processes: int = 4, threads: int = 1, **environment: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.size = processes * threads
        self._on_sqlite = database_url.startswith("sqlite")
        self._barriers: dict[int, Barrier] = {n: context.Barrier(n) for n in range(1, self.size + 1)}
        self._pipes: list[Connection] = []
        self._processes = []
        for _number in range(processes):
            here, there = context.Pipe()
            wanted = {**environment, "DATABASE_URL": database_url}
            process = context.Process(target=_racer, args=(there, wanted, threads, self._barriers), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            assert self._answer(pipe) == "ready"

    def run_in_pairs(self, rounds: Sequence[tuple[Task, Task]]) -> list[list[Outcome]]:
        """Rounds of two, as many at a time as there are processes for; on SQLite, where they would queue, one."""
        abreast = 1 if self._on_sqlite else max(len(self._pipes) // 2, 1)
        idle = (Task("nothing"), Task("nothing"))
        groups = [[*rounds[at : at + abreast], *[idle] * abreast][:abreast] for at in range(0, len(rounds), abreast)]
        outcomes = self.run([[task for pair in group for task in pair] for group in groups])
        pairs = [group[at : at + 2] for group in outcomes for at in range(0, abreast * 2, 2)]
        return pairs[: len(rounds)]

    def run(self, rounds: Sequence[Sequence[Task]]) -> list[list[Outcome]]:
        """Run the rounds one after another; the tasks of each start together, the first by racer 0, and so on."""
        parties = len(rounds[0])
        assert parties <= self.size
        assert all(len(tasks) == parties for tasks in rounds)
        lanes = [[tasks[racer] for tasks in rounds] for racer in range(parties)]
        share = [lanes[number :: len(self._pipes)] for number in range(len(self._pipes))]
        busy = [(pipe, mine) for pipe, mine in zip(self._pipes, share, strict=True) if mine]
        for pipe, mine in busy:
            pipe.send((parties, mine))
        results: list[list[Outcome]] = [[] for _racer in range(parties)]
        for number, (pipe, _mine) in enumerate(busy):
            for thread, lane in enumerate(self._answer(pipe)):
                results[number + thread * len(self._pipes)] = lane
        return [list(outcomes) for outcomes in zip(*results, strict=True)]

    def do(self, act: str, **args: Any) -> Any:
        """One act alone, by racer 0."""
        outcome = self.run([[Task(act, args)]])[0][0]
        if outcome.error:
            raise RuntimeError(outcome.error)
        return outcome.result

    def everywhere(self, act: str, **args: Any) -> None:
        """One act in every process: what sets it up for a race."""
        for outcome in self.run([[Task(act, args) for _pipe in self._pipes]])[0]:
            if outcome.error:
                raise RuntimeError(outcome.error)

    def begin(self, act: str, **args: Any) -> Callable[[], Outcome]:
        """Start one act by racer 0 and go on; the returned function waits for its outcome. Nothing else may run meanwhile."""
        self._pipes[0].send((1, [[Task(act, args)]]))

        def wait() -> Outcome:
            outcome: Outcome = self._answer(self._pipes[0])[0][0]
            return outcome

        return wait

    def _answer(self, pipe: Connection) -> Any:
        if not pipe.poll(PATIENCE * 2):
            raise RuntimeError("A racer does not answer.")
        answer = pipe.recv()
        if isinstance(answer, str) and answer != "ready":
            raise RuntimeError(f"A racer broke down:\n{answer}")
        return answer

    def stop(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


# --- In the racer's process -----------------------------------------------------------------------------------------


def _racer(pipe: Connection, environment: dict[str, str], threads: int, barriers: dict[int, Barrier]) -> None:
    os.environ.update(environment)
    try:
        from tests.races import acts

        acts.set_up()
        pipe.send("ready")
        with ThreadPoolExecutor(threads) as pool:
            while (order := pipe.recv()) is not None:
                parties, lanes = order
                running = [pool.submit(_run, lane, barriers[parties]) for lane in lanes]
                pipe.send([lane.result() for lane in running])
            acts.tear_down(pool, threads)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # the one who asks is gone
    except BaseException:  # noqa: BLE001  (told to the one who asks, who raises it)
        pipe.send(traceback.format_exc())


def _run(lane: list[Task], barrier: Barrier) -> list[Outcome]:
    return [_play(task, barrier) for task in lane]


def _play(task: Task, barrier: Barrier) -> Outcome:
    from tests.races import acts

    act: Callable[[], Any] | None = None
    error = ""
    try:
        act = acts.prepare(task.act, task.args)
    except Exception:  # noqa: BLE001  (becomes the outcome)
        error = traceback.format_exc()
    barrier.wait(PATIENCE)
    until = time.monotonic_ns() + int(task.after * 1e9)
    while time.monotonic_ns() < until:
        time.sleep(0)
    started = time.monotonic_ns()
    result = None
    if act is not None:
        try:
            result = act()
        except Exception:  # noqa: BLE001  (becomes the outcome)
            error = traceback.format_exc()
    return Outcome(started, time.monotonic_ns(), result, error)
