"""Well-known data sets: the facts about them that a config need not repeat.

One TOML file each in ``data/sets``: ``task`` and ``metric``; ``[data]``, keys of the config's
table of that name; ``[labels]``, a word for every class (left out where its name is one); and
``[templates]`` by where the prompt stands, ``label`` or ``text``, or for the text side by kind of
box (``masked_lm`` has a mask). A prompt on images stands beside the texts of the label side.
``[methods.NAME]`` holds what was published for the set under a preset, laid out as the config is.
Sets that differ in their metric alone share a file, whose table ``[members]`` says it of each;
their names begin with the file's: ``induction/antonyms``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fedbbpt.errors import UnknownPart, closest
from fedbbpt.trees import Tree


def names() -> list[str]:
    """The sets there are."""
    folder = files("fedbbpt.data") / "sets"
    found = list[str]()
    for stem in (f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml"):
        found += [f"{stem}/{one}" for one in _file(stem).get("members", ())] or [stem]
    return sorted(found)


def facts(tree: Mapping[str, Any]) -> Tree:
    """What to put underneath a config that names a set; nothing if it names none.

    Args:
        tree: the config as nested dicts, not checked yet.

    Raises:
        UnknownPart: no set of that name.
    """
    known = _known(tree)
    if not known:
        return {}
    known.pop("methods", None)
    labels, templates = known.pop("labels", {}), known.pop("templates")
    side, kind = _of(tree, "prompt", "side", "label"), _of(tree, "box", "kind", "dual_encoder")
    classes = known.pop("imagenet", {})
    if kind == "image_classifier":
        labels = classes
        templates = {} if side == "image" else templates
    place = kind if side == "text" and kind in templates else side
    place = "label" if side == "image" else place
    # A side that does not exist is refused, with the config's other keys, by whoever asked.
    known["prompt"] = {"template": templates.get(place, ""), "labels": labels}
    return known


def published(tree: Mapping[str, Any], preset: str) -> Tree:
    """What to put over a preset, under the user's config: what was published for the set.

    Args:
        tree: the config as nested dicts, not checked yet.
        preset: the method's name.

    Raises:
        UnknownPart: no set of that name.
    """
    methods: Tree = _known(tree).get("methods", {})
    constants: Tree = methods.get(preset, {})
    return constants


def _known(tree: Mapping[str, Any]) -> Tree:
    name = _of(tree, "data", "set", "")
    if not name:
        return {}
    if name not in names():
        raise UnknownPart(f"no data set is named '{name}'; {closest(str(name), names())}")
    stem, _, member = str(name).partition("/")
    known = _file(stem)
    if member:
        known["metric"] = known.pop("members")[member]
    return known


def _file(stem: str) -> Tree:
    return tomllib.loads((files("fedbbpt.data") / "sets" / f"{stem}.toml").read_text("utf-8"))


def _of(tree: Mapping[str, Any], table: str, key: str, default: str) -> Any:
    section = tree.get(table)
    return section.get(key, default) if isinstance(section, Mapping) else default
