import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbbpt.data.answers import instructions, load, targets
from fedbbpt.data.load import Table
from fedbbpt.errors import DataError


def write(folder, name, content):
    path = folder / name
    data = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def induction(folder, **example):
    """What one example of that form is read as."""
    table = load(write(folder, "t.json", {"metadata": {}, "examples": {"1": example}}))
    return table.inputs[0], table.references[0]


# --- files with columns --------------------------------------------------------------------------

EXPECTED = (("a, b", "c"), (("yes", "true"), ("no",)))
SAME = {
    "a.csv": 'input,output\n"a, b","[""yes"", ""true""]"\nc,no\n',
    "b.tsv": 'output\tinput\n["yes", "true"]\ta, b\nno\tc\n',
    "c.jsonl": '{"text": "a, b", "label": ["yes", "true"]}\n{"input": "c", "output": "no"}\n',
    "d.json": '[{"input": "a, b", "output": ["yes", "true", "yes"]}, {"text": "c", "label": "no"}]',
    "e.json.gz": '{"examples": [{"input": "a, b", "output": ["yes", "true"]}, '
    '{"input": "c", "output": "no"}]}',
}


@pytest.mark.parametrize("name", SAME)
def test_every_format_gives_the_same_table(tmp_path, name):
    table = load(write(tmp_path, name, SAME[name]))
    assert (table.inputs, table.references) == EXPECTED
    assert table == Table(EXPECTED[0], ("yes", "no"), None, references=EXPECTED[1])


def test_parquet_holds_lists(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input": ["a, b", "c"], "output": [["yes", "true"], ["no"]]}), path)
    assert load(path).references == EXPECTED[1]


def test_answers_may_be_separated_named_and_numbers(tmp_path):
    path = write(tmp_path, "a.csv", "q,a,site\nx,yes | true|yes,n\ny,no,s\n")
    table = load(path, text=("{q}?",), label=("a",), separator="|")
    assert table.inputs == ("x?", "y?") and table.sites == ("n", "s")
    assert table.references == (("yes", "true"), ("no",))
    assert load(path, text=("q",), label=("a",)).references[0] == ("yes | true|yes",)
    path = write(tmp_path, "a.jsonl", '{"input": "1 2", "output": [3, 3.0, "three"]}')
    assert load(path).references == (("3", "3.0", "three"),)


def test_a_cell_that_only_looks_like_a_list_is_an_answer(tmp_path):
    cells = ["[1, 2]", "[]", "[a", '["a", 1]', "[" * 9]
    path = write(tmp_path, "a.tsv", "input\toutput\n" + "".join(f"x\t{cell}\n" for cell in cells))
    assert load(path).references == tuple((cell,) for cell in cells)
    path = write(tmp_path, "a.jsonl", json.dumps({"input": "x", "output": '["a"]'}))
    assert load(path).references == (('["a"]',),)


def test_examples_without_an_input_may_be_dropped(tmp_path):
    path = write(tmp_path, "a.csv", "input,output\n ,yes\nb,no\n")
    assert load(path, blank="drop").references == (("no",),)
    for content in ('[{"input": "", "output": "a"}]', '[{"input": null, "output": "a"}]'):
        with pytest.raises(DataError, match="holds no examples; give it inputs with answers"):
            load(write(tmp_path, "a.json", content), blank="drop")


def test_targets_are_tuples_however_long(tmp_path):
    table = load(write(tmp_path, "a.csv", "input,output\na,b\nc,d\n"))
    found = targets(table)
    assert found.shape == (2,) and found.tolist() == [("b",), ("d",)]
    with pytest.raises(DataError, match="labels and no reference answers"):
        targets(Table(("a",), ("b",), None))


# --- instruction induction -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ({"input": "22 10", "output": "32", "x": 22, "y": 10}, ("22 10", ("32",))),
        (
            {"input": "sky [s]", "output": "sky", "words": ["sky"], "letter": "s"},
            ("sky [s]", ("sky",)),
        ),
        (
            {"input": "game", "output": "Spiel", "possible_translations": ["Wild", "", "Spiel"]},
            ("game", ("Spiel", "Wild")),
        ),
        (
            {"input": "w", "output": "same", "possible_outputs": ["same", "yes"]},
            ("w", ("same", "yes")),
        ),
        (  # the published list has the input in it, which would make repeating it right
            {"input": "smoke", "output": "joke", "other_rhymes": ["smoke", "joke", "folk"]},
            ("smoke", ("joke", "folk")),
        ),
        (
            {"cause": "It fell.", "effect": "It broke."},
            ("Sentence 1: It fell. Sentence 2: It broke.", ("It fell.",)),
        ),
        (
            {
                "concept": "go up.",
                "items": ["lifts", "kites"],
                "all_common_concepts": ["rise.", "go up."],
            },
            ("lifts, kites", ("go up.", "rise.")),
        ),
    ],
)
def test_every_form_of_the_published_files(tmp_path, example, expected):
    assert induction(tmp_path, **example) == expected


def test_the_cause_comes_first_in_every_other_example(tmp_path):
    pairs = {str(i): {"cause": f"c{i}.", "effect": f"e{i}."} for i in range(1, 5)}
    table = load(write(tmp_path, "cause_and_effect.json", {"examples": pairs}))
    assert [text.split()[2][0] for text in table.inputs] == ["c", "e", "c", "e"]
    assert table.labels == ("c1.", "c2.", "c3.", "c4.")


def test_all_published_files_can_be_read(data_folder):
    folder, seen = data_folder / "induction" / "raw", 0
    for path in sorted(folder.glob("*/*.json*")):
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        examples = list(json.loads(raw)["examples"].values())
        table = load(path)
        assert len(table.inputs) == len(examples) == len(table.references)
        for own, example in zip(table.references, examples, strict=True):
            right = example.get("output", example.get("cause", example.get("concept")))
            others = [
                *example.get("possible_translations", []),
                *example.get("possible_outputs", []),
            ]
            others += example.get("all_common_concepts", [])
            assert own[0] == right and set(own) == {right, *filter(None, others)}
        seen += 1
    assert seen == 32
    written = [instructions(path) for path in (data_folder / "induction").glob("annotations/*")]
    assert len(written) == 16 and sum(map(len, written)) == 125


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "input,output\nprivate,\n", "line 2: 'output' holds no answer; write one"),
        ("a.jsonl", '{"input": "private", "output": []}', "line 1: 'output' holds no answer"),
        ("a.jsonl", '{"input": "private", "output": [" "]}', "line 1: 'output' holds no answer"),
        ("a.jsonl", '{"input": "p", "output": ["private", ""]}', "an empty answer among others"),
        ("a.json", '[{"input": "p", "output": null}]', "example 1: 'output' holds no answer"),
        ("a.json", '[{"input": "p", "output": true}]', "holds a value of type list; write a text"),
        ("a.json", '[{"input": "p", "output": ["private", {}]}]', "write a text, a number or a"),
        ("a.json", '[{"input": ["private"], "output": "a"}]', "'input' holds a value of type list"),
        ("a.json", '[{"input": "", "output": "private"}]', "'input' is empty; write a text or"),
        ("a.json", '[{"cause": "private", "effect": " "}]', "'input' is empty"),
        ("a.json", '[{"items": [], "concept": "private"}]', "'input' is empty"),
        ("a.json", '[{"question": "private", "output": "a"}]', "example 1: no column 'input'"),
        ("a.json", '[["private"]]', "example 1: JSON of type list, no object; write one"),
        ("a.json", "[]", "no examples in it; write {"),
        ("a.json", '{"private": 1}', "no examples in it; write {"),
        ("a.json", '"private"', "no examples in it; write {"),
        ("a.json", '{"input": "private"}\n{}', "line 2: not JSON (Extra data, column 1); objects"),
        ("a.json", "[" * 100_000, "holds a JSON value too large to read"),
        ("a.json", "", "is empty; give it one example a row"),
        ("a.xml", "<private/>", "has the suffix '.xml'; the known ones are: .csv .tsv"),
        ("a.csv", "input,output,site\nprivate,b,\nc,d,n\n", "line 2: 'site' is empty"),
        ("a.csv", "input,label2\nprivate,b\n", "no column 'output'; did you mean 'input'"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence_without_a_text(tmp_path, name, content, said):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value)
    assert said in message and str(path) in message and "\n" not in message
    assert "private" not in message


@pytest.mark.parametrize("content", ['{"annotations": []}', "[]", '{"annotations": ["a", " "]}'])
def test_a_file_without_instructions_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="holds no instructions; write"):
        instructions(write(tmp_path, "a.json", content))
    good = write(tmp_path, "b.json", {"annotations": ["Do it. ", "Do that.", "Do it."]})
    assert instructions(good) == ("Do it.", "Do that.")
