"""Opening what others wrote, for reading only: files of JSON, SQL databases, Redis.

Nothing is created or changed at the source: a database file that is not there is an error, and
SQLite opens one read-only.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import os
import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from tsmemory.errors import (
    InvalidInputError,
    MissingDependencyError,
    TSMemoryError,
    UnavailableError,
)
from tsmemory.model import Problem
from tsmemory.times import MAX_TIME

__all__ = [
    "Source", "attempt", "documents", "each", "glob_of", "json_in", "mapping_of", "micros_of",
    "open_redis", "open_sql",
    "read_bytes", "redacted", "sqlite_connection", "sqlite_file", "text_of",
]  # fmt: skip

T = TypeVar("T")
Source = Any
"""A path, a URL, or an open file or client, as the format says."""

ODD_DATA = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, ArithmeticError,
)  # fmt: skip
"""What reading odd data as if it were right can raise."""

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]*:[^@\s'\"]*@")


def redacted(text: str) -> tuple[str, bool]:
    """`text` without the credentials of URLs in it, and whether there were some."""
    clean = _CREDENTIALS.sub("…@", text)
    return clean, clean != text


def attempt(work: Callable[[], T], where: Problem) -> T | Problem:
    """What `work` makes of odd data; `where`, the reason added, where it cannot."""
    try:
        return work()
    except ODD_DATA as error:
        if isinstance(error, TSMemoryError) and not isinstance(error, InvalidInputError):
            raise
        reason = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return where._replace(what=f"{where.what}: {reason:.300}")


def each(
    values: Iterable[Any], parse: Callable[[Any], T], where: Callable[[int], Problem]
) -> tuple[list[T], list[Problem]]:
    """What `parse` makes of each value, and a problem for each that it makes nothing of.

    Args:
        where: the place of the n-th value, from 1.
    """
    good: list[T] = []
    problems: list[Problem] = []
    for number, value in enumerate(values, 1):
        parsed = attempt(lambda: parse(value), where(number))  # noqa: B023  # called at once
        if isinstance(parsed, Problem):
            problems.append(parsed)
        else:
            good.append(parsed)
    return good, problems


def mapping_of(value: Any) -> dict[str, Any]:
    """`value` where it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


# -- JSON ----------------------------------------------------------------------------------------


def read_bytes(source: Source, *, inside: str | None = None) -> bytes:
    """The bytes of a path, or of an open file.

    Args:
        inside: the name of a file, where the path is of a directory or a zip archive with it.

    Raises:
        InvalidInputError: there is no such file.
    """
    if hasattr(source, "read"):
        content = source.read()
        return content.encode() if isinstance(content, str) else bytes(content)
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidInputError(f"give a path or an open file, not a {type(source).__name__}")
    path = Path(source)
    try:
        if path.is_dir() and inside is not None:
            path = path / inside
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{path} cannot be read: {error}") from error
    if inside is not None and content[:4] == b"PK\x03\x04":
        return _unzipped(content, inside, path)
    return content


def _unzipped(content: bytes, inside: str, path: Path) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == inside]
            if not names:
                raise InvalidInputError(f"{path} has no {inside} in it")
            return archive.read(names[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise InvalidInputError(f"{path} is a damaged archive: {error}") from error


def text_of(content: bytes | str) -> str:
    """Text in UTF-8, or in UTF-16 with its mark; a mark at the beginning is no part of it.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


def json_in(content: bytes | str) -> Any:
    """A JSON value.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(text_of(content))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def documents(content: bytes) -> Iterator[tuple[str, Any]]:
    """The JSON values in a file, each with where it is: one per line, the items of an array, or one
    value over many lines. In the place of one that does not decode, its error."""
    try:
        value = json_in(content)
    except ValueError as error:
        yield from _lines(content, error)
        return
    if isinstance(value, list):
        yield from ((f"item {number}", element) for number, element in enumerate(value, 1))
    else:
        yield "the file" if b"\n" in content.strip() else "line 1", value


def _lines(content: bytes, error: ValueError) -> Iterator[tuple[str, Any]]:
    try:
        lines = text_of(content).split("\n")
    except ValueError:
        # One line that is not UTF-8 must not take the others along.
        lines = [line.decode("utf-8", "surrogateescape") for line in content.split(b"\n")]
    values: list[tuple[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            line.encode()
            values.append((f"line {number}", json_in(line)))
        except (ValueError, UnicodeEncodeError) as reason:
            values.append((f"line {number}", ValueError(f"not JSON: {reason}")))
    if all(isinstance(value, ValueError) for _, value in values):
        yield "the file", ValueError(f"not JSON: {error}")
        return
    yield from values


def micros_of(value: Any) -> int | None:
    """A time as others write it, in µs since the epoch: seconds, milliseconds, microseconds or
    nanoseconds by their size, a number as text, or ISO 8601. None where it is none, or before 1970.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        return _micros_of_text(value.strip())
    if isinstance(value, dt.datetime):
        return _micros_of_moment(value)
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        return None
    for limit, scale in ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (1e20, 1e-3)):
        if value < limit:
            exact = isinstance(value, int)
            micros = value * int(scale) if exact and scale >= 1 else round(value * scale)
            return int(micros) if 0 < micros <= MAX_TIME else None
    return None


_FRACTION = re.compile(r"\.(\d{1,6})\d*")


def _micros_of_text(text: str) -> int | None:
    try:
        return micros_of(float(text) if "." in text else int(text))
    except (ValueError, OverflowError):
        pass
    text = _FRACTION.sub(lambda match: "." + match[1].ljust(6, "0"), text)
    text = re.sub(r"[zZ]\Z", "+00:00", text)
    text = re.sub(r"([+-]\d\d)(\d\d)?\Z", lambda m: f"{m[1]}:{m[2] or '00'}", text)
    try:
        return _micros_of_moment(dt.datetime.fromisoformat(text))
    except ValueError:
        return None


def _micros_of_moment(moment: dt.datetime) -> int | None:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.timezone.utc)
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
    micros = (moment - epoch) // dt.timedelta(microseconds=1)
    return micros if micros > 0 else None


# -- databases -----------------------------------------------------------------------------------


def sqlite_file(source: Source) -> Path | None:
    """The file of a path, or of a ``sqlite:`` URL of any driver; None for another source.

    Raises:
        InvalidInputError: it is not there.
    """
    if isinstance(source, str) and "://" in source:
        parts = urlsplit(source)
        if parts.scheme.partition("+")[0] != "sqlite":
            return None
        path = Path(unquote(parts.path.removeprefix("/")))
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
    else:
        return None
    if not path.is_file():
        raise InvalidInputError(f"there is no file {path}")
    return path


@contextmanager
def sqlite_connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A SQLite database, read-only, without making a file beside it: one in WAL mode that nobody
    writes needs ``immutable`` for that."""
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    uri = f"file:{quote(str(path.absolute()))}?{mode}"
    try:
        db = sqlite3.connect(uri, uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise UnavailableError(f"{path} cannot be opened: {error}") from error
    try:
        yield db
    finally:
        db.close()


@contextmanager
def open_sql(source: Source) -> Iterator[Any]:
    """A SQLAlchemy connection to a URL of any of its drivers, a SQLite file, an ``Engine`` or an
    ``AsyncEngine``, which stays open.

    Raises:
        MissingDependencyError: SQLAlchemy is not installed.
        InvalidInputError: neither of these.
    """
    try:
        import sqlalchemy  # of the caller's choice, with the driver of the database
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "reading another program's database needs SQLAlchemy; pip install sqlalchemy"
        ) from error
    if isinstance(source, sqlalchemy.Engine):
        with source.connect() as db:
            yield db
        return
    url: Any = getattr(source, "url", source)  # an AsyncEngine's
    path = sqlite_file(url)
    if path is None and str(url).startswith("sqlite"):
        path = sqlite_file(str(url.database))
    if path is not None:
        with sqlite_connection(path) as raw:
            engine = sqlalchemy.create_engine(
                "sqlite://", creator=lambda: raw, poolclass=sqlalchemy.pool.StaticPool
            )
            with engine.connect() as db:
                yield db
        return
    engine = _engine(url)
    try:
        with engine.connect() as db:
            yield db
    finally:
        engine.dispose()


def _engine(url: Any) -> Any:
    """A SQLAlchemy engine for a URL; PostgreSQL's with psycopg, which is synchronous."""
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = sqlalchemy.make_url(url)
        drivername = parsed.drivername
    except (ArgumentError, AttributeError, TypeError):
        raise InvalidInputError("give a SQLAlchemy URL, a SQLite file, or an Engine") from None
    if drivername in ("postgres", "postgresql", "postgresql+asyncpg"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        return sqlalchemy.create_engine(parsed)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"the driver {error.name} is not installed") from error


@contextmanager
def open_redis(source: Source) -> Iterator[Any]:
    """A client for a ``redis:``, ``rediss:``, ``valkey:`` or ``unix:`` URL; a ready client as it
    is, which stays open.

    Raises:
        MissingDependencyError: redis is not installed.
        InvalidInputError: the URL is none.
    """
    if not isinstance(source, str):
        if not hasattr(source, "scan_iter"):
            raise InvalidInputError("give a redis:// URL, or a client of redis-py or valkey-py")
        yield source
        return
    try:
        import redis
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            'reading Redis needs its client; pip install "tsmemory[redis]"'
        ) from error
    url = re.sub(r"\Avalkey(s?)://", r"redis\1://", source)
    try:
        client = redis.Redis.from_url(url)
    except ValueError:
        raise InvalidInputError("give a URL as redis://host:6379/0") from None
    try:
        yield client
    finally:
        client.close()


_GLOB = re.compile(r"([*?\[\]\\])")


def glob_of(prefix: str) -> str:
    """The pattern of Redis for the keys that begin with `prefix`."""
    return _GLOB.sub(r"\\\1", prefix) + "*"
