"""The SQLite file of a league: rows that are known to be what was written, and errors that say what to do.

Every row carries a hash of its columns, and a table of digests the number of rows of each table and the exclusive or
of their hashes. All of it is verified when the file is opened, together with SQLite's own checks and the schema; later
each row once more where it is read. So a damaged file is refused, and never played on with other content. The hash is
no signature: who wants to forge a league can, which is why `League` holds every value against its meaning as well.

Several processes may use the file at once: every change is one transaction in write-ahead mode.
"""

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from lit_rl.run.errors import ArtefactError, StorageError

BUSY_SECONDS = 60.0  # how long to wait for another process's transaction
APPLICATION_ID, SCHEMA_VERSION = 0x4C52_4C31, 4  # "LRL1"
LONGEST_VALUE = 64 << 20  # bytes
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, hash INTEGER NOT NULL);
CREATE TABLE members (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, state TEXT NOT NULL, birth INTEGER NOT NULL, parent TEXT, file TEXT,
    sha256 TEXT, path TEXT, init_args TEXT NOT NULL, permanent INTEGER NOT NULL, created TEXT NOT NULL,
    reason TEXT NOT NULL, notes TEXT NOT NULL, rating REAL NOT NULL, deviation REAL NOT NULL,
    volatility REAL NOT NULL, hash INTEGER NOT NULL);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, iteration INTEGER NOT NULL, source TEXT NOT NULL, hash INTEGER NOT NULL,
    UNIQUE (run, iteration, source));
CREATE TABLE results (
    batch INTEGER NOT NULL REFERENCES batches (id), member TEXT NOT NULL REFERENCES members (name),
    opponent TEXT NOT NULL REFERENCES members (name), seat INTEGER NOT NULL, wins INTEGER NOT NULL,
    draws INTEGER NOT NULL, losses INTEGER NOT NULL, member_return REAL NOT NULL, opponent_return REAL NOT NULL,
    member_square REAL NOT NULL, opponent_square REAL NOT NULL,
    hash INTEGER NOT NULL);
CREATE INDEX results_of ON results (member, opponent);
CREATE TABLE rosters (
    run TEXT NOT NULL, iteration INTEGER NOT NULL, roster TEXT NOT NULL, hash INTEGER NOT NULL,
    PRIMARY KEY (run, iteration));
CREATE TABLE digests (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, digest INTEGER NOT NULL);
"""
TABLES = ("facts", "members", "batches", "results", "rosters")
REMEDY = "take a copy from before, or move it away with its -wal and -shm and begin a new league"
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)  # its messages quote what is in a damaged file
STORAGE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_AUTH,
}  # fmt: skip


class LeagueFile:
    """The rows in the file `path`, which is made with `facts` if there is none.

    Raises:
        ArtefactError: it is no league, or damaged. StorageError: it cannot be opened or made there.
    """

    def __init__(self, path: Path, facts: dict):
        self.path = path
        self._changes: dict[str, list[int]] = {}  # table -> [rows more, digest of what has changed], of a transaction
        self._verified = {"results": 0, "batches": 0}  # up to this rowid; these rows never change
        self._connection = None
        try:
            if not path.exists():
                self._create(facts)
            self._connection = self._connect(path)
            self._open()
        except (*SQLITE_ERRORS, OSError, ArtefactError) as error:
            self.close()
            if isinstance(error, SQLITE_ERRORS):
                raise self._ours(error) from error
            if isinstance(error, OSError) and not isinstance(error, StorageError):
                raise StorageError(f"league {path}: cannot be created ({error.strerror})") from error
            raise

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*SQLITE_ERRORS):  # what was acknowledged is written; there is no more to lose
                self._connection.close()

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _create(self, facts: dict) -> None:
        """Make the file under another name first, so that under its own it is never less than a league."""
        if self.path.with_name(f"{self.path.name}-wal").exists() and not self.path.exists():
            raise ArtefactError(
                f"league {self.path}: is gone, and its last changes are left in {self.path.name}-wal; put it back, or "
                "delete that file to begin a new league"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stage = self.path.with_name(f".{self.path.name}.{os.getpid()}.stage")
        stage.unlink(missing_ok=True)
        try:
            self._connection = self._connect(stage)
            with self.transaction():
                for statement in SCHEMA.split(";"):
                    self._execute(statement)
                self._execute(f"PRAGMA application_id = {APPLICATION_ID}")
                for table in TABLES:
                    self._execute("INSERT INTO digests VALUES (?, 0, 0)", (table,))
                for name, value in {"schema": SCHEMA_VERSION, **facts}.items():
                    self.insert("facts", (name, json.dumps(value)))
            self._connection.close()
            with contextlib.suppress(FileExistsError):  # another process was faster
                try:
                    os.link(stage, self.path)
                except FileExistsError:
                    raise
                except OSError:  # a file system without hard links
                    if not self.path.exists():
                        os.replace(stage, self.path)
        finally:
            self.close()
            stage.unlink(missing_ok=True)

    def _open(self) -> None:
        if self.path.is_file() and self.path.stat().st_size == 0:
            raise ArtefactError(f"league {self.path}: is empty; {REMEDY}")
        found = self._execute("PRAGMA application_id").fetchone()[0]
        schema = set(self._execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
        if found != APPLICATION_ID:
            raise ArtefactError(f"league {self.path}: an SQLite file of something else; choose another file")
        if schema != _schema():
            self._refuse_other_version()
            raise self._damaged("its schema is another")
        until = time.monotonic() + BUSY_SECONDS
        while True:  # SQLite does not wait by itself where two processes switch to write-ahead mode at once
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self._execute("BEGIN")  # one view of all tables
        try:
            self._check()
        finally:
            with contextlib.suppress(*SQLITE_ERRORS):
                self._connection.execute("ROLLBACK")

    def _refuse_other_version(self) -> None:
        with contextlib.suppress(*SQLITE_ERRORS, ValueError, RecursionError):
            for (text,) in self._connection.execute("SELECT value FROM facts WHERE name = 'schema'").fetchall():
                if json.loads(text) != SCHEMA_VERSION:
                    raise ArtefactError(
                        f"league {self.path}: written by another version of lit-rl; export it there, import here"
                    )

    def _check(self) -> None:
        said = self._execute("PRAGMA integrity_check(1)").fetchone()
        if said != ("ok",):
            raise self._damaged(str(said and said[0]))
        digests = {name: tuple(rest) for name, *rest in self._execute("SELECT name, rows, digest FROM digests")}
        for table in TABLES:
            count, digest, last = 0, 0, 0
            for rowid, *row in self._execute(f"SELECT rowid, * FROM {table}"):
                count, digest, last = count + 1, digest ^ self._hash_of(table, row), max(last, rowid)
            if digests.get(table) != (count, digest):
                raise self._damaged(f"{table}: rows are missing, or there are more than were written")
            if table in self._verified:
                self._verified[table] = last
        if self._execute("PRAGMA foreign_key_check").fetchone():
            raise self._damaged("results: of a batch or member that is not there")

    # Reading and writing.

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; waits for other processes' transactions."""
        self._execute("BEGIN IMMEDIATE")
        try:
            self._changes = {}
            yield
            for table, (rows, digest) in self._changes.items():
                before = self._execute("SELECT digest FROM digests WHERE name = ?", (table,)).fetchone()
                if before is None or type(before[0]) is not int:
                    raise self._damaged(f"digests: of {table} there is none")
                values = rows, before[0] ^ digest, table
                self._execute("UPDATE digests SET rows = rows + ?, digest = ? WHERE name = ?", values)
            self._execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(*SQLITE_ERRORS):
                self._connection.execute("ROLLBACK")
            if isinstance(error, SQLITE_ERRORS):
                raise self._ours(error) from error
            raise

    def rows(self, table: str, where: str = "", values: Iterable = ()) -> list[tuple]:
        """Rows of a table as they were written, in the order they came.

        Raises:
            ArtefactError: one is not.
        """
        found = self._execute(f"SELECT * FROM {table} {where} ORDER BY rowid", values).fetchall()
        for row in found:
            self._hash_of(table, row)
        return [row[:-1] for row in found]

    def query(self, statement: str, values: Iterable = ()) -> list[tuple]:
        """What a SELECT of batches and results says, once all of these rows are verified."""
        for table, last in self._verified.items():
            for rowid, *row in self._execute(f"SELECT rowid, * FROM {table} WHERE rowid > ?", (last,)):
                self._hash_of(table, row)
                self._verified[table] = max(self._verified[table], rowid)
        return self._execute(statement, values).fetchall()

    def insert(self, table: str, *rows: tuple) -> None:
        """Within a transaction: more rows."""
        cast = [self._cast(table, row) for row in rows]
        hashed = [(*row, _hash(table, row)) for row in cast]
        marks = ", ".join("?" * (len(_columns()[table]) + 1))
        try:
            self._connection.executemany(f"INSERT INTO {table} VALUES ({marks})", hashed)
        except SQLITE_ERRORS as error:
            raise self._ours(error) from error
        for row in hashed:
            self._note(table, 1, row[-1])

    def update(self, table: str, row: tuple) -> None:
        """Within a transaction: `row` instead of the one of the same name, its first column."""
        row, columns = self._cast(table, row), list(_columns()[table])
        old = self._execute(f"SELECT * FROM {table} WHERE {columns[0]} = ?", row[:1]).fetchone()
        if old is None:
            raise self._damaged(f"{table}: the row {str(row[0])[:200]!r} is gone")
        before, hashed = self._hash_of(table, old), _hash(table, row)
        values = ", ".join(f"{column} = ?" for column in [*columns, "hash"])
        self._execute(f"UPDATE {table} SET {values} WHERE {columns[0]} = ?", (*row, hashed, row[0]))
        self._note(table, 0, before ^ hashed)

    def _note(self, table: str, rows: int, digest: int) -> None:
        change = self._changes.setdefault(table, [0, 0])
        change[0] += rows
        change[1] ^= digest

    def _cast(self, table: str, row: tuple) -> tuple:
        """In the types of the columns, as they will be read.

        Raises:
            ValueError: a number that SQLite cannot keep.
        """
        cast = []
        for (column, (kind, _)), value in zip(_columns()[table].items(), row, strict=True):
            value = value if value is None else kind(value)
            value = value + 0.0 if kind is float else value  # SQLite keeps no -0.0
            if (kind is float and not math.isfinite(value)) or (kind is int and not -(2**63) <= value < 2**63):
                raise ValueError(f"{table}.{column}={str(value)[:200]}: must be finite, and fit into 64 bits")
            cast.append(value)
        return tuple(cast)

    def _hash_of(self, table: str, row: Iterable) -> int:
        """The hash of a row that was read, which is the one that stands in it."""
        *values, hashed = row
        for (column, (kind, optional)), value in zip(_columns()[table].items(), values, strict=True):
            if type(value) is not kind and not (optional and value is None):
                raise self._damaged(f"{table}.{column}={str(value)[:200]!r}: is no {kind.__name__}")
        if _hash(table, values) != hashed:
            raise self._damaged(f"{table}: the row {str(values[0])[:200]!r} is not what was written")
        return hashed

    def _execute(self, statement: str, values: Iterable = ()) -> sqlite3.Cursor:
        try:
            return _Rows(self._connection.execute(statement, tuple(values)), self._ours)
        except SQLITE_ERRORS as error:
            raise self._ours(error) from error

    def _damaged(self, how: str) -> ArtefactError:
        how = " ".join(how.replace("*** in database main ***", "").split())
        return ArtefactError(f"league {self.path}: is damaged ({how[:400]}); {REMEDY}")

    def _ours(self, error: Exception) -> Exception:
        """The error of ours that one of SQLite's is: what the disk or another process does, or what is in the file."""
        code = getattr(error, "sqlite_errorcode", -1)
        if code & 0xFF == sqlite3.SQLITE_READONLY and not _writable(self.path):
            return StorageError(f"league {self.path}: cannot be written ({error}); choose a file you may write")
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StorageError(
                f"league {self.path}: another process has kept it for {BUSY_SECONDS:.0f} s ({error}); end that one"
            )
        if code & 0xFF in STORAGE and code != sqlite3.SQLITE_IOERR_SHORT_READ:
            return StorageError(f"league {self.path}: cannot be opened or written ({error}); choose another place")
        if code & 0xFF == sqlite3.SQLITE_NOTADB:
            return ArtefactError(f"league {self.path}: is no league file ({error}); move it away")
        return self._damaged(str(error))


class _Rows:
    """A cursor whose errors are ours as well."""

    def __init__(self, cursor: sqlite3.Cursor, ours):
        self._cursor, self._ours = cursor, ours

    def __iter__(self) -> Iterator[tuple]:
        try:
            yield from self._cursor
        except SQLITE_ERRORS as error:
            raise self._ours(error) from error

    def fetchall(self) -> list[tuple]:
        return list(self)

    def fetchone(self) -> tuple | None:
        return next(iter(self), None)


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _hash(table: str, values: Iterable) -> int:
    text = json.dumps([table, *values])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


@cache
def _fresh() -> tuple[set, dict]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        schema = set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
        kinds = {"TEXT": str, "INTEGER": int, "REAL": float}
        columns = {
            table: {
                name: (kinds[kind], not needed and not key)
                for _, name, kind, needed, _, key in connection.execute(f"PRAGMA table_info({table})")
                if name != "hash"
            }
            for table in TABLES
        }
    return schema, columns


def _schema() -> set[tuple]:
    return _fresh()[0]


def _columns() -> dict[str, dict[str, tuple[type, bool]]]:
    """table -> column -> (type, whether it may be empty), the hash left out."""
    return _fresh()[1]
