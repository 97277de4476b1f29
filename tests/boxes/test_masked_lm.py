"""Masked language models of random weights beside plain transformers calls, and a real one."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

import fedbbpt
from fedbbpt.black_box import Wrapper
from fedbbpt.boxes.masked_lm import MaskedLm
from fedbbpt.errors import ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.testing.boxes import check_box, check_names
from fedbbpt.testing.prompts import check_prompt, check_start
from fedbbpt.testing.toys import MemoryStore
from fedbbpt.types import RenderedPrompt
from fedbbpt.wrappers.cached import Cached

KINDS = ("roberta", "bert")
LABELS = ("terrible", "great", "odd")
TEMPLATE = "{text} All in all it was {mask} ."
TEMPLATES = (
    TEMPLATE,
    "It was {mask} : {text}",
    "{mask}! {text}. So it was.",
    "{text}{mask}",
    '"{text}" it was, {mask} indeed',
)
EXAMPLES = (
    "a lovely story, and moving",
    "dull",
    "the film was rather weak, and its story boring, unbelievably so.",
    "great!  ",
    "",
)
CORPUS = [
    "All in all it was great . It was terrible : so odd indeed",
    "the film was rather weak, and its story boring! a lovely story, and moving.",
    "it was odd.. so it was.. dull.. weak..",
    "it was odd, it was terrible, it was great, it was dull. great and odd and terrible films",
] * 8
ROW_WIDTH, LONGEST = 16, 48
TIGHT = {"rtol": 0, "atol": 1e-5}


# --- small models, also for tests/testing/test_boxes.py ------------------------------------------


def make_tokenizer(kind):
    """Byte-level BPE or WordPiece, learned from the corpus."""
    import tokenizers as t
    import transformers

    if kind == "roberta":
        names = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
        # RoBERTa's mask takes the space before it.
        mask = t.AddedToken("<mask>", lstrip=True, special=True)
        core = t.Tokenizer(t.models.BPE())
        core.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = t.decoders.ByteLevel()
        trainer = t.trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[*names.values(), mask],
            initial_alphabet=t.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        first, last = "<s>", "</s>"
    else:
        names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
        mask = t.AddedToken("[MASK]", special=True)
        core = t.Tokenizer(t.models.WordPiece(unk_token="[UNK]"))
        core.normalizer = t.normalizers.BertNormalizer(lowercase=True)
        core.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
        core.decoder = t.decoders.WordPiece()
        trainer = t.trainers.WordPieceTrainer(
            vocab_size=200, special_tokens=[*names.values(), mask], show_progress=False
        )
        first, last = "[CLS]", "[SEP]"
    core.train_from_iterator(CORPUS, trainer)
    core.post_processor = t.processors.Sequence(
        [
            t.processors.ByteLevel(trim_offsets=True),
            t.processors.TemplateProcessing(
                f"{first} $A {last}",
                special_tokens=[(token, core.token_to_id(token)) for token in (first, last)],
            ),
        ][kind != "roberta" :]
    )
    tokens = {f"{name}_token": token for name, token in names.items()}
    tokens |= {"cls_token": first, "sep_token": last, "mask_token": mask}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **tokens)


def make_model(kind, folder, body=False):
    """A folder with a small masked language model of random weights, or with its body alone."""
    import torch
    import transformers

    tokenizer = make_tokenizer("roberta" if kind == "roberta" else "bert")
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if kind == "distilbert":
        sizes |= {"dim": ROW_WIDTH, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}
        config = transformers.DistilBertConfig(
            **sizes, max_position_embeddings=LONGEST, initializer_range=0.4
        )
    else:
        config = transformers.CONFIG_MAPPING[kind](
            **sizes,
            hidden_size=ROW_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            # RoBERTa's positions begin behind the padding's.
            max_position_embeddings=LONGEST + (tokenizer.pad_token_id + 1) * (kind == "roberta"),
            initializer_range=0.4,
        )
    torch.manual_seed(0)
    auto = transformers.AutoModel if body else transformers.AutoModelForMaskedLM
    auto.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def load(folder, **options):
    return MaskedLm(
        folder, **{"dtype": "float32", "device": "cpu", "max_tokens": LONGEST, **options}
    )


class Plain:
    """The model by transformers alone: one text at a time, logits at every position."""

    def __init__(self, folder):
        import torch
        import transformers

        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
        self.model = model.float().eval()
        self.table = model.get_input_embeddings().weight.detach().numpy()

    def ids(self, text):
        return self.tokenizer(text.replace("{mask}", self.tokenizer.mask_token))["input_ids"]

    def words(self, labels=LABELS):
        coded = [self.tokenizer(f" {word}", add_special_tokens=False) for word in labels]
        return [only for (only,) in (c["input_ids"] for c in coded)]

    def whole(self, ids, embedded=None):
        """(C,) log-probabilities of the labels over the vocabulary, at the last mask."""
        mask = len(ids) - 1 - ids[::-1].index(self.tokenizer.mask_token_id)
        given = {"input_ids": self.torch.tensor([ids])}
        if embedded is not None:
            given = {"inputs_embeds": self.torch.from_numpy(np.float32(embedded))[None]}
        given["attention_mask"] = self.torch.ones(1, len(ids), dtype=self.torch.int64)
        with self.torch.inference_mode():
            logits = self.model(**given).logits[0, mask].numpy().astype(np.float64)
        return log_softmax(logits)[self.words()]

    def scores(self, prompted):
        """(N, C) of texts, of lists of ids, or of pairs of ids and embeddings."""
        asked = [self.ids(p) if isinstance(p, str) else p for p in prompted]
        rows = [self.whole(*p) if isinstance(p, tuple) else self.whole(p) for p in asked]
        return log_softmax(rows, axis=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(kind, root / kind) for kind in (*KINDS, "distilbert")}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def box(folders, kind):
    return load(folders[kind])


@pytest.fixture(scope="module")
def plain(folders, kind):
    return Plain(folders[kind])


def manual(template=TEMPLATE, **changes):
    return replace(RenderedPrompt(template, LABELS, "text"), **changes)


def filled(template, examples=EXAMPLES):
    return [template.replace("{text}", text) for text in examples]


def soft(box, template=TEMPLATE, **options):
    return Soft(box.vocabulary, template, LABELS, "text", **{"dim": 6, **options})


def normal(*shape):
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


# --- text prompts --------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
def test_scores_are_those_of_a_plain_forward(box, plain, template):
    scores = box([manual(template)], EXAMPLES).scores
    np.testing.assert_allclose(scores[0], plain.scores(filled(template)), **TIGHT)
    np.testing.assert_allclose(np.exp(scores).sum(axis=2), 1.0, rtol=1e-12)
    assert scores.dtype == np.float64
    assert np.ptp(scores[0], axis=0).max() > 0.05  # the model does look at the text


def test_another_family_with_another_head(folders):
    scores = load(folders["distilbert"])([manual()], EXAMPLES).scores
    want = Plain(folders["distilbert"]).scores(filled(TEMPLATE))
    np.testing.assert_allclose(scores[0], want, **TIGHT)


def test_a_row_holds_log_probabilities_over_the_whole_vocabulary(box, plain):
    grid = box.split([manual()], EXAMPLES)
    rows = box.evaluate(grid.atoms, range(len(grid.atoms)))
    want = [plain.whole(plain.ids(text)) for text in filled(TEMPLATE)]
    np.testing.assert_allclose(rows, want, **TIGHT)


def test_a_mask_is_written_in_the_boxs_words_or_in_the_tokenizers(box, plain):
    own = manual(TEMPLATE.replace("{mask}", plain.tokenizer.mask_token))
    scores = box([manual(), own], EXAMPLES).scores
    np.testing.assert_allclose(scores[0], scores[1], **TIGHT)


def test_several_prompts_and_more_rows_than_one_pass_takes(folders, kind, box):
    prompts = [manual(template) for template in TEMPLATES[:2]]
    examples = [f"{text} {'so ' * (i % 5)}odd{i}" for i, text in enumerate(EXAMPLES * 4)]
    few = load(folders[kind], rows=3)
    whole, pieces = box(prompts, examples).scores, few(prompts, examples).scores
    alone = [[box([p], [x]).scores[0, 0] for x in examples] for p in prompts]
    np.testing.assert_allclose(whole, alone, **TIGHT)
    np.testing.assert_allclose(pieces, alone, **TIGHT)


def test_the_head_sees_the_masks_alone(box):
    base, seen = box.network.network.base_model, []
    heads = [child for child in box.network.network.children() if child is not base]
    hooks = [head.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape)) for head in heads]
    box([manual()], EXAMPLES)
    for hook in hooks:
        hook.remove()
    assert seen and all(tuple(shape) == (len(EXAMPLES), 1, ROW_WIDTH) for shape in seen)


def test_a_mask_in_the_text_is_not_the_templates(box, plain):
    """Before the template's mask or behind it; the text is passed on as it is."""
    texts = [f"the {plain.tokenizer.mask_token} was dull", "a {mask} of {text}"]
    want = [plain.whole(plain.ids(f"{texts[0]} All in all it was {{mask}} ."))]
    rows = box.evaluate(box.split([manual()], texts).atoms, [0])
    np.testing.assert_allclose(rows, want, **TIGHT)
    behind = box([manual("It was {mask} : {text}")], texts).scores
    assert np.isfinite(behind).all()
    ids, slots = box.vocabulary.layout("It was {mask} : \0", texts[0])
    assert box.vocabulary.mask(ids, slots) == ids.index(plain.tokenizer.mask_token_id)


@pytest.mark.parametrize("name", KINDS)
def test_half_precision_keeps_the_head_precise(folders, name):
    whole, half = load(folders[name]), load(folders[name], dtype="bfloat16")
    gap = abs(whole([manual()], EXAMPLES).scores - half([manual()], EXAMPLES).scores).max()
    assert 0 < gap < 0.3
    weights = {str(p.dtype) for p in half.network.network.parameters()}
    assert weights == {"torch.float32", "torch.bfloat16"}
    check_names(whole, half)


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES)
def test_tokens_stand_behind_the_first_special_token(box, plain, template):
    tokens = tuple(int(i) for i in box.vocabulary.ordinary()[:3])
    want = []
    for text in filled(template):
        first, *rest = plain.ids(text)
        want.append([first, *tokens, *rest])
    scores = box([manual(template, tokens=(tokens,))], EXAMPLES).scores
    np.testing.assert_allclose(scores[0], plain.scores(want), **TIGHT)


@pytest.mark.parametrize("template", TEMPLATES[:2])
@pytest.mark.parametrize("place", ["before", "after"])
def test_the_network_gets_the_very_tokens_in_their_place(box, plain, monkeypatch, template, place):
    """With the mask on either side of them, and where a text is cut to make room."""
    tokens, given = tuple(int(i) for i in box.vocabulary.ordinary()[:3]), []
    forward, long = box.network.forward, " ".join(["dull"] * 60)
    monkeypatch.setattr(box.network, "forward", lambda rows: [given.extend(rows), forward(rows)][1])
    box([manual(template, tokens=(tokens,), place=place)], [*EXAMPLES[:3], long])
    rows = [tuple(int(i) for i in row.inputs[0]) for row in given]
    front = template.partition("{text}")[0]
    for text in EXAMPLES[:3]:
        whole = plain.ids(template.replace("{text}", text))
        before = plain.ids(front + text)[:-1] if place == "after" else whole[:1]
        assert whole[: len(before)] == before
        behind = whole[len(before) :]
        assert (*before, *tokens, *behind) in rows
        if text == "dull":
            (cut,) = (row for row in rows if len(row) == LONGEST)
            at = 1 if place == "before" else LONGEST - len(behind) - len(tokens)
            assert cut[at : at + 3] == tokens
            assert place == "before" or cut[at + 3 :] == tuple(behind)
    for row in given:
        assert row.inputs[0][row.mask] == plain.tokenizer.mask_token_id


# --- soft prompts --------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES[:3])
def test_added_zeros_are_the_manual_prompt(box, template):
    prompt = soft(box, template)
    check_prompt(prompt)
    check_start(prompt, manual(template), box, EXAMPLES)


def own_places(plain, template, text):
    """Where the template's own tokens are: all but specials, text and mask, by plain counting."""
    before, _, after = template.partition("{text}")
    ids = plain.ids(filled(template, [text])[0])
    front, back = (len(plain.ids(part)) - 2 for part in (before.rstrip(), after))
    places = [*range(1, 1 + front), *range(len(ids) - 1 - back, len(ids) - 1)]
    return ids, [p for p in places if ids[p] != plain.tokenizer.mask_token_id]


@pytest.mark.parametrize(
    "template", ["{text} All in all it was {mask} .", "It was {mask} : {text}"]
)
def test_offsets_move_the_templates_own_tokens_and_never_the_mask(box, plain, template):
    examples = EXAMPLES[:3]
    length = soft(box, template).length
    assert length == len(own_places(plain, template, "dull")[1])
    rows, want = normal(length, ROW_WIDTH), []
    for text in examples:
        ids, places = own_places(plain, template, text)
        embedded = plain.table[ids].copy()
        embedded[places] += rows
        want.append((ids, embedded))
    scores = box([manual(template, soft=(rows,))], examples).scores
    np.testing.assert_allclose(scores[0], plain.scores(want), **TIGHT)
    assert abs(scores - box([manual(template)], examples).scores).max() > 0.01


@pytest.mark.parametrize("template", TEMPLATES)
def test_inserted_rows_stand_behind_the_first_special_token(box, plain, template):
    rows, want = normal(3, ROW_WIDTH), []
    for text in filled(template):
        ids = plain.ids(text)
        embedded = plain.table[ids]
        embedded = np.concatenate([embedded[:1], rows, embedded[1:]])
        want.append(([ids[0], *[0] * 3, *ids[1:]], embedded))
    scores = box([manual(template, soft=(rows,), mode="insert")], EXAMPLES).scores
    np.testing.assert_allclose(scores[0], plain.scores(want), **TIGHT)


def test_inserted_rows_start_at_words_and_not_at_the_mask(box):
    start = soft(box, mode="insert", tokens=20).start
    mask = box.vocabulary.embed([box.vocabulary._mask_id])[0]
    assert (abs(start - mask).max(axis=1) > 1e-3).all()
    assert box.vocabulary.tokenise("it was {mask} .") == box.vocabulary.tokenise("it was .")


def test_a_template_of_a_mask_alone_has_nothing_to_move(box):
    with pytest.raises(ConfigError, match="no words of its own"):
        soft(box, "{text} {mask}")


@pytest.mark.parametrize("text", ["so odd.", "so odd...", "odd. ", "odd .", "", ".", "!."])
def test_the_templates_tokens_keep_their_rows_whatever_the_text_ends_in(box, text):
    """A byte-level "..", text and template in one, is left alone and shifts no other row."""
    vocabulary = box.vocabulary
    template = "so: \0. It was {mask}!"

    def placed(ids, slots):
        found = [(s, vocabulary.decode([i]).strip()) for i, s in zip(ids, slots, strict=True)]
        return {slot: word for slot, word in found if slot >= 0}

    usual = placed(*vocabulary.layout(template, "text"))
    assert sorted(usual) == list(range(len(usual)))
    ids, slots = vocabulary.layout(template, text)
    mask = vocabulary.mask(ids, slots)
    some = placed(ids, slots)
    assert some.items() <= usual.items()
    assert {usual[s] for s in usual if s not in some} <= {"."}
    assert slots[mask] == -2 and ids[mask] == vocabulary._mask_id


# --- long texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["text", "tokens", "add", "insert"])
@pytest.mark.parametrize("template", [TEMPLATE, "It was {mask} : {text}"])
def test_the_example_is_cut_and_never_the_template(box, plain, template, mode):
    own = len(plain.ids(template.replace("{text}", "").rstrip()))
    length = soft(box, template).length
    prompt = {
        "text": manual(template),
        "tokens": manual(template, tokens=((9, 10),)),
        "add": manual(template, soft=(normal(length, ROW_WIDTH),)),
        "insert": manual(template, soft=(normal(3, ROW_WIDTH),), mode="insert"),
    }[mode]
    room = LONGEST - own - {"tokens": 2, "insert": 3}.get(mode, 0)
    long, kept, short = (" ".join(["great"] * n) for n in (500, room, room - 1))
    first = len(plain.tokenizer.tokenize("great"))  # of the word that begins the text
    if template.startswith("{text}") and first > 1:
        kept, short = (" ".join(["great"] * (n - first + 1)) for n in (room, room - 1))
    scores = box([prompt], [long, kept, short]).scores[0]
    np.testing.assert_allclose(scores[0], scores[1], **TIGHT)
    assert abs(scores[0] - scores[2]).max() > 1e-6
    (ids, _, _), mask, _ = box._row(box.split([manual(template)], [long]).atoms[0])
    assert len(ids) == LONGEST and ids[mask] == plain.tokenizer.mask_token_id


# --- atoms ---------------------------------------------------------------------------------------


def test_the_laws_of_a_box(box):
    check_box(box)


def test_who_pays(box):
    prompts = soft(box).render(np.random.default_rng(0).standard_normal((3, 6)))
    assert len(box.split(prompts, EXAMPLES).atoms) == 3 * len(EXAMPLES)
    assert box.split(prompts, ()).atoms == ()


def test_the_label_words_are_part_of_the_key(box):
    swapped = replace(manual(), labels=("great", "terrible", "odd"))
    keys = [{a.key for a in box.split([p], EXAMPLES).atoms} for p in (manual(), swapped)]
    assert not keys[0] & keys[1]
    ours, theirs = (box([p], EXAMPLES).scores[0] for p in (manual(), swapped))
    np.testing.assert_allclose(ours[:, [1, 0, 2]], theirs, **TIGHT)


def test_known_rows_do_not_change_the_rest(box):
    grid = box.split([manual()], [f"{text} {i}" for i, text in enumerate(EXAMPLES * 10)])
    whole = box.evaluate(grid.atoms, range(50))
    for wanted in ([3], [49, 0, 17], list(range(0, 50, 7))):
        for row, i in zip(box.evaluate(grid.atoms, wanted), wanted, strict=True):
            assert row.tobytes() == whole[i].tobytes()


def test_the_name_holds_model_precision_and_length(box, kind):
    assert box.name.startswith(f"masked_lm:{kind}-") and box.name.endswith(":float32:48")


# --- the vocabulary ------------------------------------------------------------------------------


def test_words_are_taken_as_they_stand_behind_a_space(folders):
    vocabulary = load(folders["roberta"]).vocabulary
    found = {word: vocabulary.single(word) for word in LABELS}
    assert [vocabulary.decode([i]) for i in found.values()] == [f" {word}" for word in LABELS]
    assert vocabulary.single(" great ") == found["great"]
    # A piece that stands only without a space is taken so.
    inner = next(t for t, _ in _pieces(vocabulary) if vocabulary.tokenise(f" {t}")[1:])
    assert vocabulary.decode([vocabulary.single(inner)]) == inner


def _pieces(vocabulary):
    tokens = vocabulary._tokenizer.get_vocab().items()
    return [(t, i) for t, i in tokens if t.isascii() and t.isalpha() and len(t) > 1]


def test_ordinary_tokens_are_words(box):
    words = [box.vocabulary.decode([i]).strip() for i in box.vocabulary.ordinary()]
    assert {"great", "terrible", "story"} <= set(words)
    assert all(word.isalpha() and len(word) > 2 for word in words)
    # Alone behind a space each is one token again: none is the inside of a word.
    assert all(len(box.vocabulary.tokenise(f" {word}")) == 1 for word in words)


def test_what_is_decoded_has_the_same_ids(box):
    for text in (" it was great , and its story odd .", " great!"):
        ids = box.vocabulary.tokenise(text)
        assert box.vocabulary.tokenise(box.vocabulary.decode(ids)) == ids


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "{text} It was"}, "has no mask; put {mask}"),
        ({"template": "{text} {mask} or {mask}"}, "has 2 masks"),
        ({"template": "It was {mask}"}, r"must hold {text} once"),
        ({"template": "{text} " + "so " * 50 + "{mask}"}, "leaves no room for a text"),
        ({"tokens": ((9,) * 45,)}, "leaves no room for a text"),
        ({"labels": ("terribles", "great")}, "'terribles' is .* tokens.*: 'terrible', '"),
        ({"labels": ("great", "so great")}, "'so great' is 2 tokens.*near it: '"),
        ({"labels": ("great", " great ")}, "are the same token"),
        ({"labels": ("great", "")}, "'' is not a word"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_before_anything_is_paid(box, changes, message):
    prompt = replace(manual(), **changes)
    for one in (box, Cached(box, MemoryStore())):
        with pytest.raises(ConfigError, match=message):
            one.prepare(prompt)
    if "no room" not in message:
        with pytest.raises(ConfigError, match=message):
            box([prompt], EXAMPLES)


def test_two_masks_in_two_spellings_and_a_mask_as_a_word(box, plain):
    mask = plain.tokenizer.mask_token
    with pytest.raises(ConfigError, match="has 2 masks"):
        box.prepare(manual(f"{{text}} {{mask}} {mask}"))
    for label in (mask, plain.tokenizer.sep_token):
        with pytest.raises(ConfigError, match=r"is not a word|tokens"):
            box.prepare(replace(manual(), labels=("great", label)))


def test_what_can_be_used_is_not_refused(box):
    for template in TEMPLATES:
        box.prepare(manual(template))
    box.prepare(soft(box).render(np.zeros((1, 6)))[0])


def test_most_boxes_take_any_prompt():
    class Any(Wrapper):
        def evaluate(self, atoms, wanted):
            return []

    from fedbbpt.testing.toys import toy_box

    assert Any(toy_box()).prepare(manual("no mask")) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"max_tokens": 4}, "max_tokens at least 8"),
        ({"max_tokens": LONGEST + 1}, f"takes at most {LONGEST}"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"device": "warp"}, "device"),
        ({"model": "/no/such/folder"}, "is not a folder"),
    ],
)
def test_bad_options_are_refused(folders, kind, options, message):
    with pytest.raises(ConfigError, match=message):
        load(
            **{
                "folder": folders[kind],
                **{k.replace("model", "folder"): v for k, v in options.items()},
            }
        )


def test_a_model_without_the_head_is_refused(tmp_path, kind):
    """Transformers would load it, with random weights in place of the head's."""
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="is not a masked language model: its files lack"):
        load(make_model(kind, tmp_path / "body", body=True))


# --- whole runs ----------------------------------------------------------------------------------


def pairs(count, client):
    words = {"bad": "dull weak boring", "good": "lovely moving great"}
    return [
        (f"{client} {i} was {words[label].split()[i % 3]}", label)
        for i in range(count)
        for label in words
    ]


def test_a_federated_run(box, tmp_path):
    def tune(out, **engine):
        return fedbbpt.tune(
            {client: pairs(4, client) for client in ("ash", "birch")},
            TEMPLATE,
            out,
            test=pairs(3, "test"),
            labels={"bad": "terrible", "good": "great"},
            queries=400,
            box=box,
            rounds={"max": 3},
            prompt={"dim": 8},
            **engine,
        )

    serial = tune(tmp_path / "serial")
    result = serial.result
    assert result["box"] == box.name and result["rounds"] == 3
    assert 0 < result["queries"]["train"] <= 400
    assert np.isfinite([result[who]["loss"] for who in ("baseline", "tuned")]).all()
    assert set(serial.predict(["lovely", "dull"])) <= {"bad", "good"}
    threaded = tune(tmp_path / "threaded", engine={"threads": 2}).result
    assert {**threaded, "seconds": 0} == {**result, "seconds": 0}


def test_the_small_real_model_reaches_its_published_accuracy(data_folder):
    folder = data_folder / "models" / "review_mlm"
    if not folder.is_dir():
        pytest.skip("the local test material has no models/review_mlm")
    with (data_folder / "text" / "ready" / "sst2.test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:600]
    real = MaskedLm(str(folder), dtype="float32", device="cpu")
    prompt = RenderedPrompt("{text} it was {mask} .", ("terrible", "great"), "text")
    real.prepare(prompt)
    scores = real([prompt], [row["text"] for row in rows]).scores[0]
    right = np.array([row["label"] == "positive" for row in rows]) == scores.argmax(axis=1)
    assert right.mean() == pytest.approx(0.717, abs=0.01)
