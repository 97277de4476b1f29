"""Where images lie: the files of a folder, on disk or in a tar archive, and what is in them.

Nothing of an archive is ever written to disk. Its links, its devices and whatever would lie outside
of it (an absolute path, or one with ``..``) are not there for us.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fedbbpt.data._pixels import Unreadable, decode
from fedbbpt.errors import DataError
from fedbbpt.types import Picture

ARCHIVES = (".tar", ".tar.gz", ".tgz")
HIDDEN = ("thumbs.db", "desktop.ini", "__macosx")
"""What systems leave beside images, as are all names that begin with a dot."""
LARGEST = 1 << 28
"""Bytes of a file that is opened; no image worth its name has more."""

Parts = tuple[str, ...]
"""A path below its root, as the names of its folders and its own."""


class File(NamedTuple):
    """An image that is not read yet; ``read`` raises Unreadable where that cannot be done."""

    name: str
    read: Callable[[], bytes]

    def open(self, pixels: int) -> tuple[Picture | None, str]:
        """The picture, or ``None`` and the reason; a longer shorter side is cut to ``pixels``."""
        try:
            return Picture(decode(self.read(), pixels), self.name), ""
        except Unreadable as error:
            return None, str(error)


class Listing(NamedTuple):
    """All that can be seen below a root: files and folders, each sorted."""

    files: tuple[Parts, ...]
    folders: tuple[Parts, ...]


def archive(path: Path) -> tuple[Path, Parts] | None:
    """The tar file that a path names or leads into, and the folder in it."""
    for place in (path, *path.parents):
        if place.name.lower().endswith(ARCHIVES) and place.is_file():
            return place, path.relative_to(place).parts
    return None


def holds_files(path: Path) -> bool:
    """Whether a path is a folder, a tar file or a folder in one."""
    return path.is_dir() or archive(path) is not None


def listing(path: Path) -> Listing:
    """What lies below a folder, hidden names left out.

    Raises:
        DataError: it cannot be read, or the archive has no such folder.
    """
    found = archive(path)
    if found:
        every = sorted({(parts, member.isdir()) for parts, member, _ in _members(*found)})
    else:
        every = sorted(_entries(path, ()))
    files = tuple(parts for parts, is_folder in every if not is_folder)
    above = {parts[:i] for parts in files for i in range(1, len(parts))}
    folders = above | {parts for parts, is_folder in every if is_folder}
    if found and found[1] and not every:
        _check_inside(*found)
    return Listing(files, tuple(sorted(folders)))


def contents(path: Path, files: Iterable[Parts]) -> Iterator[tuple[Parts, File]]:
    """The files, to be read one by one as they come; those of an archive come in its own order,
    the last version of a file that was packed twice last.
    """
    found = archive(path)
    if found is None:
        for parts in files:
            yield parts, File(named(parts), partial(on_disk, path.joinpath(*parts)))
        return
    wanted = set(files)
    for parts, member, whole in _members(*found):
        if parts in wanted and member.isfile():
            yield parts, File(named(parts), partial(_packed, found[0], whole, member))


def sources(path: Path) -> list[Path]:
    """The files on disk that images are read from: those of a folder, or one archive."""
    found = archive(path)
    return [found[0]] if found else [path.joinpath(*parts) for parts in listing(path).files]


def on_disk(path: Path) -> bytes:
    """The bytes of a file; Unreadable says in a few words why there are none."""
    try:
        if not path.exists():
            raise Unreadable("does not exist")
        if not path.is_file():
            raise Unreadable("not a file")
        _fits(path.stat().st_size)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path itself
        raise Unreadable(f"cannot be opened, {getattr(error, 'strerror', error)}") from None


def shown(name: str) -> str:
    """A name as it may stand in a sentence, whatever it holds."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def named(parts: Parts) -> str:
    """A path as it may stand in a sentence."""
    return shown("/".join(parts))


def _entries(folder: Path, above: Parts) -> Iterator[tuple[Parts, bool]]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); check its rights") from None
    for entry in entries:
        if _hidden(entry.name):
            continue
        parts = (*above, entry.name)
        yield parts, entry.is_dir()
        if entry.is_dir():
            if entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve()):
                raise DataError(f"{entry} is a link to a folder that it lies in; remove it")
            yield from _entries(entry, parts)


def _members(path: Path, inner: Parts) -> Iterator[tuple[Parts, tarfile.TarInfo, tarfile.TarFile]]:
    """Visible files and folders of an archive below a folder in it."""
    for parts, member, whole in _every_member(path):
        below = parts[len(inner) :]
        if below and parts[: len(inner)] == inner and not any(map(_hidden, below)):
            yield below, member, whole


def _every_member(path: Path) -> Iterator[tuple[Parts, tarfile.TarInfo, tarfile.TarFile]]:
    with _whole(path), tarfile.open(path) as whole:
        for member in whole:
            parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
            inside = not member.name.startswith("/") and ".." not in parts
            if inside and (member.isreg() or member.isdir()):
                yield parts, member, whole
        # The library takes a damaged header for the end, where there should be zeros or nothing.
        assert whole.fileobj is not None
        whole.fileobj.seek(whole.offset)
        if whole.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"damaged at byte {whole.offset}")
        while whole.fileobj.read(1 << 20):
            pass  # gzip has its check sum behind all


def _check_inside(path: Path, inner: Parts) -> None:
    """DataError if an archive has no such folder."""
    tops: set[str] = set()
    for parts, _, _ in _every_member(path):
        if parts[: len(inner)] == inner:
            return
        tops.update(parts[:1])
    raise DataError(
        f"{path} holds no folder '{'/'.join(inner)}'; it holds: "
        f"{', '.join(map(shown, sorted(tops)[:10])) or 'nothing'}"
    )


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """DataError for whatever is found wrong with an archive."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path} is not a whole tar file ({why}); pack it again") from None


def _packed(path: Path, whole: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    _fits(member.size)
    with _whole(path):
        file = whole.extractfile(member)
        assert file is not None  # it is a regular file
        return file.read()


def _fits(size: int) -> None:
    if size > LARGEST:
        raise Unreadable(f"of {size} bytes, more than {LARGEST}")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in HIDDEN
