"""Causal language models of random weights beside plain transformers calls, and a real one."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

import fedbbpt
from fedbbpt.boxes.causal_lm import CausalLm
from fedbbpt.errors import ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.prompts.tokens import Tokens
from fedbbpt.testing.boxes import check_box, check_names
from fedbbpt.testing.prompts import check_prompt, check_start
from fedbbpt.testing.toys import MemoryStore
from fedbbpt.types import RenderedPrompt
from fedbbpt.wrappers.cached import Cached

KINDS = ("gpt2", "llama", "qwen2")
LABELS = ("terrible", "great", "odd")
SEVERAL = ("terrible", "so great", "so odd indeed", "great")
TEMPLATE = "{text} All in all it was"
TEMPLATES = (TEMPLATE, "It was odd : {text}", "so! {text}. So it was", "{text}", '"{text}" it was,')
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
ROW_WIDTH, LONGEST, REPLY = 16, 48, 8
TIGHT = {"rtol": 0, "atol": 1e-5}


# --- small models, also for tests/testing/test_boxes.py ------------------------------------------


def make_tokenizer(kind):
    """Byte-level BPE, or for Llama BPE over words that begin with a mark, and a first token."""
    import tokenizers as t
    import transformers

    marked = kind == "llama"
    special = ["<unk>", "<s>", "</s>"] if marked else ["<|endoftext|>"]
    core = t.Tokenizer(t.models.BPE(unk_token="<unk>" if marked else None))
    if marked:
        core.pre_tokenizer = t.pre_tokenizers.Metaspace(prepend_scheme="first")
        core.decoder = t.decoders.Metaspace(prepend_scheme="first")
    else:
        core.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = t.decoders.ByteLevel()
    letters = t.pre_tokenizers.ByteLevel.alphabet()
    trainer = t.trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    names = {"bos_token": special[-2], "eos_token": special[-1]} if marked else {}
    if marked:
        core.post_processor = t.processors.TemplateProcessing(
            "<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    elif kind == "gpt2":
        names = {"bos_token": special[0], "eos_token": special[0]}
    else:
        names = {"eos_token": special[0]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **names)


def make_model(kind, folder, auto="AutoModelForCausalLM", **changes):
    """A folder with a small model of random weights."""
    import torch
    import transformers

    tokenizer = make_tokenizer(kind)
    sizes = {
        "hidden_size": ROW_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LONGEST + REPLY,
    }
    own = {"gpt2": {}, "gemma3_text": {"head_dim": 8}}.get(kind, {"intermediate_size": 24})
    if kind != "gpt2":
        own |= {"num_key_value_heads": 2}
    own |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.CONFIG_MAPPING[kind](
        vocab_size=len(tokenizer),
        initializer_range=0.4,
        pad_token_id=0,
        **{**sizes, **own, **changes},
    )
    torch.manual_seed(0)
    getattr(transformers, auto).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def load(folder, **options):
    own = {"dtype": "float32", "device": "cpu", "max_tokens": LONGEST, "reply_tokens": REPLY}
    return CausalLm(folder, **{**own, **options})


class Plain:
    """The model by transformers alone: one whole sequence at a time, logits everywhere."""

    def __init__(self, folder):
        import torch
        import transformers

        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        self.model = model.float().eval()
        layer = model.get_input_embeddings()
        self.table = layer(torch.arange(len(layer.weight))).detach().numpy()
        self.first = len(self.ids("")) and 1

    def ids(self, text):
        return list(self.tokenizer(text)["input_ids"])

    def word(self, label):
        """A label's tokens behind a space, found by what "it" alone lacks."""
        return self.ids(f"it {label}")[len(self.ids("it")) :]

    def whole(self, ids, embedded=None, labels=LABELS):
        """(C,) summed log-probabilities of the labels' tokens behind these."""
        sums = []
        for word in map(self.word, labels):
            given = {"input_ids": self.torch.tensor([[*ids, *word]])}
            if embedded is not None:
                rows = np.concatenate([embedded, self.table[word]])
                given = {"inputs_embeds": self.torch.from_numpy(np.float32(rows))[None]}
            with self.torch.inference_mode():
                logits = self.model(**given, use_cache=False).logits[0].double().numpy()
            behind = log_softmax(logits, axis=1)[-len(word) - 1 : -1]
            sums.append(behind[range(len(word)), word].sum())
        return np.array(sums)

    def scores(self, prompted, labels=LABELS):
        """(N, C) of texts, of lists of ids, or of pairs of ids and embeddings."""
        asked = [self.ids(p) if isinstance(p, str) else p for p in prompted]
        return np.array(
            [self.whole(*(p if isinstance(p, tuple) else (p,)), labels=labels) for p in asked]
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("models")
    return {kind: make_model(kind, root / kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def box(folders, kind):
    return load(folders[kind])


@pytest.fixture(scope="module")
def plain(folders, kind):
    return Plain(folders[kind])


@pytest.fixture(params=["shared", "apart"])
def sharing(request, monkeypatch, box):
    """Every beginning that rows share run once, or each row by itself."""
    monkeypatch.setattr("fedbbpt.boxes._prefixes.PASS", 0)
    if request.param == "apart":
        monkeypatch.setattr(box.network, "window", 0)
    return request.param == "shared"


def manual(template=TEMPLATE, **changes):
    return replace(RenderedPrompt(template, LABELS, "text"), **changes)


def filled(template, examples=EXAMPLES):
    return [template.replace("{text}", text) for text in examples]


def soft(box, template=TEMPLATE, **options):
    return Soft(box.vocabulary, template, LABELS, "text", **{"dim": 6, **options})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def rows_of(box, prompts, examples=EXAMPLES):
    """(K, B, C) rows before they are renormalised over the classes."""
    rows = [
        box.evaluate(atoms, range(len(atoms)))
        for atoms in (box.split([prompt], examples).atoms for prompt in prompts)
    ]
    return np.array(rows)


def together(box, prompts, examples=EXAMPLES):
    """As :func:`rows_of`, in one call."""
    atoms = box.split(prompts, examples).atoms
    rows = box.evaluate(atoms, range(len(atoms)))
    return np.array(rows).reshape(len(prompts), len(examples), -1)


# --- text prompts --------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [LABELS, SEVERAL], ids=["words", "several"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_rows_are_those_of_whole_sequences(box, plain, sharing, template, labels):
    texts = EXAMPLES if plain.first or template != "{text}" else EXAMPLES[:-1]
    rows = together(box, [manual(template, labels=labels)], texts)
    np.testing.assert_allclose(rows[0], plain.scores(filled(template, texts), labels), **TIGHT)
    assert np.ptp(rows[0], axis=0).max() > 0.05  # the model does look at the text


def test_scores_are_renormalised_over_the_classes(box, plain):
    scores = box([manual(labels=SEVERAL)], EXAMPLES).scores
    sums = plain.scores(filled(TEMPLATE), SEVERAL)
    np.testing.assert_allclose(scores[0], log_softmax(sums, axis=1), **TIGHT)
    assert scores.dtype == np.float64


def test_long_labels_may_be_set_right_by_their_number_of_tokens(folders, kind, box, plain):
    even = load(folders[kind], normalise=True)
    sums = plain.scores(filled(TEMPLATE), SEVERAL)
    counts = [len(plain.word(label)) for label in SEVERAL]
    assert len(set(counts)) > 1
    scores = even([manual(labels=SEVERAL)], EXAMPLES).scores[0]
    np.testing.assert_allclose(scores, log_softmax(sums / counts, axis=1), **TIGHT)
    # The same is paid: what differs comes after.
    atoms = [b.split([manual()], EXAMPLES).atoms for b in (even, box)]
    assert [a.key for a in atoms[0]] == [a.key for a in atoms[1]]


def test_a_template_may_end_in_a_space(box):
    rows = rows_of(box, [manual(), manual(TEMPLATE + " ")])
    np.testing.assert_array_equal(rows[0], rows[1])
    assert soft(box, TEMPLATE + "  ").length == soft(box).length


def test_a_text_of_nothing_at_all_has_a_first_token(box, plain):
    start = plain.tokenizer.convert_tokens_to_ids("<s>" if plain.first else "<|endoftext|>")
    rows = rows_of(box, [manual("{text}")], [""])
    np.testing.assert_allclose(rows[0], plain.scores([[start]]), **TIGHT)


def test_several_prompts_and_more_rows_than_one_pass_takes(folders, kind, plain, monkeypatch):
    monkeypatch.setattr("fedbbpt.boxes._prefixes.PASS", 0)
    few = load(folders[kind], rows=3)
    prompts = [manual(t, labels=SEVERAL) for t in (*TEMPLATES[:3], "{text} All in all it is")]
    examples = [f"{text} {'so ' * (i % 5)}odd{i}" for i, text in enumerate(EXAMPLES * 3)]
    want = [plain.scores(filled(prompt.template, examples), SEVERAL) for prompt in prompts]
    np.testing.assert_allclose(together(few, prompts, examples), want, **TIGHT)


# --- tokens and soft prompts ---------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_tokens_stand_before_the_template_or_behind_the_text(box, plain, sharing, template, place):
    words = [int(i) for i in box.vocabulary.ordinary()]
    chosen = [tuple(words[:3]), tuple(words[1:3]), (), tuple(words[3:6])]
    prompts = [manual(template, tokens=(tokens,), place=place) for tokens in chosen]
    texts = ["a lovely story", "dull it was", "the film was weak"]
    if template == "{text}":
        texts = [f"it was {text}" for text in texts]
    want = []
    for tokens in chosen:
        ids = [plain.ids(text) for text in filled(template, texts)]
        at = [plain.first] * len(texts)
        if place == "after":
            at = [len(plain.ids(template.partition("{text}")[0] + text)) for text in texts]
        spliced = [[*one[:i], *tokens, *one[i:]] for one, i in zip(ids, at, strict=True)]
        want.append(plain.scores(spliced))
    np.testing.assert_allclose(together(box, prompts, texts), want, **TIGHT)


@pytest.mark.parametrize("template", TEMPLATES[:3])
def test_added_zeros_are_the_manual_prompt(box, template):
    prompt = soft(box, template)
    check_prompt(prompt)
    check_start(prompt, manual(template), box, EXAMPLES)


@pytest.mark.parametrize(
    "template", ["{text} All in all it was", "It was odd : {text} . so it was"]
)
def test_offsets_move_the_templates_own_tokens(box, plain, sharing, template):
    texts = ["a lovely story", "dull", "the film was rather weak", "dull All in all it"]
    front, _, back = template.partition("{text}")
    length = soft(box, template).length
    several = [normal(length, ROW_WIDTH, seed=seed) for seed in range(3)]
    want = []
    for rows in several:
        asked = []
        for text in texts:
            ids = plain.ids(template.replace("{text}", text))
            ahead = len(plain.ids(front.rstrip())) if front else plain.first
            behind = len(plain.ids(template.replace("{text}", "x"))) - len(plain.ids(front + "x"))
            places = [*range(plain.first, ahead), *range(len(ids) - behind, len(ids))]
            assert len(places) == length and back
            embedded = plain.table[ids].copy()
            embedded[places] += rows
            asked.append((ids, embedded))
        want.append(plain.scores(asked, SEVERAL))
    prompts = [manual(template, soft=(rows,), labels=SEVERAL) for rows in several]
    found = together(box, prompts, texts)
    np.testing.assert_allclose(found, want, **TIGHT)
    assert abs(found[0] - found[1]).max() > 0.01


@pytest.mark.parametrize("template", TEMPLATES)
def test_inserted_rows_stand_behind_the_first_token(box, plain, sharing, template):
    several = [normal(3, ROW_WIDTH, seed=seed) for seed in range(3)]
    want = []
    for rows in several:
        ids = [plain.ids(text) for text in filled(template)]
        at = plain.first
        tables = [plain.table[np.array(one, np.int64)] for one in ids]
        rowed = [np.concatenate([table[:at], rows, table[at:]]) for table in tables]
        want.append(plain.scores([([0] * len(r), r) for r in rowed], SEVERAL))
    prompts = [manual(template, soft=(r,), mode="insert", labels=SEVERAL) for r in several]
    np.testing.assert_allclose(together(box, prompts), want, **TIGHT)


def test_a_discrete_search_has_candidates(box):
    prompt = Tokens(box.vocabulary, TEMPLATE, LABELS, "text", slots=3, candidates=8)
    for one in prompt.ids:
        text = box.vocabulary.decode([one])
        assert box.vocabulary.tokenise(text) == [one] and text.strip().isalpha()


def test_ordinary_tokens_are_words(box, plain):
    words = [box.vocabulary.decode([int(i)]).strip() for i in box.vocabulary.ordinary()]
    assert {"great", "terrible", "story"} <= set(words)
    assert all(word.isalpha() and len(plain.word(word)) == 1 for word in words)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("mode", ["add", "insert"])
def test_gradients_are_those_of_the_scores(folders, kind, mode, normalise):
    """Against central differences along some directions; several batches, labels of any length."""
    box = load(folders[kind], rows=2, normalise=normalise)
    targets = np.array([0, 3, 2, 1, 0])
    length = 3 if mode == "insert" else soft(box).length

    def prompt(rows):
        return manual(soft=(rows.astype(np.float32),), mode=mode, labels=SEVERAL)

    def loss(rows):
        scores = box([prompt(rows)], EXAMPLES).scores[0]
        return -scores[range(len(targets)), targets].mean()

    rows = normal(length, ROW_WIDTH).astype(np.float64)
    value, gradient = box.gradient(prompt(rows), EXAMPLES, targets)
    assert value == pytest.approx(loss(rows), abs=1e-5) and gradient.shape == (1, *rows.shape)
    for seed in range(4):
        step = 3e-3 * normal(length, ROW_WIDTH, seed=seed + 1)
        slope = loss(rows + step) - loss(rows - step)
        assert slope == pytest.approx(2 * (gradient[0] * step).sum(), rel=0.05, abs=1e-4)


# --- what is run ---------------------------------------------------------------------------------


@pytest.fixture
def counted(box, monkeypatch):
    """(rows, tokens) of every pass through the network."""
    seen, batch = [], box.network.batch

    def count(rows):
        seen.append((len(rows), sum(len(ids) for ids, _, _ in rows)))
        return batch(rows)

    monkeypatch.setattr(box.network, "batch", count)
    return seen


def test_what_stands_in_front_is_run_once_for_a_prompt(box, plain, counted, monkeypatch):
    monkeypatch.setattr("fedbbpt.boxes._prefixes.PASS", 4)
    template = "It was odd and so it was great : {text}"
    prompts = [
        manual(template, soft=(normal(5, ROW_WIDTH, seed=s),), mode="insert") for s in (1, 2)
    ]
    texts = [f"{word} story" for word in ("lovely", "odd", "weak", "great", "dull")]
    together(box, prompts, texts)
    front = len(plain.ids(template.replace(" {text}", ""))) + 5
    rest = sum(len(plain.ids(t)) for t in filled(template, texts)) - 5 * (front - 5)
    tokens = sum(count for _, count in counted)
    assert counted[0][0] == 2 and tokens <= 2 * front + 2 * rest
    assert tokens < sum(len(plain.ids(t)) + 5 for t in filled(template, texts))


def test_a_text_in_front_is_run_once_for_all_candidates(box, plain, counted, monkeypatch):
    monkeypatch.setattr("fedbbpt.boxes._prefixes.PASS", 4)
    length = soft(box).length
    prompts = [manual(soft=(normal(length, ROW_WIDTH, seed=s),)) for s in range(6)]
    texts = ["the film was rather weak, and its story", "a lovely story, and moving it was"]
    together(box, prompts, texts)
    own = sum(len(plain.ids(text)) for text in texts)
    assert sum(count for _, count in counted) <= own + 6 * 2 * length + 2
    assert [rows for rows, _ in counted] == [2, 12]


def test_a_label_of_one_token_costs_no_pass_and_a_long_one_its_tokens(box, counted, plain):
    together(box, [manual()], EXAMPLES[:3])
    single = list(counted)
    counted.clear()
    together(box, [manual(labels=SEVERAL)], EXAMPLES[:3])
    words = [plain.word(label) for label in SEVERAL]
    tails = {tuple(word[:-1]) for word in words if len(word) > 1}
    assert counted == [*single, (3 * len(tails), 3 * sum(map(len, tails)))]


def test_the_head_sees_only_what_is_asked(box):
    base, seen = box.network.network.base_model, []
    heads = [child for child in box.network.network.children() if child is not base]
    hooks = [head.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape)) for head in heads]
    box([manual()], EXAMPLES)
    for hook in hooks:
        hook.remove()
    assert seen and all(tuple(shape) == (len(EXAMPLES), 1, ROW_WIDTH) for shape in seen)


@pytest.mark.parametrize("labels", [LABELS, SEVERAL], ids=["words", "several"])
def test_known_rows_do_not_change_the_rest(box, sharing, labels):
    length = soft(box).length
    prompts = [manual(soft=(normal(length, ROW_WIDTH, seed=s),), labels=labels) for s in range(3)]
    atoms = box.split(prompts, [f"{text} {i}" for i, text in enumerate(EXAMPLES * 4)]).atoms
    whole = box.evaluate(atoms, range(60))
    for wanted in ([3], [59, 0, 17], list(range(0, 60, 7))):
        for row, i in zip(box.evaluate(atoms, wanted), wanted, strict=True):
            assert row.tobytes() == whole[i].tobytes()


# --- other networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [8, 1024])
def test_windows_and_scaled_embeddings(tmp_path, window, monkeypatch):
    """A window that is shorter than a text leaves nothing to share; embeddings are looked up."""
    pytest.importorskip("transformers")
    monkeypatch.setattr("fedbbpt.boxes._prefixes.PASS", 0)
    folder = make_model("gemma3_text", tmp_path / "gemma", sliding_window=window)
    box, plain = load(folder), Plain(folder)
    assert bool(box.network.window) == (window == 1024)
    prompts = [manual(labels=SEVERAL), manual("It was odd : {text}", labels=SEVERAL)]
    want = [plain.scores(filled(p.template), SEVERAL) for p in prompts]
    np.testing.assert_allclose(together(box, prompts), want, **TIGHT)
    ids = plain.ids("great")
    np.testing.assert_array_equal(box.vocabulary.embed(ids), plain.table[ids])


@pytest.mark.parametrize("name", KINDS)
def test_half_precision_keeps_the_head_precise(folders, name):
    whole, half = load(folders[name]), load(folders[name], dtype="bfloat16")
    gap = abs(whole([manual()], EXAMPLES).scores - half([manual()], EXAMPLES).scores).max()
    assert 0 < gap < 0.4
    weights = {str(p.dtype) for p in half.network.network.parameters()}
    assert weights == {"torch.float32", "torch.bfloat16"}
    check_names(whole, half)


# --- the laws, long texts, the key ---------------------------------------------------------------


def test_the_laws_of_a_box(box):
    check_box(box)


def test_the_name_holds_model_precision_and_lengths(box, kind):
    assert box.name.startswith(f"causal_lm:{kind}-") and box.name.endswith(":float32:48:8")


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("template", [TEMPLATE, "It was odd : {text}"])
def test_the_example_is_cut_and_never_the_template(box, plain, template, place):
    """Prompt, text and the longest label take all the room there is."""
    tokens = tuple(int(i) for i in box.vocabulary.ordinary()[:2])
    prompt = manual(template, tokens=(tokens,), place=place, labels=SEVERAL)
    words = ["great"] * 500
    longest = max(len(plain.word(label)) for label in SEVERAL)
    one = len(plain.ids(template.replace("{text}", "x great"))) - len(
        plain.ids(template.replace("{text}", "x"))
    )
    assert one == 1

    def fits(count):
        text = template.replace("{text}", " ".join(words[:count]))
        return len(plain.ids(text)) + len(tokens) + longest <= LONGEST

    kept = max(count for count in range(1, LONGEST) if fits(count))
    texts = [" ".join(words[:count]) for count in (500, kept, kept - 1)]
    rows = together(box, [prompt], texts)[0]
    np.testing.assert_allclose(rows[0], rows[1], **TIGHT)
    assert abs(rows[0] - rows[2]).max() > 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "It was"}, r"must hold {text} once"),
        ({"template": "{text} or {text} was"}, r"must hold {text} once"),
        ({"template": "{text} It was {mask}"}, "must not hold {mask}.*behind the template"),
        ({"template": "{text} It was {label}"}, "must not hold {label}"),
        ({"template": "{text} " + "so " * 60}, "leaves no room for a text"),
        ({"tokens": ((9,) * 45,)}, "leaves no room for a text"),
        ({"labels": ("great", "so " * 50)}, "leaves no room for a text"),
        ({"labels": ("great", " great ")}, "'great' and ' great ' are the same tokens"),
        ({"labels": ("great", " ")}, "has ' ', which is no word"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_before_anything_is_paid(box, changes, message):
    prompt = replace(manual(), **changes)
    for one in (box, Cached(box, MemoryStore())):
        with pytest.raises(ConfigError, match=message):
            one.prepare(prompt)


def test_what_can_be_used_is_not_refused(box):
    for template in TEMPLATES:
        box.prepare(manual(template, labels=SEVERAL))
    box.prepare(soft(box).render(np.zeros((1, 6)))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"max_tokens": LONGEST + REPLY + 1}, f"takes at most {LONGEST + REPLY}"),
        ({"reply_tokens": 0}, "reply_tokens is 0"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_bad_options_are_refused(folders, options, message):
    with pytest.raises(ConfigError, match=message):
        load(folders["llama"], **options)


def test_what_is_no_causal_model_is_refused(tmp_path):
    """Transformers would load a body with a random head, and a masked model as it is."""
    pytest.importorskip("transformers")
    body = make_model("llama", tmp_path / "body", "AutoModel")
    with pytest.raises(ConfigError, match=r"not a causal language model: its files lack lm_head"):
        load(body)
    masked = make_model("roberta", tmp_path / "roberta", "AutoModelForMaskedLM")
    with pytest.raises(ConfigError, match=r"not a causal language model: what it makes of a token"):
        load(masked, max_tokens=16)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load(make_model("distilbert", tmp_path / "distilbert", "AutoModelForMaskedLM"))


# --- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [{"dim": 8}, {"kind": "tokens", "slots": 2, "candidates": 6}])
def test_a_federated_run(box, tmp_path, prompt):
    words = {"bad": "dull weak boring", "good": "lovely moving great"}
    pairs = {
        client: [
            (f"{client} {i} was {w.split()[i % 3]}", c) for i in range(3) for c, w in words.items()
        ]
        for client in ("ash", "birch", "test")
    }
    method = {"method": "fed-bbpt-text"} if "kind" in prompt else {}
    outcome = fedbbpt.tune(
        {client: pairs[client] for client in ("ash", "birch")},
        "{text} It was",
        tmp_path / "run",
        test=pairs["test"],
        labels={"bad": "so terrible", "good": "great"},
        queries=400,
        box=box,
        rounds={"max": 2},
        prompt=prompt,
        **method,
    )
    result = outcome.result
    assert result["box"] == box.name and 0 < result["queries"]["train"] <= 400
    assert np.isfinite([result[who]["loss"] for who in ("baseline", "tuned")]).all()
    assert set(outcome.predict(["lovely", "dull"])) <= {"bad", "good"}


def convert(source, folder):
    """A llama2.c checkpoint and vocabulary as a transformers folder."""
    import tokenizers as t
    import torch
    import transformers

    raw = (source / "stories260K.bin").read_bytes()
    dim, inner, layers, heads, kv, size, longest = struct.unpack("7i", raw[:28])
    flat, at = np.frombuffer(raw, np.float32, offset=28), 0

    def take(*shape):
        nonlocal at
        at += int(np.prod(shape))
        return torch.from_numpy(flat[at - int(np.prod(shape)) : at].reshape(shape).copy())

    def halves(rows, count):
        """Rotated pairs that stand side by side there, and half a head apart here."""
        return rows.view(count, -1, 2, dim).transpose(1, 2).reshape(-1, dim)

    width = dim // heads * kv
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    shapes = [(dim, dim), (width, dim), (width, dim), (dim, dim)]
    weights = {"model.embed_tokens.weight": take(size, dim)}
    stacks = {"input_layernorm": take(layers, dim)}
    stacks |= {n: take(layers, *shape) for n, shape in zip(names, shapes, strict=True)}
    stacks |= {
        "post_attention_layernorm": take(layers, dim),
        "mlp.gate_proj": take(layers, inner, dim),
    }
    stacks |= {"mlp.down_proj": take(layers, dim, inner), "mlp.up_proj": take(layers, inner, dim)}
    weights["model.norm.weight"] = take(dim)
    for name, stack in stacks.items():
        for i, one in enumerate(stack):
            turned = {names[0]: heads, names[1]: kv}.get(name)
            weights[f"model.layers.{i}.{name}.weight"] = halves(one, turned) if turned else one
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=dim,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=longest,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(weights)
    model.save_pretrained(folder)

    raw, at, pieces = (source / "tok512.bin").read_bytes(), 4, []
    for _ in range(size):
        score, length = struct.unpack_from("fi", raw, at)
        pieces.append((raw[at + 8 : at + 8 + length].decode().replace(" ", "▁"), score))
        at += 8 + length
    pieces[:3] = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, _ in sorted(pieces[259:], key=lambda pair: -pair[1]):
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        merges += [cut for cut in cuts if cut[0] in ids and cut[1] in ids]
    core = t.Tokenizer(t.models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = t.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = t.decoders.Metaspace(prepend_scheme="first")
    core.post_processor = t.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return str(folder)


def test_a_small_real_model_knows_how_stories_go_on(data_folder, tmp_path):
    pytest.importorskip("transformers")
    source = Path(data_folder) / "models" / "stories260K"
    if not source.is_dir():
        pytest.skip("the local test material has no models/stories260K")
    real = CausalLm(convert(source, tmp_path / "stories260K"), dtype="float32", device="cpu")
    prompt = manual("{text} named", labels=("Lily", "Tim", "spoon"))
    texts = ["One day, there was a little girl", "One day, there was a little boy"]
    scores = real([prompt], texts).scores[0]
    assert scores.argmax(axis=1).tolist() == [0, 1] and scores[:, 2].max() < -5
    begin = manual("{text}", labels=("a time", "a dog", "the sea"))
    assert real([begin], ["Once upon"]).scores[0, 0, 0] > -1e-3
