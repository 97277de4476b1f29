"""A causal model's own words beside ``generate`` of transformers, and a real model's."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import ConfigError
from fedbbpt.prompts.soft import Soft
from fedbbpt.testing.boxes import Case, check_names
from fedbbpt.types import RenderedPrompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

spec = spec_from_file_location("causal_models", Path(__file__).with_name("test_causal_lm.py"))
causal = module_from_spec(spec)
spec.loader.exec_module(causal)

TEMPLATES = ("{text} All in all it was", "It was odd : {text}", '"{text}"\nit was,')
EXAMPLES = (*causal.EXAMPLES[:4], "so it was great and odd, and so")


@pytest.fixture(scope="module", params=causal.KINDS)
def folder(request, tmp_path_factory):
    return causal.make_model(request.param, tmp_path_factory.mktemp("greedy") / request.param)


@pytest.fixture(scope="module")
def box(folder):
    return causal.load(folder)


class Plain:
    """The model and its tokenizer by transformers alone, one text at a time."""

    def __init__(self, folder):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder).float().eval()

    def words(self, text, most):
        """Of a text."""
        ids = self.tokenizer(text)["input_ids"]
        given = torch.tensor([ids])
        # Without a mask it would take the unknown token for padding.
        whole = self.model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=most
        )
        said = self.decode(whole[0])
        assert said.startswith(self.decode(ids))
        return said.removeprefix(self.decode(ids))

    def tokens(self, embedded, most):
        """Of (L, H) embeddings: ids."""
        given = torch.from_numpy(np.float32(embedded))[None]
        return self.model.generate(inputs_embeds=given, do_sample=False, max_new_tokens=most)[0]

    def decode(self, ids):
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


@pytest.fixture(scope="module")
def plain(folder):
    return Plain(folder)


def asked(template=TEMPLATES[0], **changes):
    return RenderedPrompt(template, (), "text", **changes)


@pytest.mark.parametrize("cached", [True, False])
def test_words_are_those_of_generate(folder, plain, monkeypatch, cached):
    """Batches of texts of several lengths, with a key/value cache and without."""
    box = causal.load(folder, rows=3)
    if not cached:
        monkeypatch.setattr(box.network, "window", 0)
    else:
        assert box.network.window
    reply = box([asked(template) for template in TEMPLATES], EXAMPLES)
    want = tuple(
        tuple(plain.words(template.replace("{text}", text), causal.REPLY) for text in EXAMPLES)
        for template in TEMPLATES
    )
    assert reply.texts == want
    assert len({text for row in want for text in row}) > 5  # the model does look at the text


def soft_prompts(box):
    length = Soft(box.vocabulary, TEMPLATES[0], ("a", "b"), "text", dim=4).length
    rng = np.random.default_rng(0)
    rows = [rng.normal(0, 0.5, (n, causal.ROW_WIDTH)).astype(np.float32) for n in (length, 3)]
    ids = tuple(int(i) for i in box.vocabulary.ordinary()[:2])
    return [
        asked(soft=(rows[0],), mode="add"),
        asked(soft=(rows[1],), mode="insert"),
        asked(tokens=(ids,)),
        asked(tokens=(ids,), place="after"),
    ]


def test_soft_prompts_and_tokens_go_in_as_embeddings(box, plain):
    prompts = soft_prompts(box)
    for prompt, row in zip(prompts, box(prompts, EXAMPLES).texts, strict=True):
        for text, said in zip(EXAMPLES, row, strict=True):
            inputs, _ = box._inputs(prompt, text)
            new = plain.tokens(
                box.network.batch([inputs])["inputs_embeds"][0].numpy(), causal.REPLY
            )
            # With the text's last token in front, for a tokenizer may keep the first space.
            front = [int(inputs[0][-1])]
            assert said == plain.decode([*front, *new]).removeprefix(plain.decode(front))
    plainly = box([asked()], EXAMPLES).texts[0]
    assert all(row != plainly for row in box(prompts[:2], EXAMPLES).texts)


def test_it_stops_where_a_text_ends(folder, box, tmp_path):
    """At any of the tokens that the model's generation config names, and without it."""
    full = box.network
    from fedbbpt.boxes._greedy import continued

    inputs = [box._inputs(asked(), text)[0] for text in EXAMPLES]
    whole = continued(full, inputs, causal.REPLY)
    end = whole[0][3]
    for file in Path(folder).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tmp_path / "generation_config.json"
    ends = [end, full.tokenizer.eos_token_id]
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": ends}))
    short, peer = causal.load(str(tmp_path)), Plain(str(tmp_path))
    found = continued(short.network, inputs, causal.REPLY)
    assert found == [one[: one.index(end)] if end in one else one for one in whole]
    assert len(found[0]) < len(whole[0])
    for one, given in zip(found, inputs, strict=True):
        embedded = short.network.batch([given])["inputs_embeds"][0].numpy()
        new = peer.tokens(embedded, causal.REPLY).tolist()
        assert new == [*one, *[end] * (len(one) < len(new))]


def test_labels_and_words_in_one_call_keep_their_batches(box):
    """As a gateway merges them."""
    labelled = RenderedPrompt(TEMPLATES[0], causal.LABELS, "text")
    named, wordy = (box.split([prompt], EXAMPLES).atoms for prompt in (labelled, asked()))
    mixed = [atom for pair in zip(named, wordy, strict=True) for atom in pair]
    rows = box.evaluate(mixed, range(len(mixed)))
    for atoms, own in ((named, rows[::2]), (wordy, rows[1::2])):
        alone = box.evaluate(atoms, range(len(atoms)))
        assert [row.tobytes() for row in own] == [row.tobytes() for row in alone]


def test_half_precision_and_windows(tmp_path):
    """A window that ends within a text leaves no cache; the words are the same."""
    made = causal.make_model("gemma3_text", tmp_path / "gemma", sliding_window=16)
    box, peer = causal.load(made), Plain(made)
    assert not box.network.window
    want = tuple(peer.words(TEMPLATES[0].replace("{text}", x), causal.REPLY) for x in EXAMPLES)
    assert box([asked()], EXAMPLES).texts == (want,)
    half = causal.load(made, dtype="bfloat16")
    assert all(isinstance(text, str) for text in half([asked()], EXAMPLES).texts[0])


def test_what_has_no_room_is_refused_and_another_length_is_another_box(folder, box, plain):
    long = causal.load(folder, reply_tokens=causal.REPLY + 1)
    message = f"max_tokens {causal.LONGEST} and box.reply_tokens 9 are 57; .* room for 56"
    with pytest.raises(ConfigError, match=message):
        long.prepare(asked())
    with pytest.raises(ConfigError, match=message):
        long([asked()], EXAMPLES)
    long.prepare(RenderedPrompt(TEMPLATES[0], causal.LABELS, "text"))
    box.prepare(asked())
    short = causal.load(folder, reply_tokens=2)
    check_names(box, short, Case((asked(),), EXAMPLES))
    want = [plain.words(TEMPLATES[0].replace("{text}", text), 2) for text in EXAMPLES]
    assert short([asked()], EXAMPLES).texts == (tuple(want),)


def test_a_masked_model_gives_no_words(tmp_path):
    path = Path(__file__).with_name("test_masked_lm.py")
    masked_spec = spec_from_file_location("masked_models", path)
    masked = module_from_spec(masked_spec)
    masked_spec.loader.exec_module(masked)
    box = masked.load(masked.make_model("bert", tmp_path))
    for ask in (lambda: box.prepare(asked("{text} {mask}")), lambda: box([asked()], EXAMPLES)):
        with pytest.raises(ConfigError, match="gives gradients, scores and no text"):
            ask()


def test_a_small_real_model_tells_a_story(data_folder, tmp_path):
    source = Path(data_folder) / "models" / "stories260K"
    if not source.is_dir():
        pytest.skip("the local test material has no models/stories260K")
    made = causal.convert(source, tmp_path / "stories260K")
    box = causal.load(made, max_tokens=64, reply_tokens=24)
    texts = ("Once upon a time, there was a little girl", "Lily and Tom went to the park. They")
    prompt = asked("{text}")
    (told,) = box([prompt], texts).texts
    assert told == tuple(Plain(made).words(text, 24) for text in texts)
    assert told[0].startswith(" named Lily.")
