"""OpenAI's completions by the gateway: the official client in front, transformers beside it."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from fedbbpt.boxes.function import Function

openai = pytest.importorskip("openai")
pytest.importorskip("torch")

BOXES = Path(__file__).parents[1] / "boxes"
PROMPTS = ["the film was", "a lovely story, and moving ."]


def small_models(kind):
    spec = spec_from_file_location(f"small_{kind}", BOXES / f"test_{kind}_lm.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(gateways):
    """``connect(box) -> client`` with a key."""
    opened = []

    def connect(box, **settings):
        url = gateways(box, keys="ash=sk-of-ash", **settings)
        opened.append(openai.OpenAI(base_url=f"{url}/v1", api_key="sk-of-ash", max_retries=0))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture(params=["gpt2", "llama"])
def causal(request, tmp_path):
    kit = small_models("causal")
    folder = kit.make_model(request.param, tmp_path)
    return kit.load(folder), kit.Plain(folder)


@pytest.fixture
def masked(tmp_path):
    kit = small_models("masked")
    folder = kit.make_model("roberta", tmp_path)
    return kit.load(folder), kit.Plain(folder)


@pytest.mark.parametrize("window", [True, False])
def test_a_causal_model_goes_on_as_transformers_has_it(client, causal, window):
    box, plain = causal
    if not window:
        box.network.window = 0
    assert bool(box.network.window) == window
    found = client(box).completions.create(
        model=box.name, prompt=PROMPTS, max_tokens=6, logprobs=3, temperature=0
    )
    made = 0
    for prompt, choice in zip(PROMPTS, found.choices, strict=True):
        ids = plain.ids(prompt)
        given = plain.torch.tensor([ids])
        whole = plain.model.generate(
            given, attention_mask=plain.torch.ones_like(given), do_sample=False, max_new_tokens=6
        )[0].tolist()
        new, ended = whole[len(ids) :], choice.finish_reason == "stop"
        new = new[:-1] if ended else new
        made += len(new)
        text = plain.tokenizer.decode(whole[: len(ids) + len(new)], skip_special_tokens=False)
        assert plain.tokenizer.decode(ids) + choice.text == text
        logits = plain.model(plain.torch.tensor([whole])).logits[0].detach().log_softmax(-1)
        expected = [float(logits[len(ids) + i - 1, one]) for i, one in enumerate(new)]
        assert choice.logprobs.token_logprobs == pytest.approx(expected, abs=1e-5)
        for token, value, tops in zip(
            choice.logprobs.tokens, expected, choice.logprobs.top_logprobs, strict=True
        ):
            assert len(tops) <= 3 and tops[token] == pytest.approx(value, abs=1e-5)
            assert max(tops.values()) == tops[token]
    assert found.usage.completion_tokens == made > 0
    assert found.usage.prompt_tokens == sum(len(plain.ids(prompt)) for prompt in PROMPTS)


def test_it_stops_where_it_is_told(client, causal):
    box, _ = causal
    ask = client(box).completions.create
    whole = ask(model=box.name, prompt=PROMPTS[0], max_tokens=8).choices[0].text
    stop = whole[len(whole) // 2 :][:2]
    cut = ask(model=box.name, prompt=PROMPTS[0], max_tokens=8, stop=["never", stop]).choices[0]
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop"


def test_a_masked_model_fills_its_mask(client, masked):
    box, plain = masked
    prompts = ["it was odd : {mask} films", "<mask> was great"]
    found = client(box).completions.create(model=box.name, prompt=prompts, logprobs=4)
    for prompt, choice in zip(prompts, found.choices, strict=True):
        ids = plain.ids(prompt)
        logits = plain.model(plain.torch.tensor([ids])).logits[0].detach().log_softmax(-1)
        row = logits[ids.index(plain.tokenizer.mask_token_id)]
        best = int(row.argmax())
        assert choice.text == plain.tokenizer.decode([best])
        assert choice.logprobs.token_logprobs == pytest.approx([float(row[best])], abs=1e-5)
        tops = choice.logprobs.top_logprobs[0]
        assert tops[choice.text] == max(tops.values())
        # Tokens of broken characters have the same text.
        expected = {}
        for one, value in zip(*(t.tolist() for t in reversed(row.topk(4))), strict=True):
            expected.setdefault(plain.tokenizer.decode([one]), value)
        assert tops == pytest.approx(expected, abs=1e-5)


def test_models_are_listed_and_queries_counted(client, masked):
    box, _ = masked
    ask = client(box, quota=2)
    assert [model.id for model in ask.models.list()] == [box.name]
    ask.completions.create(model=box.name, prompt=["a {mask}", "b {mask}"])
    with pytest.raises(openai.APIStatusError, match="the quota of 'ash' is 2 queries") as error:
        ask.completions.create(model=box.name, prompt="c {mask}")
    assert error.value.status_code == 402


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"temperature": 0.7}, "temperature is 0.7; this gateway gives the one likeliest answer"),
        ({"n": 2}, "n is 2"),
        ({"stream": True}, "stream is True"),
        ({"echo": True}, "echo is True"),
        ({"prompt": [1, 2]}, "not token ids"),
        ({"prompt": "no mask"}, "prompt holds 0 masks; put {mask} in it once"),
        ({"prompt": "{mask} and {mask}"}, "prompt holds 2 masks"),
        ({"prompt": "odd " * 60 + "{mask}"}, "the model has room for 48"),
    ],
)
def test_what_it_cannot_do_is_a_400_with_a_sentence(client, masked, request_, said):
    box, _ = masked
    with pytest.raises(openai.BadRequestError) as error:
        client(box).completions.create(**{"model": box.name, "prompt": "a {mask}", **request_})
    assert said in error.value.body["message"]


def test_boxes_without_text_and_models_that_are_not_there(client, masked):
    box, _ = masked
    with pytest.raises(openai.NotFoundError, match=f"there is '{box.name}'"):
        client(box).completions.create(model="gpt-4", prompt="a {mask}")
    toy = Function(lambda prompts, examples: None)
    with pytest.raises(openai.BadRequestError, match="is no language model"):
        client(toy).completions.create(model=toy.name, prompt="a")
