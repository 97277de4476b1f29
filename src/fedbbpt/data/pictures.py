"""Labelled images: a folder for each class, on disk or in a tar, or a table with their paths.

Nothing is repaired silently. A file that is no image, or not a whole one, is named, left out and
counted (``Table.skipped``), or refused. Unlike texts, names of image files may stand in messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.data import _pixels
from fedbbpt.data._image_files import File, Listing, Parts, contents, listing, named, on_disk, shown
from fedbbpt.data._image_files import holds_files as holds_files
from fedbbpt.data._image_files import sources as sources
from fedbbpt.data._pixels import Unreadable
from fedbbpt.data._readers import READERS
from fedbbpt.data._table import Example as Example
from fedbbpt.data._table import Table
from fedbbpt.data._table import left_out as left_out
from fedbbpt.data._table import tabled as tabled
from fedbbpt.errors import DataError
from fedbbpt.types import Picture

SHORTER = 512
"""Pixels of the shorter side to which larger images are shrunk: twice what most models take."""
DEPTHS = {"class": 2, "site/class": 3}
"""How many names the path of an image has, by layout."""


# --- one image -----------------------------------------------------------------------------------


def picture(image: Any, name: str = "", pixels: int = SHORTER) -> Picture:
    """An image in any of its forms as a picture.

    Args:
        image: a picture already; a ``pathlib.Path``; a Pillow image; or an array (H, W), (H, W, 3)
            or (H, W, 4) of uint8 or of floats in [0, 1], channels last.
        name: for messages; of a path the path.
        pixels: a shorter side with more is shrunk to this, 0 for never.

    Raises:
        DataError: it is none of these, or cannot be read.
        MissingExtra: Pillow is needed and not installed.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, Path):
        name = name or str(image)
    try:
        return Picture(_read(image, pixels), shown(name))
    except Unreadable as error:
        raise DataError(f"{shown(name) or 'an image'} cannot be used: it is {error}") from None


def _read(image: Any, pixels: int) -> Any:
    if isinstance(image, Path):
        return _pixels.decode(on_disk(image), pixels)
    if isinstance(image, np.ndarray):
        return _pixels.shrink(_pixels.coloured(image), pixels)
    if hasattr(image, "getexif"):  # Pillow's; it need not be loaded for the others
        return _pixels.guarded(lambda: _pixels.flat(image, pixels))
    raise Unreadable(f"of type {type(image).__name__}; give an array, a Pillow image or a Path")


# --- many ----------------------------------------------------------------------------------------


def load_folder(
    path: Path,
    *,
    layout: str = "class",
    pixels: int = SHORTER,
    corrupt: str = "skip",
    names: Mapping[str, str] | None = None,
    training: bool = True,
) -> Table:
    """The images of a folder, a tar file or a folder in one, in the order of their paths.

    Args:
        path: its folders are the classes; or the sites, with folders for classes in them. Test
            images that belong to no site may lie in folders for classes either way.
        layout: ``"class"`` or ``"site/class"``.
        pixels: as in :func:`picture`.
        corrupt: ``"refuse"`` what cannot be read, or ``"skip"`` it.
        names: better names for some classes.
        training: every class and every site must have an image.

    Raises:
        DataError: it is laid out in another way, or nothing is left of it or of a part of it.
        MissingExtra: Pillow is not installed.
    """
    found, better = listing(path), names or {}
    depth = _depth(path, found, layout, training)
    wanted = [parts for parts in found.files if len(parts) == depth]
    opened = {parts: file.open(pixels) for parts, file in contents(path, wanted)}

    def example(parts: Parts) -> Example:
        if len(parts) < depth:
            return Example(named(parts), "", None, fault="in no class folder")
        label, site = _printable(path, parts[-2]), _printable(path, parts[0])
        site_or_none = site if depth == DEPTHS["site/class"] else None
        return Example(named(parts), better.get(label, label), site_or_none, *opened[parts])

    classes = {better.get(p[-1], p[-1]) for p in found.folders if len(p) == depth - 1}
    sites = {p[0] for p in found.folders if depth == DEPTHS["site/class"]}
    examples = [example(parts) for parts in found.files]
    return tabled(examples, str(path), corrupt, (classes, sites) if training else None)


def load_listed(
    table: Table, path: Path, pixels: int = SHORTER, corrupt: str = "skip", training: bool = True
) -> Table:
    """The images whose paths are the texts of a table.

    Args:
        table: from :func:`fedbbpt.data.load.load`.
        path: of the table's file; paths in it are relative to its folder.
        pixels, corrupt, training: as in :func:`load_folder`.

    Raises:
        DataError, MissingExtra: as :func:`load_folder` does.
    """
    sites = table.sites or (None,) * len(table.labels)
    files = listed(table.inputs, path)
    examples = [
        Example(file.name, label, site, *file.open(pixels))
        for file, label, site in zip(files, table.labels, sites, strict=True)
    ]
    return tabled(examples, str(path), corrupt, (set(), set()) if training else None)


def _depth(path: Path, found: Listing, layout: str, training: bool) -> int:
    """How many names the paths of the images have; DataError if they fit no layout."""
    if not found.files:
        raise DataError(f"{path} holds no images; give it a folder of images for each class")
    depth, deepest = DEPTHS[layout], max(found.files, key=len)
    if not training and len(deepest) < depth:
        depth = DEPTHS["class"]
    if len(deepest) > depth:
        sites = "write data.layout = 'site/class' if the outer ones are sites, or " * (depth == 2)
        raise DataError(
            f"{path} has folders within its folders for classes, such as "
            f"'{named(deepest[:-1])}'; {sites}name one of the outer folders"
        )
    if len(deepest) < depth and not any(len(parts) == depth - 1 for parts in found.folders):
        inner = " within each folder for a site" * (depth == DEPTHS["site/class"])
        raise DataError(f"{path} has no folders for classes; make one for each{inner}")
    return depth


def _printable(path: Path, name: str) -> str:
    if shown(name) != name:
        raise DataError(
            f"{path}: the folder '{shown(name)}' has a name with odd letters; rename it"
        )
    return name


# --- images that want a label --------------------------------------------------------------------


def holds_pictures(path: Path) -> bool:
    """Whether a path leads by itself to images: a folder, a tar or a single file."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return holds_files(path) or (path.is_file() and suffix not in READERS)


def unlabelled(path: Path) -> list[File]:
    """All images of a folder laid out in any way, of a tar or of one file, in the order of paths.

    Raises:
        DataError: there are none.
    """
    if not holds_files(path):
        return [File(shown(path.name), partial(on_disk, path))]
    files = listing(path).files
    if not files:
        raise DataError(f"{path} holds no images")
    if path.is_dir():
        return [file for _, file in contents(path, files)]
    # An archive is read from begin to end; packed as they are, its images are small.
    held = {parts: _held(file) for parts, file in contents(path, files)}
    return [held[parts] for parts in files]


def listed(names: Sequence[str], path: Path) -> list[File]:
    """The images of these paths, relative to the folder of a table."""
    return [File(shown(name), partial(on_disk, path.parent / name)) for name in names]


def _held(file: File) -> File:
    try:
        data = file.read()
    except Unreadable:
        return file  # it will say so again
    return File(file.name, lambda: data)
