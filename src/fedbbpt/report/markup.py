"""HTML in which escaping cannot be forgotten: what is put into a tag is text unless it is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

VOID = frozenset({"br", "img", "meta"})


class Markup(str):
    """HTML that is whole; every other string is text."""

    __slots__ = ()


NOTHING = Markup("")


def tag(name: str, /, *content: str, **attributes: str | bool) -> Markup:
    """One element.

    Args:
        name: of the element.
        content: markup as it is, text escaped.
        attributes: text; ``cls`` is class, an underscore a hyphen; ``True`` stands alone, ``False``
            and ``""`` are left out.
    """
    shown = "".join(
        f" {key}" if value is True else f' {key}="{escape(str(value))}"'
        for key, value in (
            ("class" if k == "cls" else k.replace("_", "-"), v) for k, v in attributes.items()
        )
        if value is not False and value != ""
    )
    if name in VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{together(*content)}</{name}>")


def together(*content: str) -> Markup:
    """Several pieces as one."""
    return Markup("".join(one if isinstance(one, Markup) else escape(one) for one in content))


def section(title: str, *content: str, name: str = "", note: str = "") -> Markup:
    """A part of the page with its heading; nothing if it would be empty."""
    if not any(content):
        return NOTHING
    said = tag("p", note, cls="note") if note else NOTHING
    return tag("section", tag("h2", title), said, *content, cls=name)


def paragraphs(*texts: str, cls: str = "") -> Markup:
    """A paragraph for each text that says something."""
    return together(*(tag("p", text, cls=cls) for text in texts if text))


def listed(texts: Iterable[str], cls: str = "") -> Markup:
    """Texts as a list; nothing for none."""
    items = [tag("li", text) for text in texts]
    return tag("ul", *items, cls=cls) if items else NOTHING


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    text: Sequence[int] = (0,),
    caption: str = "",
    cls: str = "",
) -> Markup:
    """A table that scrolls by itself where the page is too narrow for it.

    Args:
        head: names of the columns.
        rows: cells; of a row with fewer cells than columns the last spans the rest.
        text: columns that are read and not compared, so that they stand to the left.
        caption: what it shows.
        cls: for the style sheet.
    """
    side = ["" if i in text else "number" for i in range(len(head))]
    top = tag("tr", *(tag("th", n, scope="col", cls=c) for n, c in zip(head, side, strict=True)))
    body = [_row(row, side) for row in rows]
    told = tag("caption", caption) if caption else NOTHING
    whole = tag("table", told, tag("thead", top), tag("tbody", *body), cls=cls)
    return tag(
        "div", whole, cls="scroll", role="region", tabindex="0", aria_label=caption or "table"
    )


def _row(row: Sequence[str], side: Sequence[str]) -> Markup:
    cells = [
        tag("th", row[0], scope="row", cls=side[0]),
        *(tag("td", cell, cls=c) for cell, c in zip(row[1:], side[1 : len(row)], strict=True)),
    ]
    if len(row) < len(side):
        span = str(len(side) - len(row) + 1)
        cells[-1] = tag("td" if len(row) > 1 else "th", row[-1], colspan=span)
    return tag("tr", *cells)


def folded(title: str, *content: str) -> Markup:
    """What few want to see; open on paper."""
    return tag("details", tag("summary", title), *content)


def pairs(facts: Iterable[tuple[str, str]], cls: str = "facts") -> Markup:
    """Names and what they are."""
    items = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]
    return tag("dl", *items, cls=cls) if items else NOTHING


def page(title: str, *content: str) -> str:
    """A whole page that needs nothing from anywhere."""
    style = files("fedbbpt.report").joinpath("page.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        # A page that somebody forwards must not be able to fetch or send anything.
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag("body", tag("main", *content))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
