"""CLIP and SigLIP models of random weights beside plain transformers calls, and a whole run."""

import gzip
import json
import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax

from fedbbpt import api
from fedbbpt.boxes._clip import Names
from fedbbpt.boxes.clip import Clip
from fedbbpt.config import resolve
from fedbbpt.data.load import Table
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.sharing import share_out
from fedbbpt.testing._pictures import PICTURES, Shade
from fedbbpt.testing.boxes import check_box, check_names
from fedbbpt.testing.prompts import check_start
from fedbbpt.testing.toys import CountingBox
from fedbbpt.types import Picture, RenderedPrompt, digest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL")

KINDS = ("clip", "legacy", "siglip", "masked", "chinese_clip")
LABELS = ("cat", "sign of the zebra", "odd")
TEMPLATE = "a photo of a {label}."
LONGEST, SIDE = 24, 16
CORPUS = ["a photo of a cat.", "it was a terrible, great and odd zebra sign", "the photo of it"] * 4
TIGHT = {"rtol": 0, "atol": 1e-5}


# --- small models, also for tests/testing/test_boxes.py ------------------------------------------


def make_tokenizer(kind):
    """CLIP's own kind of BPE, a SentencePiece-like one, or BERT's word pieces."""
    import tokenizers as t

    if kind in ("clip", "legacy"):
        core = t.Tokenizer(t.models.BPE(end_of_word_suffix="</w>"))
        core.pre_tokenizer = t.pre_tokenizers.Whitespace()
        alphabet = list("abcdefghijklmnopqrstuvwxyz.,")
        trainer = t.trainers.BpeTrainer(
            vocab_size=120,
            end_of_word_suffix="</w>",
            initial_alphabet=alphabet,
            show_progress=False,
        )
        core.train_from_iterator([*CORPUS, " ".join(alphabet)], trainer)
        model = json.loads(core.to_str())["model"]
        names = [*model["vocab"], "<|startoftext|>", "<|endoftext|>"]
        merges = [tuple(pair) for pair in model["merges"]]
        return transformers.CLIPTokenizer(
            {name: i for i, name in enumerate(names)}, merges, model_max_length=LONGEST
        )
    if kind == "chinese_clip":
        core = t.Tokenizer(t.models.WordPiece(unk_token="[UNK]"))
        core.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        trainer = t.trainers.WordPieceTrainer(
            vocab_size=120, special_tokens=special, show_progress=False
        )
        template = "[CLS] $A [SEP]"
    else:
        core = t.Tokenizer(t.models.BPE(unk_token="<unk>"))
        core.normalizer = t.normalizers.Lowercase()
        core.decoder = t.decoders.Metaspace()
        core.pre_tokenizer = t.pre_tokenizers.Sequence(
            [t.pre_tokenizers.Metaspace(), t.pre_tokenizers.Punctuation()]
        )
        special = ["</s>", "<unk>"]
        trainer = t.trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
        template = "$A </s>"
    core.train_from_iterator(CORPUS, trainer)
    core.post_processor = t.processors.TemplateProcessing(
        template, special_tokens=[(name, i) for i, name in enumerate(special)]
    )
    bert = kind == "chinese_clip"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=special[0],
        unk_token=special[1],
        model_max_length=LONGEST,
        model_input_names=["input_ids"] + ["attention_mask"] * (kind != "siglip"),
        **({"cls_token": "[CLS]", "sep_token": "[SEP]"} if bert else {"eos_token": template[-4:]}),
    )


def make_model(kind, folder, tokenizer=None):
    """A folder with a small model of random weights, its tokenizer and its image processor."""
    tokenizer = tokenizer or make_tokenizer(kind)
    name = {"legacy": "clip", "masked": "siglip"}.get(kind, kind)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {
        **sizes,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LONGEST,
        "pad_token_id": tokenizer.pad_token_id,
        # What OpenAI's checkpoints say, and mean the token of the highest number.
        "eos_token_id": 2 if kind == "legacy" else tokenizer.eos_token_id or 0,
        "projection_size": 20,
    }
    vision = {**sizes, "hidden_size": 20, "image_size": SIDE, "patch_size": 8}
    projected = {} if name == "siglip" else {"projection_dim": 12}
    config = transformers.CONFIG_MAPPING[name](text_config=text, vision_config=vision, **projected)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        model.logit_scale.fill_(2.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if name == "siglip":
        seeing = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
        transformers.SiglipProcessor(seeing, tokenizer).save_pretrained(folder)
    else:
        seeing = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 20}, crop_size={"height": SIDE, "width": SIDE}
        )
        seeing.save_pretrained(folder)
    return folder


def load(folder, **options):
    return Clip(str(folder), dtype="float32", device="cpu", **options)


class Plain:
    """A model by transformers alone, a text or a picture at a time."""

    def __init__(self, kind, folder):
        self.kind = kind
        self.model = transformers.AutoModel.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.siglip = kind in ("siglip", "masked")
        self.table = self.model.text_model.get_input_embeddings().weight.detach().numpy()

    def scores(self, pictures, texts):
        from PIL import Image

        images = [Image.fromarray(picture.pixels) for picture in pictures]
        padding = "max_length" if self.siglip else True
        given = self.tokenizer(list(texts), padding=padding, truncation=True, return_tensors="pt")
        seen = self.processor(images=images, return_tensors="pt")
        with torch.inference_mode():
            logits = self.model(**given, **seen).logits_per_image
        return log_softmax(logits.double().numpy(), axis=1)

    def ids(self, text):
        filled = {"padding": "max_length"} if self.siglip else {}
        return list(self.tokenizer(text, **filled)["input_ids"])

    def read(self, embedded):
        """A text's unit vector from its (L, H) input embeddings, step by step."""
        text, length = self.model.text_model, len(embedded)
        with torch.inference_mode():
            places = text.embeddings.position_embedding.weight[:length]
            given = torch.from_numpy(np.asarray(embedded, np.float32))[None] + places
            causal = torch.full((1, 1, length, length), -torch.inf).triu(1)
            mask = None if self.siglip else causal
            hidden = text.encoder(inputs_embeds=given, attention_mask=mask).last_hidden_state
            last = text.final_layer_norm(hidden)[0, -1]
            head = text.head if self.siglip else self.model.text_projection
            return unit(head(last).numpy())

    def see(self, images):
        """Unit vectors of images in [0, 1], normalised here."""
        mean, std = (np.array(x) for x in (self.processor.image_mean, self.processor.image_std))
        normal = ((images - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        with torch.inference_mode():
            found = self.model.get_image_features(pixel_values=torch.from_numpy(normal))
        return unit(found.pooler_output.numpy())

    def fitted(self, pictures):
        raw = {"do_normalize": False, "input_data_format": "channels_last"}
        each = [self.processor(images=[p.pixels], **raw)["pixel_values"][0] for p in pictures]
        return np.array(each).transpose(0, 2, 3, 1)

    def expected(self, images, texts):
        scale = self.model.logit_scale.exp().item()
        return log_softmax(scale * np.asarray(images) @ np.asarray(texts).T, axis=1)


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """kind -> (box, the same by plain transformers)."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = make_model(kind, tmp_path_factory.mktemp(kind))
            made[kind] = load(folder), Plain(kind, folder), folder
        return made[kind]

    return get


def filled(template=TEMPLATE, labels=LABELS):
    return [template.replace("{label}", label) for label in labels]


# --- nothing learned -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [TEMPLATE, "{label}", "{label}, the sign"])
def test_scores_are_those_of_plain_transformers(models, kind, template):
    box, plain, _ = models(kind)
    want = plain.scores(PICTURES, filled(template))
    for side in ("label", "image"):
        scores = box([RenderedPrompt(template, LABELS, side)], PICTURES).scores
        np.testing.assert_allclose(scores[0], want, **TIGHT)
    assert np.ptp(want, axis=0).max() > 1e-2, "the pictures differ in nothing"


def test_without_a_template_labels_go_as_they_are(models):
    box, plain, _ = models("clip")
    scores = box([RenderedPrompt("", LABELS, "image")], PICTURES).scores[0]
    np.testing.assert_allclose(scores, plain.scores(PICTURES, LABELS), **TIGHT)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_long_label_is_cut_and_its_end_stays(models, kind):
    box, plain, _ = models(kind)
    long = "a photo of " + "zebra " * 40
    scores = box([RenderedPrompt("", (long, "cat"), "image")], PICTURES).scores[0]
    np.testing.assert_allclose(scores, plain.scores(PICTURES, (long, "cat")), **TIGHT)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_pictures_are_fitted_as_the_models_processor_does(models, kind):
    box, plain, _ = models(kind)
    fitted = np.array([box.vision.fit(picture) for picture in PICTURES])
    np.testing.assert_allclose(fitted, plain.fitted(PICTURES), rtol=0, atol=1e-7)
    assert fitted.dtype == np.float32 and box.vision.size == fitted.shape[1:3] == (SIDE, SIDE)
    assert box.vision.std == pytest.approx(tuple(plain.processor.image_std))


def test_a_folder_without_an_image_processor_gets_clips(models, tmp_path):
    box, _, folder = models("clip")
    shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("preprocessor*"))
    bare = load(tmp_path / "bare")
    clips = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    raw = {"do_normalize": False, "input_data_format": "channels_last"}
    for picture in PICTURES:
        want = clips(images=[picture.pixels], **raw)["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_allclose(bare.vision.fit(picture), want, rtol=0, atol=1e-7)
    check_names(box, bare)


def test_a_picture_is_fitted_once(models, monkeypatch):
    box = load(models("clip")[2])
    fits = Counter()
    resized = box.vision._resized
    monkeypatch.setattr(box.vision, "_resized", lambda x: [fits.update([x.shape]), resized(x)][1])
    start = RenderedPrompt(TEMPLATE, LABELS, "image")
    for strength in (0.1, 0.2, 0.3):
        box([replace(start, visual=Shade(strength))], PICTURES)
    assert set(fits.values()) == {1} and len(fits) == len(PICTURES)


# --- prompts on the label side -------------------------------------------------------------------


def soft(box, **options):
    return Soft(box.vocabulary, TEMPLATE, LABELS, **{"dim": 8, **options})


@pytest.mark.parametrize("kind", ["clip", "legacy", "siglip"])
def test_offsets_are_added_to_the_templates_own_tokens(models, kind):
    """A row each for a, photo, of, a and the full stop; one for the words of the label."""
    box, plain, _ = models(kind)
    prompt = soft(box)
    assert prompt.length == 6
    (rows,) = prompt.render(np.random.default_rng(0).normal(0, 3, (1, 8)))[0].soft
    begin, own, texts = len(box.ends[0]), box.vocabulary.tokenise, []
    for label in LABELS:
        ids = plain.ids(TEMPLATE.replace("{label}", label))
        count = len(own(f"a {label}")) - len(own("a"))
        moved = plain.table[ids].copy()
        moved[begin : begin + 4] += rows[:4]
        moved[begin + 4 : begin + 4 + count] += rows[5]
        moved[begin + 4 + count] += rows[4]
        texts.append(plain.read(moved))
    want = plain.expected(plain.see(plain.fitted(PICTURES)), texts)
    moved = RenderedPrompt(TEMPLATE, LABELS, soft=(rows,))
    np.testing.assert_allclose(box([moved], PICTURES).scores[0], want, **TIGHT)
    assert abs(want - plain.scores(PICTURES, filled())).max() > 1e-2


@pytest.mark.parametrize("kind", ["clip", "legacy", "siglip"])
def test_inserted_rows_stand_behind_the_first_token_and_push_the_fill_out(models, kind):
    box, plain, _ = models(kind)
    each = np.random.default_rng(2).normal(0, 0.3, (len(LABELS), 3, 16)).astype(np.float32)
    moved = RenderedPrompt(TEMPLATE, LABELS, soft=tuple(each), mode="insert")
    begin, texts = len(box.ends[0]), []
    for text, rows in zip(filled(), each, strict=True):
        embedded = plain.table[plain.ids(text)]
        embedded = np.concatenate([embedded[:begin], rows, embedded[begin:]])
        texts.append(plain.read(embedded[:LONGEST] if plain.siglip else embedded))
    want = plain.expected(plain.see(plain.fitted(PICTURES)), texts)
    np.testing.assert_allclose(box([moved], PICTURES).scores[0], want, **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_tokens_are_the_text_with_them_in_it(models, kind, place):
    box, plain, _ = models(kind)
    words = "great zebra"
    ids = tuple(box.vocabulary.tokenise(words))
    template = f"{words} a photo of a {{label}} odd"
    if place == "after":
        template = f"a photo of a {{label}} {words} odd"
    prompt = RenderedPrompt("a photo of a {label} odd", LABELS, tokens=(ids,), place=place)
    want = plain.scores(PICTURES, filled(template))
    np.testing.assert_allclose(box([prompt], PICTURES).scores[0], want, **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_starts_at_the_manual_prompt(models, kind):
    box = models(kind)[0]
    for options in ({}, {"per_class": True}):
        check_start(soft(box, **options), RenderedPrompt(TEMPLATE, LABELS), box, PICTURES)


def test_a_template_without_room_is_refused_before_it_costs(models):
    box = models("clip")[0]
    with pytest.raises(ConfigError, match="is longer than box"):
        box.prepare(RenderedPrompt("a photo " * 20 + "{label}", LABELS))
    box.prepare(RenderedPrompt(TEMPLATE, LABELS))


# --- prompts on the image side -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_visual_prompt_is_laid_over_the_fitted_picture(models, kind):
    box, plain, _ = models(kind)
    prompts = [Shade(0.3), None, Shade(-0.4)]
    start = RenderedPrompt(TEMPLATE, LABELS, "image")
    scores = box([replace(start, visual=v) for v in prompts], PICTURES).scores
    fitted, bare = plain.fitted(PICTURES), plain.scores(PICTURES, filled())
    texts = [plain.read(plain.table[plain.ids(text)]) for text in filled()]
    for found, visual in zip(scores, prompts, strict=True):
        seen = plain.see(visual.on(fitted, PICTURES) if visual else fitted)
        np.testing.assert_allclose(found, plain.expected(seen, texts), **TIGHT)
        assert (abs(found - bare).max() > 1e-2) == (visual is not None)


# --- atoms ---------------------------------------------------------------------------------------


def keys(box, prompts, examples):
    return {atom.key for atom in box.split(prompts, examples).atoms}


def test_who_pays(models):
    """Label side: C atoms per candidate, pictures once. Image side: K x B, labels once; the
    picture as it is has one key on both.
    """
    box = models("clip")[0]
    bare = keys(box, (), PICTURES)
    assert bare == {digest(box.name, "image", picture.key) for picture in PICTURES}
    moved = soft(box).render(np.random.default_rng(4).standard_normal((5, 8)))
    assert len(keys(box, moved, PICTURES)) == 5 * 3 + 4
    assert keys(box, moved, PICTURES) - keys(box, moved, ()) == bare
    start = RenderedPrompt(TEMPLATE, LABELS, "image")
    shaded = [replace(start, visual=Shade(s)) for s in (0.1, 0.2)]
    assert len(keys(box, [start, *shaded], PICTURES)) == 3 * 4 + 3
    assert keys(box, [start], PICTURES) - keys(box, [start], ()) == bare
    first = digest(box.name, "image", shaded[0].visual.key, PICTURES[0].key)
    assert first in keys(box, shaded, PICTURES)
    twins = [Picture(picture.pixels.copy(), "another name") for picture in PICTURES]
    assert keys(box, (), twins) == bare


@pytest.mark.parametrize("kind", ["siglip", "chinese_clip"])
def test_it_keeps_the_laws_of_a_box(models, kind):
    check_box(models(kind)[0])


def test_embeddings_are_unit_vectors_of_the_pictures(models):
    box, plain, _ = models("siglip")
    found = box((), PICTURES).embeddings
    np.testing.assert_allclose(found, plain.see(plain.fitted(PICTURES)), **TIGHT)
    assert box.hidden == found.shape[1] == 20 and box.vocabulary.hidden == 16


# --- its tokens ----------------------------------------------------------------------------------


class Slow:
    """A tokenizer that does not say where its tokens stand, as SigLIP's own."""

    is_fast = False

    def __init__(self, fast):
        self.fast = fast

    def __getattr__(self, name):
        return getattr(self.fast, name)

    def __call__(self, text, add_special_tokens=True):
        return self.fast(text, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_whole_and_have_their_text_back(models, kind, caplog):
    words = models(kind)[0].vocabulary
    ordinary = words.ordinary()
    assert {"photo", "zebra", "great"} <= {words.decode([one]) for one in ordinary}
    for one in ordinary:
        text = words.decode([one])
        assert text.isalpha() and len(text) > 2 and words.tokenise(text) == [one]
    assert words.decode(words.tokenise("great zebra")) == "great zebra" and not caplog.records


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize(
    "template", ["a photo of a \0.", "\0", "\0 sign, odd", "the sign \0 of it"]
)
def test_a_tokenizer_without_offsets_lays_out_the_same(models, kind, template):
    words = models(kind)[0].vocabulary
    slow = Names(Slow(words._tokenizer), words._matrix)
    for label in ("cat", "sign of the zebra", "odd sign"):
        assert slow.layout(template, label) == words.layout(template, label)
        assert slow.behind(template, label) == words.behind(template, label)
    assert (slow.front, slow.back) == (words.front, words.back)


def test_clips_own_vocabulary(data_folder, tmp_path):
    lines = gzip.decompress(
        (data_folder / "models/clip_tokenizer/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    )
    merges = [tuple(line.split()) for line in lines.decode().splitlines()[1 : 49152 - 256 - 2 + 1]]
    letters = list(transformers.convert_slow_tokenizer.bytes_to_unicode().values())
    names = letters + [f"{one}</w>" for one in letters] + ["".join(pair) for pair in merges]
    names += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        {name: i for i, name in enumerate(names)}, merges, model_max_length=LONGEST
    )
    box = load(make_model("legacy", tmp_path, tokenizer))
    assert box.ends == ((49406,), (49407,))
    assert box.vocabulary.tokenise("a photo of a cat") == [320, 1125, 539, 320, 2368]
    ordinary = box.vocabulary.ordinary()[::500]
    for one in ordinary:
        word = box.vocabulary.decode([one])
        assert word.isalpha() and box.vocabulary.tokenise(word) == [one]
    assert len(ordinary) > 50
    found = box([RenderedPrompt(TEMPLATE, LABELS)], PICTURES).scores[0]
    want = Plain("legacy", tmp_path).scores(PICTURES, filled())
    np.testing.assert_allclose(found, want, **TIGHT)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("example", ["a text", np.zeros((4, 4, 3), np.uint8), None])
def test_examples_that_are_no_pictures(models, example):
    box = models("clip")[0]
    for prompts in ([], [RenderedPrompt(TEMPLATE, LABELS)]):
        with pytest.raises(ConfigError, match=r"^clip:.* takes images, but the examples are "):
            box(prompts, [example])


def test_a_sentence_encoder_takes_no_pictures(minilm):
    with pytest.raises(ConfigError, match="takes texts, but the examples are images"):
        minilm((), PICTURES)


def test_a_model_that_is_not_two_towers(tmp_path):
    tokenizer = make_tokenizer("chinese_clip")
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a BertModel, which does not encode both"):
        load(tmp_path)


def spoilt(folder, tmp_path, file, **changes):
    """A copy of a model with other entries in one of its JSON files."""
    copy = tmp_path / "spoilt"
    shutil.copytree(folder, copy)
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(content | changes))
    return copy


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop_size": {"height": 24, "width": 24}}, r"24x24 that its image processor makes: .*16"),
        ({"do_center_crop": False}, "takes images of any size"),
        ({"image_processor_type": "Nonsense"}, "image processor of .* cannot be loaded"),
    ],
)
def test_an_image_processor_that_does_not_fit(models, tmp_path, changes, said):
    folder = models("clip")[2]
    with pytest.raises(ConfigError, match=said):
        load(spoilt(folder, tmp_path, "preprocessor_config.json", **changes))


def test_weights_that_are_missing(models, tmp_path):
    folder = models("clip")[2]
    with pytest.raises(ConfigError, match=r"lack text_model\.encoder\.layers\.2"):
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["num_hidden_layers"] = 3
        load(spoilt(folder, tmp_path, "config.json", **config))


def test_an_older_transformers_is_named(models, monkeypatch):
    box = models("clip")[0]
    old = SimpleNamespace(
        get_text_features=1, get_image_features=1, logit_scale=1, text_model=object()
    )
    with pytest.raises(ConfigError, match="needs transformers 5"):
        box.towers._reader(old)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"device": "warp"}, "device 'warp'"),
        ({"model": "/no/such/folder"}, "is not a folder"),
    ],
)
def test_bad_options(models, options, message):
    given = {"model": str(models("clip")[2]), "dtype": "float32", "device": "cpu", **options}
    with pytest.raises(ConfigError, match=message):
        Clip(**given)


# --- over the wire -------------------------------------------------------------------------------


def test_behind_a_gateway_pictures_are_examples(models, gateways, monkeypatch):
    from fedbbpt.boxes import gateway_http

    box = models("clip")[0]
    far = gateway_http.GatewayHttp(gateways(box, memory_mb=0))
    assert far.accepts == box.accepts - {"image"} and far.sides == box.sides
    assert far.hidden == box.hidden == 12
    prompts = soft(box).render(np.random.default_rng(5).standard_normal((3, 8)))
    for some in (prompts, [RenderedPrompt(TEMPLATE, LABELS, "image")]):
        assert keys(far, some, PICTURES) == keys(box, some, PICTURES)
        np.testing.assert_array_equal(far(some, PICTURES).scores, box(some, PICTURES).scores)
    np.testing.assert_array_equal(far((), PICTURES).embeddings, box((), PICTURES).embeddings)
    with pytest.raises(ConfigError, match="no visual prompts"):
        far([RenderedPrompt(TEMPLATE, LABELS, "image", visual=Shade(0.1))], PICTURES)
    with pytest.raises(ConfigError, match="takes images, but the examples are texts"):
        far(prompts, ["a text"])
    # Pictures are large: a few of them fill a request.
    sent = []
    monkeypatch.setattr(gateway_http, "HEAVIEST", 4000)
    monkeypatch.setattr(
        gateway_http,
        "pack",
        lambda f, a, w, pack=gateway_http.pack: [sent.append(len(a)), pack(f, a, w)][1],
    )
    np.testing.assert_allclose(
        far(prompts, PICTURES).scores, box(prompts, PICTURES).scores, **TIGHT
    )
    assert len(sent) > 1 and sum(sent) == 3 * 3 + 4


# --- a whole run ---------------------------------------------------------------------------------


def drawn(count, seed):
    """Pictures of two classes, bright and dark."""
    rng = np.random.default_rng(seed)
    classes = ["night", "day"] * (count // 2)
    pixels = [rng.integers(0, 128, (18, 24, 3)) + 127 * (name == "day") for name in classes]
    return [Picture(np.asarray(p, np.uint8)) for p in pixels], classes


def federation(folder, tmp_path, **budget):
    tree = {
        "data": {"train": ""},
        "prompt": {"template": TEMPLATE, "dim": 8},
        "method": {"name": "fedes"},
        "rounds": {"max": 1000},
        "budget": {"queries": 300, **budget},
    }
    train, tested = drawn(24, 0), drawn(12, 1)
    sites = tuple(f"site {i % 3}" for i in range(24))
    table = Table(tuple(train[0]), tuple(train[1]), sites)
    config = resolve(tree, tmp_path)
    return config, share_out(config, table, Table(tuple(tested[0]), tuple(tested[1]), None))


class Cut(CountingBox):
    """Breaks for good after some queries."""

    def evaluate(self, atoms, wanted):
        if len(self.asked) >= 150:
            raise BoxError("the line is dead")
        return super().evaluate(atoms, wanted)


def test_a_federated_run_pays_pictures_once_and_resumes(models, tmp_path):
    folder = models("siglip")[2]
    config, split = federation(folder, tmp_path)
    box = CountingBox(load(folder))
    outcome = api.run(config, tmp_path / "whole", box=box, split=split)
    queries = outcome.result["queries"]
    # Ten candidates of two classes a round, and every training picture once.
    pictures = sum(split.train[name].size for name in split.clients)
    rounds = outcome.result["rounds"]
    assert outcome.result["stopped"] == "budget" and rounds > 5
    assert queries["train"] == pictures + rounds * 10 * 2 <= 300
    assert 300 - queries["train"] < 10 * 2
    assert len(box.asked) == len(set(box.asked)) == queries["paid"]
    assert outcome.result["tuned"]["loss"] <= outcome.result["baseline"]["loss"]
    assert outcome.predict(split.test["(test)"].inputs[:2])[0] in ("night", "day")
    with pytest.raises(BoxError, match="the line is dead"):
        api.run(config, tmp_path / "cut", box=Cut(load(folder)), split=split)
    again = api.resume(tmp_path / "cut", box=load(folder), split=split)
    same = ("rounds", "baseline", "tuned", "stopped")
    assert [again.result[key] for key in same] == [outcome.result[key] for key in same]
    assert again.result["queries"]["train"] == queries["train"]
