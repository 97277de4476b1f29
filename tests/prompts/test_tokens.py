"""Discrete prompts: which tokens are candidates, what a point renders to, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.boxes._encoder import Tokens as Encoded
from fedbbpt.boxes.function import Function
from fedbbpt.errors import ConfigError
from fedbbpt.prompts.tokens import Tokens
from fedbbpt.random import stream
from fedbbpt.testing.boxes import EXAMPLES, TEMPLATES, WORDS
from fedbbpt.testing.prompts import check_prompt, check_start, check_text
from fedbbpt.testing.toys import ToyEncoder, ToyVocabulary, toy_box
from fedbbpt.types import RenderedPrompt

LABEL, TEXT = "It was {label}.", "{text} All in all it was"


class Small:
    """A vocabulary of given words in a plane; an unknown word is spelt letter by letter."""

    hidden, std = 2, 1.0

    def __init__(self, words):
        self.words = [*words, *"abcdefghijklmnopqrstuvwxyz"]
        angles = np.deg2rad([*words.values(), *[180.0] * 26])
        self.matrix = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        self.count = len(words)

    def tokenise(self, text):
        pieces = [[word] if word in self.words else [*word] for word in text.lower().split()]
        return [self.words.index(piece) for word in pieces for piece in word]

    def layout(self, template, fill):
        raise NotImplementedError

    def embed(self, ids):
        return self.matrix[np.asarray(ids, np.int64)]

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids)

    def ordinary(self):
        return np.arange(self.count)


class Glued(Small):
    """A vocabulary like those of byte pairs: " word" and "word" are two tokens."""

    def tokenise(self, text):
        ids = []
        while text:
            fit = [i for i, word in enumerate(self.words) if text.startswith(word)]
            if not fit:
                text = text[1:]
                continue
            ids.append(max(fit, key=lambda i: len(self.words[i])))
            text = text[len(self.words[ids[-1]]) :]
        return ids

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)


ANGLES = {"bad": 0.0, "good": 90.0, "awful": 5.0, "Good": 91.0, "poor": -10.0, "fine": 80.0}
ANGLES |= {"nice": 70.0, "so-so": 45.0}


def tokens(vocabulary=None, template=LABEL, labels=("bad", "good"), **options):
    options = {"slots": 3, "candidates": 4, **options}
    return Tokens(vocabulary or Small(ANGLES), template, labels, **options)


def shown(prompt, vocabulary):
    return [vocabulary.decode([i]).strip() for i in prompt.ids]


# --- what a point renders to ---------------------------------------------------------------------


@pytest.mark.parametrize(("template", "side"), [(LABEL, "label"), (TEXT, "text")])
def test_a_slot_holds_a_candidate_or_nothing(template, side):
    prompt = tokens(template=template, side=side)
    assert prompt.space[:3] == ("categorical", (3, 5), False)
    points = np.eye(5)[[[0, 0, 0], [1, 0, 4], [2, 2, 2]]]
    a, b, _, d = prompt.ids
    rendered = prompt.render(points)
    assert [p.tokens for p in rendered] == [((),), ((a, d),), ((b, b, b),)]
    for each in rendered:
        assert (each.template, each.labels, each.side) == (template, ("bad", "good"), side)
        assert each.soft == ()
    assert [p.kind for p in rendered] == ["text", "tokens", "tokens"]


def test_samples_logits_and_probabilities_render_alike():
    prompt = tokens()
    logits = stream(0, "test").standard_normal((6, 3, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    samples = np.eye(5)[logits.argmax(axis=-1)]
    one, two, three = (
        [p.tokens for p in prompt.render(x)] for x in (logits, probabilities, samples)
    )
    assert one == two == three and len(set(one)) > 1


def test_of_equal_entries_the_first_is_taken():
    point = np.array([[[1.0, 1.0, 0, 0, 0], [0, 2.0, 2.0, 0, 0], [-1.0, -1.0, -1.0, -1.0, -1.0]]])
    prompt = tokens()
    assert prompt.render(point)[0].tokens == (prompt.ids[:1],)


@pytest.mark.parametrize("side", ["label", "text"])
def test_the_zero_point_is_the_manual_prompt(side):
    manual = RenderedPrompt(TEMPLATES[side], WORDS, side)
    prompt = Tokens(ToyVocabulary(), TEMPLATES[side], WORDS, side)
    assert prompt.render(np.zeros((1, 5, 51)))[0].keys == manual.keys
    for box in (toy_box(), ToyEncoder()):
        check_start(prompt, manual, box, EXAMPLES)


def test_tokens_change_the_answer_and_their_slots_do_not():
    """An empty slot leaves no trace, so the same tokens in other slots are paid only once."""
    prompt = Tokens(ToyVocabulary(), TEMPLATES["text"], WORDS, "text", slots=2)
    early, late, none = prompt.render(np.eye(51)[[[7, 0], [0, 7], [0, 0]]])
    assert early.keys == late.keys != none.keys
    scores = ToyEncoder()([early, none], EXAMPLES).scores
    assert (scores[0] != scores[1]).any()


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    ("side", "per_class"), [("label", False), ("label", True), ("text", False)]
)
def test_keeps_the_laws(side, place, per_class):
    prompt = Tokens(ToyVocabulary(), TEMPLATES[side], WORDS, side, place=place, per_class=per_class)
    check_prompt(prompt)
    check_text(prompt, ToyVocabulary())


choices = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=2, max_size=2)


@given(choices, choices, st.sampled_from(["before", "after"]))
def test_prompts_have_one_key_just_where_they_are_one(one, two, place):
    """For each class alone; an empty slot is nothing, whichever slot it is."""
    prompt = tokens(place=place, per_class=True)
    points = np.eye(5)[[one, two]]
    first, second = prompt.render(points)
    assert [p.keys for p in prompt.render(points.copy())] == [first.keys, second.keys]
    assert np.array_equal(points, np.eye(5)[[one, two]])
    for c in (0, 1):
        alike = [j for j in one[c] if j] == [j for j in two[c] if j]
        assert (first.keys[c] == second.keys[c]) == alike


def test_the_place_is_part_of_the_key_where_there_are_tokens():
    points = np.eye(5)[[[1, 0, 0], [0, 0, 0]]]
    before, after = (tokens(place=place).render(points) for place in ("before", "after"))
    assert {p.place for p in after} == {"after"}
    assert before[0].keys != after[0].keys
    assert before[1].keys == after[1].keys


# --- one prompt per class ------------------------------------------------------------------------


def test_every_class_has_slots_of_its_own():
    prompt = tokens(per_class=True)
    assert prompt.space[:3] == ("categorical", (2, 3, 5), True)
    a, b, _, d = prompt.ids
    (rendered,) = prompt.render(np.eye(5)[[[[0, 1, 2], [4, 0, 0]]]])
    assert rendered.tokens == ((a, b), (d,))
    assert (rendered.tokens_of(0), rendered.tokens_of(1)) == ((a, b), (d,))


def test_a_candidate_for_one_class_costs_one_atom():
    prompt = Tokens(ToyVocabulary(), LABEL, WORDS, per_class=True, slots=2)
    points = np.zeros((2, *prompt.space.shape))
    points[1, 1, 0, 7] = 1.0
    still, moved = prompt.render(points)
    box = ToyEncoder()
    before, after = ({atom.key for atom in box.split([p], ()).atoms} for p in (still, moved))
    assert len(after - before) == 1
    scores = box([still, moved], EXAMPLES).scores
    assert (scores[0] != scores[1]).any()


# --- boxes that take text only -------------------------------------------------------------------

TEXT_ONLY = {"sends": frozenset({"text"}), "words": ("fine film", " so-so", "nice", "bad  one")}


@pytest.mark.parametrize(
    ("place", "template", "side", "want"),
    [
        ("before", LABEL, "label", "so-so fine film It was {label}."),
        ("after", LABEL, "label", "It was {label} so-so fine film."),
        ("after", TEXT, "text", "{text} so-so fine film All in all it was"),
    ],
)
def test_text_is_put_into_the_template(place, template, side, want):
    prompt = tokens(None, template, side=side, place=place, **TEXT_ONLY)
    assert prompt.sends == {"text"}
    assert prompt.texts == ("fine film", "so-so", "nice", "bad one")
    rendered = prompt.render(np.eye(5)[[[2, 0, 1], [0, 0, 0]]])
    assert [p.template for p in rendered] == [want, template]
    assert [p.kind for p in rendered] == ["text", "text"]
    assert [prompt.read(p) for p in rendered] == [("so-so fine film",), ("",)]
    check_prompt(prompt)


def test_without_tokens_the_vocabulary_still_says_which_words_are_near():
    near = tokens(sends=frozenset({"text"}))
    assert near.ids == () and near.texts == tokens().texts


@pytest.mark.parametrize(
    ("accepts", "vocabulary", "sends"),
    [
        (("text",), None, {"text"}),
        (("text",), ToyVocabulary(), {"text"}),
        (("text", "tokens"), None, {"text"}),
        (("text", "tokens"), ToyVocabulary(), {"tokens"}),
        (("tokens",), ToyVocabulary(), {"tokens"}),
        (("soft",), ToyVocabulary(), {"tokens"}),
    ],
)
def test_what_is_sent_follows_the_box(accepts, vocabulary, sends):
    box = Function(lambda prompts, examples: None, accepts=accepts, vocabulary=vocabulary)
    assert Tokens.sends_to(box) == sends


# --- the way back --------------------------------------------------------------------------------


def assert_round_trip(prompt, vocabulary, behind="It was"):
    """Ids -> text -> ids, for candidates one by one and for whole prompts, template and all."""
    for one in prompt.ids:
        assert vocabulary.tokenise(vocabulary.decode([one])) == [one]
    slots, size = prompt.space.shape
    points = np.eye(size)[stream(1, "test").integers(size, size=(200, slots))]
    for rendered in prompt.render(points):
        ids = list(rendered.tokens_of())
        assert vocabulary.tokenise(vocabulary.decode(ids)) == ids
        whole = vocabulary.tokenise(f"{vocabulary.decode(ids)} {behind}")
        assert whole[: len(ids)] == ids


def test_the_text_of_a_prompt_reads_as_its_ids():
    vocabulary = ToyVocabulary()
    assert_round_trip(Tokens(vocabulary, LABEL, WORDS, slots=6), vocabulary)


def test_the_real_encoders_text_reads_as_its_ids(minilm):
    vocabulary = minilm.vocabulary
    prompt = Tokens(vocabulary, LABEL, ("terrible", "great"), slots=10, candidates=200)
    assert_round_trip(prompt, vocabulary)
    words = shown(prompt, vocabulary)
    assert len(set(words)) == 200 and {"awful", "excellent"} < set(words[:20])
    assert not {"terrible", "great"} & set(words)
    named = Tokens(vocabulary, LABEL, ("bad", "good"), candidates=3, words=("movie", "!", "film"))
    assert shown(named, vocabulary) == ["movie", "!", "film"]
    assert_round_trip(named, vocabulary)


def test_byte_pairs_that_know_their_space_read_as_their_ids(data_folder):
    transformers = pytest.importorskip("transformers")
    folder = data_folder / "models" / "roberta_tokenizer"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    tokenizer = transformers.RobertaTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    )
    matrix = stream(2, "test").standard_normal((len(tokenizer), 4)).astype(np.float32)
    vocabulary = Encoded(tokenizer, matrix)
    prompt = Tokens(vocabulary, LABEL, ("terrible", "great"), slots=10, candidates=200)
    assert_round_trip(prompt, vocabulary)
    assert all(vocabulary.decode([i]).startswith(" ") for i in prompt.ids)
    named = Tokens(vocabulary, LABEL, ("terrible", "great"), candidates=2, words=("movie", "film"))
    assert [vocabulary.decode([i]) for i in named.ids] == [" movie", " film"]


def test_a_real_masked_models_text_reads_as_its_ids(data_folder):
    pytest.importorskip("transformers")
    from fedbbpt.boxes.masked_lm import MaskedLm

    folder = data_folder / "models" / "review_mlm"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    vocabulary = MaskedLm(str(folder), dtype="float32", device="cpu").vocabulary
    options = {"labels": ("terrible", "great"), "slots": 10, "candidates": 100}
    for place in ("before", "after"):
        prompt = tokens(vocabulary, "{text} it was {mask} .", side="text", place=place, **options)
        assert_round_trip(prompt, vocabulary)
        check_text(prompt, vocabulary)


def test_pieces_with_marked_beginnings_read_as_their_ids():
    """As SentencePiece has them, where a word begins with a mark and the text's first one too."""
    t = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    core = t.Tokenizer(t.models.BPE())
    core.pre_tokenizer = t.pre_tokenizers.Metaspace()
    core.decoder = t.decoders.Metaspace()
    corpus = ["It was a good film, a bad film, a fine movie and unbelievably dull"] * 4
    core.train_from_iterator(corpus, t.trainers.BpeTrainer(vocab_size=120, show_progress=False))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core)
    matrix = stream(2, "test").standard_normal((len(tokenizer), 4)).astype(np.float32)
    vocabulary = Encoded(tokenizer, matrix)
    words = ("good", "film", "fine", "movie")
    prompt = tokens(vocabulary, words=words)
    assert prompt.texts == words
    assert_round_trip(prompt, vocabulary)
    check_text(prompt, vocabulary)
    with pytest.raises(ConfigError, match="has 'goo', which the box reads as"):
        tokens(vocabulary, words=("goo", *words))


# --- the candidates ------------------------------------------------------------------------------


def test_nearest_words_take_turns_and_the_labels_own_are_left_out():
    """Of bad (0): awful 5, poor -10; of good (90): Good is good itself, fine 80, nice 70."""
    vocabulary = Small(ANGLES)
    assert shown(tokens(vocabulary), vocabulary) == ["awful", "fine", "poor", "nice"]


def test_a_label_of_several_words_counts_by_its_middle():
    """bad and good together point to 45 degrees."""
    vocabulary = Small(ANGLES | {"so": 46.0})
    prompt = tokens(vocabulary, labels=("bad good",), candidates=2)
    assert shown(prompt, vocabulary) == ["so-so", "so"]


def test_when_one_label_has_no_more_words_the_others_go_on():
    vocabulary = Small({"bad": 0.0, "good": 90.0, "awful": 5.0, "fine": 80.0, "poor": -10.0})
    prompt = tokens(vocabulary, candidates=3, labels=("bad", "good", "bad"))
    assert sorted(shown(prompt, vocabulary)) == ["awful", "fine", "poor"]


def test_a_piece_that_would_glue_to_the_word_before_is_no_candidate():
    words = {" bad": 0.0, "bad": 0.0, "poor": 3.0, " poor": 10.0, " good": 90.0, "good": 90.0}
    vocabulary = Glued(words | {"fine": 88.0, " fine": 80.0})
    prompt = tokens(vocabulary, candidates=2)
    assert [vocabulary.decode([i]) for i in prompt.ids] == [" poor", " fine"]
    named = tokens(vocabulary, candidates=2, words=("fine", "poor"))
    assert [vocabulary.decode([i]) for i in named.ids] == [" fine", " poor"]


def test_words_from_a_list_keep_their_order_and_lose_their_repeats():
    vocabulary = Small(ANGLES)
    words = ("nice", "poor", " nice ", "so-so", "awful", "fine")
    prompt = tokens(vocabulary, words=words)
    assert shown(prompt, vocabulary) == ["nice", "poor", "so-so", "awful"]


def test_words_from_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("nice\n\n  poor\r\nso-so\n", encoding="utf-8")
    vocabulary = Small(ANGLES)
    prompt = tokens(vocabulary, words=str(path), candidates=3)
    assert shown(prompt, vocabulary) == ["nice", "poor", "so-so"]


def test_of_what_a_corpus_offers_the_words_that_are_tokens_are_taken():
    """An n-gram counts as its words; "ugly" is several tokens, "Nice" is not what is read."""
    offered = ("nice ugly film", "Nice", "fine poor", "nice", "awful")
    prompt = tokens(offered=offered)
    assert prompt.texts == ("nice", "fine", "poor", "awful")
    as_text = tokens(None, sends=frozenset({"text"}), offered=("{ill}", *offered))
    assert as_text.texts == ("nice ugly film", "Nice", "fine poor", "nice")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "prompt.slots is 0; it must be at least 1"),
        ({"candidates": 0}, "prompt.candidates is 0; it must be at least 1"),
        ({"template": "It was."}, "must hold {label} once"),
        ({"side": "both"}, "side is 'both'; known: label, text"),
        ({"candidates": 6}, "is 6, but there are only 5 in the vocabulary of the box"),
        ({"words": ("nice", "poor", "nice")}, "is 4, but there are only 2 in prompt.words"),
        ({"words": ("nice", "ugly")}, "has 'ugly', which the box reads as 'u' 'g' 'l' 'y'"),
        ({"words": ("Nice",)}, "has 'Nice', which the box reads as 'nice'"),
        ({"words": ("poor nice",)}, "has 'poor nice', which the box reads as 'poor' 'nice'"),
        ({"words": ("",)}, "has '', which the box reads as nothing"),
        ({"words": "no/such/file"}, "prompt.words 'no/such/file' cannot be read"),
        ({"words": ("ugly", "nice", "Fine")}, "has 'ugly', .* 'y', 'Fine', which .* 'fine'; a"),
        ({"place": "behind"}, "prompt.place is 'behind'; known: before, after"),
        ({"per_class": True, "side": "text", "template": TEXT}, "needs prompt.side = 'label'"),
        ({"offered": ("nice", "ugly")}, "only 1 among those that prompt.vocabulary found"),
        ({"offered": ()}, "only 0 among those that prompt.vocabulary found"),
        (TEXT_ONLY | {"per_class": True}, "needs a box that takes tokens, not text alone"),
        (TEXT_ONLY | {"words": ("ok", "{x}", "a\0b", " ")}, r"has '\{x\}', 'a\\x00b', ' '; a"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tokens(**options)


def test_text_needs_candidates_from_somewhere():
    with pytest.raises(ConfigError, match="has no vocabulary to take candidates from"):
        Tokens(None, LABEL, ("bad", "good"), sends=frozenset({"text"}))


def test_a_word_that_glues_to_the_one_before_is_refused():
    """Alone it survives, but behind another candidate "ab" "ab" reads as "abab"."""
    vocabulary = Glued({"bad": 0.0, "good": 90.0, "ab": 1.0, "abab": 2.0})
    with pytest.raises(ConfigError, match="has 'ab', which the box reads as"):
        tokens(vocabulary, words=("ab",), candidates=1)


def test_an_empty_file_has_too_few(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n \n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"only 0 in prompt\.words"):
        tokens(words=str(path))
