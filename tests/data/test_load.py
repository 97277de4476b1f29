import csv
import gzip
import json
import math
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedbbpt.data.load import Table, classes, load, numbers
from fedbbpt.errors import ConfigError, DataError, MissingExtra


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, *parts, **columns):
    """Load must fail with one sentence that names the file, holds every part and shows no text."""
    with pytest.raises(DataError) as caught:
        load(path, **columns)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message and "private" not in message, message
    assert "\n" not in message and ". " not in message and message[-1] != ".", message


def parquet(folder, name="a.parquet", **columns):
    path = folder / name
    pq.write_table(pa.table(columns), path)
    return path


# --- what is read --------------------------------------------------------------------------------


EXPECTED = Table(("good, really", "bad"), ("yes", "no"), None)
SAME = {
    "a.csv": 'text,label\n"good, really",yes\nbad,no\n',
    "b.CSV": 'label,text,other\r\nyes,"good, really",1\r\nno,bad,2\r\n',
    "c.tsv": "text\tlabel\ngood, really\tyes\nbad\tno",
    "d.jsonl": '{"text": "good, really", "label": "yes"}\n{"text": "bad", "label": "no"}\n',
    "e.ndjson": '\n{"label": "yes", "text": "good, really"}\r\n\n{"label": "no", "text": "bad"}',
    "f.csv": '\ufefftext,label\n\n"good, really",yes\n\nbad,no\n\n',
    "g.jsonl": '\ufeff{"text": "good, really", "label": "yes"}\n{"text": "bad", "label": "no"}\n',
    "h.csv": 'text,label\r"good, really",yes\rbad,no\r',
    "i.csv": 'text,label,site\n"good, really",yes,\nbad,no, \n',
}


@pytest.mark.parametrize("name", SAME)
def test_every_text_format_gives_the_same_table(tmp_path, name):
    assert load(write(tmp_path, name, SAME[name])) == EXPECTED


@pytest.mark.parametrize("name", SAME)
def test_a_gzipped_file_gives_the_same_table(tmp_path, name):
    assert load(write(tmp_path, f"{name}.GZ", gzip.compress(SAME[name].encode()))) == EXPECTED


def test_txt_is_read_as_tsv(tmp_path):
    assert load(write(tmp_path, "a.txt", SAME["c.tsv"])) == EXPECTED


def test_parquet_gives_the_same_table(tmp_path):
    path = parquet(tmp_path, text=["good, really", "bad"], label=["yes", "no"], other=[1, 2])
    assert load(path) == EXPECTED


def test_sites_and_renamed_columns(tmp_path):
    path = write(tmp_path, "a.csv", "review,stars,hospital\na,1,north\nb,2,south\n")
    want = Table(("a", "b"), ("1", "2"), ("north", "south"))
    assert load(path, text="review", label="stars", site="hospital") == want
    refused(path, "no column 'star'", "did you mean 'stars'?", text="review", label="star")


@pytest.mark.parametrize(("value", "label"), [(3, "3"), (0, "0"), (1.5, "1.5"), (True, "True")])
def test_labels_and_sites_that_are_not_strings_become_strings(tmp_path, value, label):
    line = json.dumps({"text": "a", "label": value, "site": value})
    want = Table(("a",), (label,), (label,))
    assert load(write(tmp_path, "a.jsonl", line)) == want
    assert load(parquet(tmp_path, text=["a"], label=[value], site=[value])) == want


def test_parquet_categories_are_read_as_their_words(tmp_path):
    labels = pa.array(["yes", "no"]).dictionary_encode()
    assert load(parquet(tmp_path, text=["a", "b"], label=labels)).labels == ("yes", "no")


def test_parquet_without_any_site_has_none(tmp_path):
    sites = pa.array([math.nan, None], pa.float64())
    assert load(parquet(tmp_path, text=["a", "b"], label=["x", "y"], site=sites)).sites is None


def test_texts_keep_blanks_quotes_and_line_ends(tmp_path):
    text = '  two\r\nlines, "quoted"\t\n\u2028\x85 end '
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], [text, "x"]])
    assert load(path).inputs == (text,)
    line = json.dumps({"text": text, "label": "x"}, ensure_ascii=False)
    assert load(write(tmp_path, "a.jsonl", line)).inputs == (text,)


def test_long_texts_are_read_and_the_csv_limit_is_put_back(tmp_path):
    limit = csv.field_size_limit()
    text = "word " * (limit // 2)
    path = write(tmp_path, "a.csv", f"text,label\n{text},x\n")
    assert load(path).inputs == (text,)
    assert csv.field_size_limit() == limit
    refused(write(tmp_path, "b.csv", f'text,label\n"{text}'), "line 2")
    assert csv.field_size_limit() == limit


# --- quotes in TSV -------------------------------------------------------------------------------

QUOTES = {
    'He said " so\tx\n"Why" she asked\ty\n': ('He said " so', '"Why" she asked'),
    # One quote opens a line, another ends a later one: whole rows as they stand, so not joined.
    '"So\tx\nand " so\ty\nshe said "\tz\n': ('"So', 'and " so', 'she said "'),
    '"So\tx\nshe said"\ty\n': ('"So', 'she said"'),
    # Written with quoted fields: a tab, a line end or doubled quotes inside.
    '"a\tb"\tx\nc\ty\n': ("a\tb", "c"),
    '"a\nb"\tx\nc\ty\n': ("a\nb", "c"),
    '"""a"" b"\tx\n"c"\ty\n': ('"a" b', "c"),
}


@pytest.mark.parametrize("content", QUOTES)
def test_quotes_in_tsv(tmp_path, content):
    assert load(write(tmp_path, "a.tsv", f"text\tlabel\n{content}")).inputs == QUOTES[content]


# --- which columns -------------------------------------------------------------------------------

PAIR = '{"one": "A {two} cat", "two": "{mask} sleeps", "label": "x"}\n'


def test_a_text_of_two_columns(tmp_path):
    form = "{one} ? {two}!"
    path = write(tmp_path, "a.jsonl", PAIR)
    assert load(path, text=form).inputs == ("A {two} cat ? {mask} sleeps!",)
    path = write(tmp_path, "a.csv", "#1 String,two,label\na,b,x\n")
    assert load(path, text="{#1 String}/{two}").inputs == ("a/b",)
    path = parquet(tmp_path, one=["a"], two=["b"], label=["x"], other=[1])
    assert load(path, text=form).inputs == ("a ? b!",)


def test_a_column_of_a_text_that_is_missing_or_empty(tmp_path):
    form = "{one} ? {three}"
    refused(write(tmp_path, "a.jsonl", PAIR), "no column 'three'", "label, one, two", text=form)
    path = write(tmp_path, "a.tsv", "one\tlabel\tthree\na\tx\tb\nprivate\ty\t \n")
    refused(path, "line 3", "'three' is empty", "write a text", text=form)
    refused(parquet(tmp_path, one=["a"], three=[None], label=["x"]), "'three'", text=form)


def test_the_first_columns_that_are_there(tmp_path):
    wanted = {"text": ["sentence", "{a} {b}", "text"], "label": ["gold", "label"]}
    for header, texts in (("text,gold", ("1",)), ("a,b,label", ("1 2",)), ("b,text,label", ("2",))):
        path = write(tmp_path, "a.csv", f"{header}\n{','.join('123'[: header.count(',') + 1])}\n")
        assert load(path, **wanted).inputs == texts
    refused(write(tmp_path, "a.csv", "a,label\n1,x\n"), "no column 'sentence'", **wanted)


def test_a_file_without_a_header(tmp_path):
    names = {"text": "sentence", "header": ["source", "label", "note", "sentence"]}
    path = write(tmp_path, "a.tsv", "gj04\t1\t\tThey drank.\ngj04\t0\t*\tThey drank it.\n")
    assert load(path, **names) == Table(("They drank.", "They drank it."), ("1", "0"), None)
    with_header = write(tmp_path, "b.tsv", "sentence\tlabel\nThey drank.\t1\n")
    assert load(with_header, **names).inputs == ("They drank.",)
    short = write(tmp_path, "c.tsv", "gj04\t1\tThey drank.\n")
    refused(short, "line 1", "header has 4", "this row 3", **names)
    refused(path, "data.columns", "no column 'text'", header=["source", "label", "x", "sentence"])


def test_a_column_that_rows_hold_several_times(tmp_path):
    path = write(tmp_path, "a.tsv", "text\tvote\tlabel\na\tx\tx\nb\tx\ty\ty\ty\n")
    assert load(path, repeats="vote").labels == ("x", "y")
    assert load(path, repeats="vote", label="vote").labels == ("x", "x")
    refused(path, "line 3", "header has 3", "this row 5")
    refused(write(tmp_path, "b.tsv", "text\tvote\tlabel\na\tx\n"), "row 2", repeats="vote")


def test_labels_get_better_names_and_blank_texts_may_go(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\na,0\n ,1\nb,good\n,0\nc,1\n")
    names = {"0": "bad", "1": "good"}
    assert load(path, names=names, blank="drop").labels == ("bad", "good", "good")
    refused(path, "line 3", "'text' is empty", names=names)
    refused(write(tmp_path, "b.csv", "text,label\n ,0\n"), "holds no examples", blank="drop")


law = settings(deadline=None, max_examples=60)  # no deadline: the machine may be busy
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
WORDS = st.text("abcXYZ09 é", min_size=1, max_size=5).map(str.strip).filter(bool)


@law
@given(st.lists(st.tuples(TEXTS, WORDS), min_size=1, max_size=5), st.sampled_from(",\t"))
def test_what_csv_writes_is_read_back(tmp_path_factory, rows, delimiter):
    # In TSV a text of whole rows cannot be told from rows.
    split = delimiter == "\t" and any("\t" in t and re.search(r"[\n\r]", t) for t, _ in rows)
    assume(not split)
    path = tmp_path_factory.getbasetemp() / {",": "law.csv", "\t": "law.tsv"}[delimiter]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *rows])
    table = load(path)
    assert list(zip(table.inputs, table.labels, strict=True)) == rows


@law
@given(st.binary(max_size=60))
def test_any_bytes_give_a_table_or_a_data_error(tmp_path_factory, data):
    for name in ("any.csv", "any.tsv", "any.jsonl", "any.parquet"):
        path = write(tmp_path_factory.getbasetemp(), name, b"text,label\n" + data)
        try:
            assert load(path).inputs
        except DataError as error:
            assert str(path) in str(error)


# --- files that cannot be read -------------------------------------------------------------------

KNOWN = ".csv .tsv .txt .jsonl .ndjson .parquet"


def test_missing_file_and_directory(tmp_path):
    refused(tmp_path / "train.csv", "does not exist", "check the path")
    refused(tmp_path, "is a directory", KNOWN)
    (tmp_path / "a.csv").mkdir()
    refused(tmp_path / "a.csv", "is a directory")
    refused(Path("a\0b.csv"), "cannot be read", "null byte")


class Locked(type(Path())):
    """A file that may not be read, also for root."""

    def read_bytes(self):
        raise PermissionError(13, "Permission denied")


def test_no_permission(tmp_path):
    path = write(tmp_path, "a.csv", SAME["a.csv"])
    refused(Locked(path), "Permission denied", "rights")


@pytest.mark.parametrize(
    ("name", "seen"), [("a.xlsx", ".xlsx"), ("a", ""), ("a.gz", ".gz"), ("a.xlsx.gz", ".xlsx")]
)
def test_unknown_suffix(tmp_path, name, seen):
    refused(write(tmp_path, name, "text,label\na,b\n"), f"{seen!r}", KNOWN, "also as .gz")


@pytest.mark.parametrize("suffix", KNOWN.split())
def test_empty_file(tmp_path, suffix):
    refused(write(tmp_path, f"a{suffix}", b""), "is empty")


@pytest.mark.parametrize("content", [" \n\r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_blank_file(tmp_path, content):
    refused(write(tmp_path, "a.csv", content), "empty but for blanks")
    refused(write(tmp_path, "a.jsonl", content), "empty but for blanks")


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_not_utf8(tmp_path, bom):
    start = bom + b"text,label\nfine,x\ncaf"
    path = write(tmp_path, "a.csv", start + b"\xe9,y\n")
    refused(path, "line 3", "0xe9", f"offset {len(start)} ", "iconv -f WINDOWS-1252 -t UTF-8")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16(tmp_path, encoding):
    path = write(tmp_path, "a.csv", "text,label\na,b\n".encode(encoding))
    refused(path, "line 1", "offset", "iconv -f UTF-16 -t UTF-8")


# --- faults inside a file: content, then what the sentence must say ------------------------------

TWO = 'text,label\n"two\nlines",x\n'  # the next record stands on the editor's line 4
CSV = [
    ("text,label\n", "holds no examples"),
    ("text,label\nfine,x\nda\0mage,y\n", "line 3", "0x00", "offset 20", "UTF-8"),
    ("texts,label\na,x\n", "line 1", "no column 'text'", "did you mean 'texts'?", "label, texts"),
    ("text,class\na,x\n", "line 1", "no column 'label'", "known: class, text"),
    ("text;label\na;x\n", "no column 'text'", "'text;label'", "separated by commas"),
    ("text,label,text\na,x,b\n", "line 1", "2 columns 'text'", "keep one"),
    (TWO + "a, b,x\n", "line 4", "header has 2", "this row 3", "double quotes"),
    (TWO + "only\n", "line 4", "header has 2", "this row 1"),
    (TWO + '"never closed,x\nb,y\n', "line 4", "unbalanced double quotes", 'write ""'),
    (TWO + '"closed" early,x\n', "line 4", "unbalanced double quotes", 'write ""'),
    (TWO + ",y\n", "line 4", "'text' is empty", "write a text or remove the row"),
    (TWO + " ,y\n", "line 4", "'text' is empty"),
    (TWO + '" \n ",y\n', "line 4", "'text' is empty"),
    (TWO + "b,\n", "line 4", "'label' is empty", "write a label or remove the row"),
    (TWO + "b, y\n", "line 4", "'label' is ' y'", "write 'y'"),
    ("text,label,site\na,x,north\nb,y,\n", "line 3", "'site' is empty", "remove the column"),
    ("text,label,site\na,x,\nb,y,north\n", "line 2", "'site' is empty", "other rows have one"),
]
GOOD = '{"text": "a", "label": "x"}\n\n'  # the next object stands on line 3
SHAPE = 'such as {"text": "...", "label": "..."}'
JSONL = [
    (GOOD + '{"text": "private", "label": no}\n', "line 3", "not JSON", "column 30", SHAPE),
    (GOOD + '{"text": "private",\n', "line 3", "not JSON", SHAPE),
    (GOOD + "[1, 2]\n", "line 3", "type list", "no object", SHAPE),
    (GOOD + "null\n", "line 3", "type NoneType", SHAPE),
    (GOOD + "[" * 200_000, "line 3", "too large", SHAPE),
    (GOOD + '{"text": "a", "label": ' + "1" * 5000 + "}", "line 3", "too large"),
    (GOOD + '{"text": "a", "lable": "x"}', "line 3", "no column 'label'", "did you mean 'lable'?"),
    (GOOD + '{"text": null, "label": "x"}', "line 3", "'text' is empty"),
    (GOOD + '{"text": "private", "label": null}', "line 3", "'label' is empty"),
    (GOOD + '{"text": "a", "label": NaN}', "line 3", "'label' is empty"),
    (GOOD + '{"text": 5, "label": "x"}', "line 3", "'text'", "type int", "write a text"),
    (GOOD + '{"text": "a", "label": []}', "line 3", "'label'", "type list", "a word or a number"),
    (GOOD + '{"text": "a", "label": "x", "site": {}}', "line 3", "'site'", "type dict"),
    (GOOD + '{"text": "a", "label": "x", "site": "s"}', "line 1", "'site' is empty"),
    (GOOD + '{"text": "a", "label": "x", "site": "s "}', "line 3", "'site' is 's '", "write 's'"),
    (GOOD + '{"text": "a\\u0000b", "label": "x"}', "line 3", "'text'", "NUL", "remove it"),
    (GOOD + '{"text": "\\ud83d", "label": "x"}', "line 3", "'text'", "surrogate"),
]


@pytest.mark.parametrize(("content", "parts"), [(content, parts) for content, *parts in CSV])
def test_faults_in_csv(tmp_path, content, parts):
    refused(write(tmp_path, "a.csv", content), *parts)


@pytest.mark.parametrize("content", ["text,label\na,x\n", "text\tlabel\tsite\na\tx\n"])
def test_faults_in_tsv(tmp_path, content):
    refused(write(tmp_path, "a.tsv", content), "tabs")


@pytest.mark.parametrize(("content", "parts"), [(content, parts) for content, *parts in JSONL])
def test_faults_in_jsonl(tmp_path, content, parts):
    refused(write(tmp_path, "a.jsonl", content), *parts)


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"text": pa.array([], "string"), "label": pa.array([], "string")}, ["holds no examples"]),
        ({"sentence": ["a"], "label": ["x"]}, ["no column 'text'", "known: label, sentence"]),
        ({"text": ["a", None], "label": ["x", "y"]}, ["row 2", "'text' is empty"]),
        ({"text": ["a", "b"], "label": [1.0, math.nan]}, ["row 2", "'label' is empty"]),
        ({"text": [b"a"], "label": ["x"]}, ["row 1", "type bytes", "write a text"]),
    ],
)
def test_faults_in_parquet(tmp_path, columns, parts):
    refused(parquet(tmp_path, **columns), *parts)


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(b"text,label\n" + b"a,x\n" * 99)
    for damaged in (b"text,label\na,x\n", whole[:-9], whole[:12] + b"????" + whole[16:]):
        refused(write(tmp_path, "a.csv.gz", damaged), "not a whole gzip file", "pack it again")
    refused(write(tmp_path, "b.csv.gz", gzip.compress(b"")), "is empty")


def test_damaged_parquet(tmp_path):
    whole = parquet(tmp_path, text=["a"] * 99, label=["x"] * 99).read_bytes()
    for damaged in (b"text,label\na,x\n", whole[:-9], whole[:4] + bytes(40) + whole[44:]):
        refused(write(tmp_path, "b.parquet", damaged), "not a whole Parquet file", "again")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    path = parquet(tmp_path, text=["a"], label=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedbbpt\[parquet\]'"):
        load(path)


# --- classes -------------------------------------------------------------------------------------


def table(*labels):
    return Table(("a",) * len(labels), labels, None)


def test_classes_are_the_sorted_training_labels():
    assert classes(table("b", "c", "a", "b"), None) == ("a", "b", "c")
    assert classes(table("b", "c", "a"), table("c", "c")) == ("a", "b", "c")


def test_a_single_class():
    with pytest.raises(DataError, match="all training examples have the label 'x'; give two"):
        classes(table("x", "x"), table("y"))


def test_a_test_label_unseen_in_training():
    with pytest.raises(DataError) as caught:
        classes(table("refund", "access"), table("access", "refunds", "refunds"))
    message = str(caught.value)
    assert "test example 2 has the label 'refunds'" in message
    assert "did you mean 'refund'? known: access, refund" in message


# --- numbers -------------------------------------------------------------------------------------


def test_labels_that_are_numbers():
    assert numbers(table("0", "5.000", "1e0"), (0.0, 5.0), "test").tolist() == [0.0, 5.0, 1.0]


@pytest.mark.parametrize("label", ["much", "5.1", "-1", "nan", "inf"])
def test_labels_that_are_no_number_in_range(label):
    with pytest.raises(DataError, match=f"test example 2 has the label '{label}'; .* 0 and 5"):
        numbers(table("0", label), (0.0, 5.0), "test")


@pytest.mark.parametrize("bounds", [None, (5.0, 0.0), (1.0, 1.0), (0.0, math.inf)])
def test_ranges_that_are_none(bounds):
    with pytest.raises(ConfigError, match=r"data\.range"):
        numbers(table("0", "1"), bounds, "test")
