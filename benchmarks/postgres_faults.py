"""Write the log of a busy PostgreSQL server with real faults, and which of its lines they caused.

    python benchmarks/postgres_faults.py LOG LABELS [--seconds N] [--seed S]

Starts a server of its own in a temporary folder, has pgbench work on it, and from time to time does
what goes wrong in practice: two sessions deadlock, a backend is killed, a page on the disk is
damaged, a query runs out of time or of space, the password is wrong, there are too many clients, a
key exists already, a number is divided by zero, a table is missing. LABELS gets the numbers of the
lines that report a fault, one a line, counted from 1. Needs PostgreSQL's programs, and root or a
user that may run them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PORT = "54329"
SETTINGS = f"""
listen_addresses = ''
port = {PORT}
max_connections = 12
logging_collector = off
log_line_prefix = '%m [%p] <%a> '
log_connections = on
log_disconnections = on
log_statement = 'all'
log_lock_waits = on
deadlock_timeout = '200ms'
log_checkpoints = on
checkpoint_timeout = '30s'
autovacuum_naptime = '10s'
log_autovacuum_min_duration = 0
temp_file_limit = '2MB'
work_mem = '64kB'
restart_after_crash = on
"""


class Server:
    """A PostgreSQL server with a folder of its own.

    Args:
        folder: An empty folder, which its user may write.
        programs: Where PostgreSQL's programs are.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs, self.log = folder, programs, folder / "log"
        self.data = folder / "data"
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def run(self, program: str, *arguments: str, check: bool = True) -> str:
        """Run one of PostgreSQL's programs; returns what it printed."""
        command = [*self.user, str(self.programs / program), *arguments]
        result = subprocess.run(command, check=check, capture_output=True, text=True)
        return result.stdout

    def start(self) -> None:
        """Start it, with pgbench's tables and one more."""
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS + f"unix_socket_directories = '{self.folder}'\n")
        hba = self.data / "pg_hba.conf"
        hba.write_text("local all locked scram-sha-256\n" + hba.read_text())
        self.run("pg_ctl", "-D", str(self.data), "-l", str(self.log), "-w", "start")
        self.sql("CREATE ROLE locked LOGIN PASSWORD 'right'", name="setup")
        self.run("pgbench", *self.place, "-i", "-s", "1", "-q", "postgres")
        # Nothing writes to it once it is on the disk: a recovery after another fault would meet the
        # damaged page, and give up.
        archive = "CREATE TABLE archive WITH (autovacuum_enabled = off) AS TABLE pgbench_accounts"
        for statement in (archive, "VACUUM archive", "CHECKPOINT"):
            self.sql(statement, name="setup")

    def stop(self) -> None:
        """Stop it."""
        self.run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop", check=False)

    @property
    def place(self) -> list[str]:
        """The options that say which server."""
        return ["-h", str(self.folder), "-p", PORT, "-U", "postgres"]

    def sql(self, statement: str, name: str = "fault", user: str = "postgres") -> str:
        """Run statements in a session of their own; errors are for the log."""
        where = f"host={self.folder} port={PORT} user={user} dbname=postgres password=wrong"
        target = f"{where} application_name={name}"
        return self.run("psql", "-X", "-A", "-t", "-d", target, "-c", statement, check=False)


UPDATES = (
    "UPDATE pgbench_branches SET filler = 'x' WHERE bid = 900",
    "UPDATE pgbench_branches SET filler = 'x' WHERE bid = 901",
)


def deadlock(server: Server) -> None:
    server.sql("INSERT INTO pgbench_branches VALUES (900, 0), (901, 0) ON CONFLICT DO NOTHING")
    forth, back = UPDATES
    at_once(
        lambda: server.sql(f"BEGIN; {forth}; SELECT pg_sleep(1); {back}; COMMIT"),
        lambda: server.sql(f"BEGIN; {back}; SELECT pg_sleep(1); {forth}; COMMIT"),
    )


def killed_backend(server: Server) -> None:
    def kill() -> None:
        time.sleep(0.5)
        query = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)%'"
        for pid in server.sql(query, name="pgbench").split():
            os.kill(int(pid), signal.SIGKILL)

    at_once(lambda: server.sql("SELECT pg_sleep(30)"), kill)
    for _ in range(150):
        if server.sql("SELECT 1", name="report"):  # it has recovered
            return
        time.sleep(0.2)
    last = server.log.read_text(errors="replace").splitlines()[-1]
    raise SystemExit(f"Error: the server did not recover from a killed backend: {last}")


def damaged_page(server: Server) -> None:
    path = server.sql("SELECT pg_relation_filepath('archive')", name="pgbench").strip()
    with (server.data / path).open("r+b") as file:
        file.seek(8_192 * 40)
        file.write(b"\xff" * 64)
    server.sql("SELECT count(*) FROM archive")


def too_many_clients(server: Server) -> None:
    at_once(*[lambda: server.sql("SELECT pg_sleep(1)")] * 14)


FAULTS: dict[str, Callable[[Server], object]] = {
    "deadlock": deadlock,
    "killed backend": killed_backend,
    "damaged page": damaged_page,
    "too many clients": too_many_clients,
    "out of time": lambda s: s.sql("SET statement_timeout = 200; SELECT pg_sleep(2)"),
    "out of space": lambda s: s.sql("SELECT * FROM pgbench_accounts ORDER BY filler, abalance"),
    "wrong password": lambda s: s.sql("SELECT 1", user="locked"),
    "key exists": lambda s: s.sql("INSERT INTO pgbench_tellers VALUES (1, 1, 0)"),
    "division by zero": lambda s: s.sql("SELECT tid / tbalance % 0 FROM pgbench_tellers"),
    "missing table": lambda s: s.sql("SELECT aid FROM pgbench_acounts WHERE aid = 77"),
}


REPORTS = (
    "SELECT count(*) FROM pgbench_history",
    "SELECT sum(bbalance) FROM pgbench_branches",
    "SELECT tid, tbalance FROM pgbench_tellers ORDER BY tbalance DESC LIMIT 3",
)
"""What somebody asks now and then, as faulty sessions do, with psql."""


def at_once(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with running_server() as server:
        begun = server.log.stat().st_size
        work(server, arguments.seconds, arguments.seed)
        lines = server.log.read_bytes()[begun:].decode(errors="replace").splitlines()
    odd = [number for number, line in enumerate(lines, 1) if is_odd(line)]
    arguments.log.write_text("".join(anonymous(line) + "\n" for line in lines))
    arguments.labels.write_text("\n".join(map(str, odd)) + "\n")
    print(f"{len(lines)} lines, {len(odd)} of them from {len(FAULTS)} kinds of faults")


def anonymous(line: str) -> str:
    """A line without the name of its session, which would tell."""
    line = re.sub(r" <.*?>", "", line, count=1)
    return re.sub(r"application_name=(fault|report)", "application_name=psql", line)


@contextmanager
def running_server() -> Iterator[Server]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(found).parent for found in [shutil.which("postgres")] if found
    ]
    if not programs:
        raise SystemExit("Error: PostgreSQL is not installed; install the package postgresql")
    with tempfile.TemporaryDirectory(prefix="rillet-postgres-") as name:
        if os.geteuid() == 0:
            shutil.chown(name, "postgres")
        server = Server(Path(name), programs[-1])
        try:
            server.start()
            yield server
        finally:
            server.stop()


def work(server: Server, seconds: float, seed: int) -> None:
    """Keep the server busy, with faults in between."""
    draw = random.Random(seed)  # noqa: S311
    end, done = time.monotonic() + seconds, threading.Event()
    load = ["-C", "-n", "-c", "2", "-R", "15", "-b", "tpcb-like@1", "-b", "select-only@3"]

    def keep_busy() -> None:
        while (left := int(end - time.monotonic())) > 0:  # a crash of the server ends it
            server.run("pgbench", *server.place, *load, "-T", str(left), "postgres", check=False)
            time.sleep(1.0)

    def report() -> None:
        for report in itertools.cycle(REPORTS):
            if done.wait(0.7):
                break
            server.sql(report, name="report")

    busy = [threading.Thread(target=call) for call in (keep_busy, report)]
    for thread in busy:
        thread.start()
    kinds: list[str] = []
    try:
        while time.monotonic() < end:
            time.sleep(draw.uniform(1.0, 3.0))
            kinds = kinds or draw.sample(sorted(FAULTS), len(FAULTS))
            FAULTS[kinds.pop()](server)
    finally:
        done.set()
        for thread in busy:
            thread.join()


def is_odd(line: str) -> bool:
    """Whether a line reports a fault, or what it led to.

    Where all is well, sessions log statements and connections, and the server its checkpoints and
    vacuums. What a session does that others do too is not odd, even if it then meets with a fault.
    """
    match = re.match(r"\S+ \S+ \S+ \[\d+\] <(.*?)> (\w+):  (\w+)", line)
    if match is None:
        return False
    name, severity, first = match.groups()
    usual = {"statement", "disconnection"} if name else {"automatic", "checkpoint"}
    return severity != "LOG" or first not in {"connection", *usual}


if __name__ == "__main__":
    main()
