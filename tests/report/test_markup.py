"""Text is text wherever it is put, and a page needs nothing but itself."""

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.report.markup import NOTHING, Markup, folded, listed, page, pairs, section, table, tag

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Fails on tags that are not closed in order; keeps text and attributes."""

    def __init__(self, content):
        super().__init__()
        self.open, self.texts, self.attributes = [], [], []
        self.feed(content)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, name, attributes):
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        self.texts.append(text)


@given(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), min_size=1))
def test_any_text_comes_out_as_it_went_in(text):
    made = tag("p", text, title=text)
    assert isinstance(made, Markup)
    read = Reader(made)
    assert "".join(read.texts) == text
    assert ("title", text) in read.attributes


def test_markup_is_not_escaped_again():
    inner = tag("b", "1 < 2")
    assert tag("p", inner, " & ") == "<p><b>1 &lt; 2</b> &amp; </p>"


def test_nothing_leaves_nothing_behind():
    assert section("Empty", NOTHING, "") == ""
    assert listed([]) == pairs([]) == ""


def test_a_row_that_says_why_it_is_empty_spans_the_table():
    made = table(["method", "score", "time"], [["a", "0.5", "1 s"], ["b", "it failed"]])
    assert '<td colspan="2">it failed</td>' in made
    assert made.count("<tr>") == 3
    Reader(made)


def test_a_page_asks_nobody_for_anything():
    whole = page("<title>", section("One", folded("more", "text")), table(["a"], [["b"]]))
    read = Reader(whole.removeprefix("<!doctype html>"))
    assert "<title>" in read.texts
    names = {name for name, _ in read.attributes}
    assert not names & {"src", "href", "onload", "onclick"}
    assert not re.search(r"https?:|url\(|@import|<script|<link", whole)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in (
        read.attributes
    )
