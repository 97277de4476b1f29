"""The gateway as its callers see it: keys, quotas, one query for all, merging, bad requests."""

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedbbpt.arrays import encode
from fedbbpt.boxes import _packed
from fedbbpt.boxes.function import Function
from fedbbpt.errors import BoxError, TransientError
from fedbbpt.service.cache import Memory
from fedbbpt.service.worker import Call, Worker
from fedbbpt.types import RenderedPrompt

pytest.importorskip("httpx2")
pytest.importorskip("stamina")
from fedbbpt.boxes.gateway_http import GatewayHttp

PROMPT = RenderedPrompt("So {text} .", ("bad", "good"), "text")
KEYS = "ash=sk-of-ash birch=sk-of-birch=="
ANYONE = 'fedbbpt_queries_total{key="anyone"}'


class Slow(Function):
    """Scores a text by its length, all that is wanted in one go; can be held up."""

    def __init__(self):
        super().__init__(lambda prompts, examples: None, "slow")
        self.asked, self.inside, self.free = [], threading.Event(), threading.Event()
        self.free.set()

    def evaluate(self, atoms, wanted):
        texts = [atoms[i].data[1] for i in wanted]
        self.inside.set()
        assert self.free.wait(20)
        self.asked.append(texts)
        if "poison" in texts:
            raise ValueError("cannot read that")
        return [np.array([-1.0, -float(len(text))]) for text in texts]


@pytest.fixture
def slow():
    box = Slow()
    yield box
    box.free.set()


def ask(url, path, body=None, key=""):
    """(status, reply) of one plain request."""
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, data, headers), timeout=20
        ) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metric(url, name):
    """Value of one metric; 0 before it is first counted."""
    lines = ask(url, "/metrics")[1].splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)


def wait_until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def together(slow, url, texts, far=None):
    """Ask for each text in a thread of its own, all queued while the box is busy with another."""
    far = far or GatewayHttp(url)
    slow.free.clear()
    with ThreadPoolExecutor(len(texts) + 1) as pool:
        first = pool.submit(far, [PROMPT], ["first"])
        assert slow.inside.wait(10)
        rest = []
        for count, text in enumerate(texts, 1):
            rest.append(pool.submit(far, [PROMPT], [text]))
            wait_until(lambda n=count: json.loads(ask(url, "/healthz")[1])["waiting"] == n)
        slow.free.set()
        first.result()
    return rest


# --- who may ask, and how much -------------------------------------------------------------------


def test_keys_open_the_door_and_show_in_no_metric(gateways, monkeypatch):
    url = gateways(Function(lambda p, x: np.zeros((1, len(x), 2))), keys=KEYS)
    for key in ("", "sk-of-nobody", "ash", "ash=sk-of-ash"):
        status, said = ask(url, "/v1/info", key=key)
        assert status == 401 and "Authorization: Bearer KEY" in said
    assert ask(url, "/v1/info", key="sk-of-ash")[0] == 200
    assert ask(url, "/healthz")[0] == 200
    for name, key in (("ash", "sk-of-ash"), ("birch", "sk-of-birch==")):
        monkeypatch.setenv("MY_KEY", key)
        GatewayHttp(url, key_env="MY_KEY")([PROMPT], [name, f"{name} again"])
        assert metric(url, f'fedbbpt_queries_total{{key="{name}"}}') == 2
    assert "sk-of" not in ask(url, "/metrics")[1]


def test_a_quota_holds_exactly_under_concurrency(gateways, monkeypatch, slow):
    url = gateways(slow, keys=KEYS, quota=10, max_batch=3)
    monkeypatch.setenv("MY_KEY", "sk-of-ash")
    far = GatewayHttp(url, key_env="MY_KEY")

    def one(text):
        try:
            return np.isfinite(far([PROMPT], [text]).scores).all()
        except BoxError as error:
            assert "402: the quota of 'ash' is 10 queries; 10 are spent" in str(error)
            return False

    with ThreadPoolExecutor(8) as pool:
        served = sum(pool.map(one, [f"text {i}" for i in range(25)]))
    assert served == 10 == sum(map(len, slow.asked))
    assert one(slow.asked[0][0])  # what is known stays free
    monkeypatch.setenv("MY_KEY", "sk-of-birch==")
    assert GatewayHttp(url, key_env="MY_KEY")([PROMPT], ["a"]).scores.shape == (1, 1, 2)


def test_a_ledger_keeps_rows_and_quotas_over_a_restart(gateways, monkeypatch, slow, tmp_path):
    settings = {"keys": KEYS, "quota": 3, "ledger": str(tmp_path / "new" / "gateway.sqlite")}
    monkeypatch.setenv("MY_KEY", "sk-of-ash")
    url = gateways(slow, **settings)
    before = GatewayHttp(url, key_env="MY_KEY")([PROMPT], ["a", "bb"]).scores
    gateways.stop()
    far = GatewayHttp(gateways(slow, **settings), key_env="MY_KEY")
    np.testing.assert_array_equal(far([PROMPT], ["a", "bb"]).scores, before)
    assert slow.asked == [["a", "bb"]]
    with pytest.raises(BoxError, match="2 are spent, and this takes 2 more"):
        far([PROMPT], ["ccc", "dddd"])
    assert far([PROMPT], ["ccc"]).scores.shape == (1, 1, 2)


# --- one query for all ---------------------------------------------------------------------------


def test_a_shared_candidate_is_one_query_for_all_clients(gateways, minilm):
    url = gateways(minilm)
    prompts = [RenderedPrompt(f"It {verb} {{label}}.", ("bad", "good")) for verb in ("was", "is")]
    sites = {site: tuple(f"{site} {i}" for i in range(3)) for site in ("ash", "birch", "cedar")}
    for texts in sites.values():
        far = GatewayHttp(url)
        gap = far(prompts, texts).scores - minilm(prompts, texts).scores
        assert np.abs(gap).max() < 1e-5
    assert metric(url, ANYONE) == 4 + 3 * 3  # the prompted labels once, every text once
    assert metric(url, 'fedbbpt_cached_total{key="anyone"}') == 2 * 4


def test_the_same_query_at_the_same_time_is_asked_once(gateways, slow):
    url = gateways(slow, max_batch=0)
    answers = together(slow, url, ["same"] * 5)
    assert {tuple(a.result().scores.ravel()) for a in answers} == {(-1.0, -4.0)}
    assert slow.asked == [["first"], ["same"]]
    assert metric(url, ANYONE) == 2


@pytest.mark.parametrize(
    ("most", "calls"),
    [(0, [1, 1, 1, 1, 1]), (3, [3, 2]), (64, [5])],
)
def test_callers_who_wait_are_merged(gateways, slow, most, calls):
    url = gateways(slow, max_batch=most)
    texts = [f"text {i}" + "!" * i for i in range(5)]
    for text, answer in zip(texts, together(slow, url, texts), strict=True):
        assert answer.result().scores.ravel().tolist() == [-1.0, -len(text)]
    assert list(map(len, slow.asked)) == [1, *calls]


def test_callers_are_waited_for(gateways, slow):
    far = GatewayHttp(gateways(slow, wait_ms=1000, max_batch=4))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: far([PROMPT], [text]), "abcd"))
    assert sorted(map(sorted, slow.asked)) == [["a", "b", "c", "d"]]


def test_a_bad_call_does_not_spoil_those_it_is_merged_with(gateways, slow):
    url = gateways(slow, max_batch=64)
    good, bad, last = together(slow, url, ["good", "poison", "last"])
    with pytest.raises(BoxError, match="raised ValueError: cannot read that"):
        bad.result()
    assert good.result().scores.ravel().tolist() == [-1.0, -4.0]
    assert last.result().scores.ravel().tolist() == [-1.0, -4.0]
    assert metric(url, ANYONE) == 3


# --- what is sent --------------------------------------------------------------------------------

SENT = {
    "box": "function:slow",
    "prompts": [{"template": "{text}", "labels": ["a", "b"], "side": "text"}],
    "examples": ["x"],
    "atoms": [[0, -1, 0]],
    "wanted": [0],
}
SOFT = _packed.pack_arrays({"m": np.zeros((2, 3), np.float32), "d": np.zeros((2, 3))})


def prompted(**changes):
    return {"prompts": [{**SENT["prompts"][0], **changes}], "arrays": SOFT}


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"box": "other"}, 400, "serves function:slow, not other"),
        ({"atoms": None}, 422, "atoms"),
        ({"atoms": [[1, -1, 0]]}, 422, "not sent"),
        ({"atoms": [[0, -1, 7]]}, 422, "not sent"),
        ({"atoms": [[-2, -1, 0]]}, 422, "not sent"),
        ({"atoms": [[-1, -1, 0]]}, 422, "none that this box can answer"),
        ({"atoms": [[0, 1, -1]]}, 422, "none that this box can answer"),
        ({"wanted": [1]}, 422, "wanted names an atom that was not sent"),
        ({"wanted": [-1]}, 422, "wanted"),
        ({"examples": [3]}, 422, "examples"),
        ({"examples": [{"array": "x"}]}, 422, "'x', which was not sent"),
        ({"arrays": "no base64!"}, 422, "safetensors file in base64"),
        ({"arrays": "bm9uZQ=="}, 422, "safetensors file in base64"),
        (prompted(soft=["m", "m", "m"]), 422, "it must have none, 1 or 2"),
        (prompted(soft=["gone"]), 422, "no float32 matrix"),
        (prompted(soft=["d"]), 422, "no float32 matrix"),
        (prompted(tokens=[[-1]]), 422, "tokens"),
        (prompted(side="visual"), 422, "side"),
        (prompted(labels=[]), 422, "labels"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(gateways, slow, changes, status, said):
    url = gateways(slow)
    found, reply = ask(url, "/v1/evaluate", {**SENT, **changes})
    message = json.loads(reply)["error"]["message"]
    assert (found, slow.asked) == (status, []) and said in message and "\n" not in message
    found, reply = ask(url, "/v1/evaluate", SENT)
    assert found == 200 and json.loads(reply)["queries"] == 1
    rows = _packed.unpack_rows(json.loads(reply)["rows"])
    assert [row.tolist() for row in rows] == [[-1.0, -1.0]]


def test_a_pickle_is_only_bytes(gateways, slow):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was run",))

    sent = _packed.base64.b64encode(pickle.dumps(Bomb())).decode()
    assert ask(gateways(slow), "/v1/evaluate", {**SENT, "arrays": sent})[0] == 422


def test_too_much_is_refused_before_it_is_read(gateways, slow, monkeypatch):
    monkeypatch.setattr("fedbbpt.service.door.LARGEST", 1000)
    url = gateways(slow)
    status, said = ask(url, "/v1/evaluate", {**SENT, "examples": ["x" * 2000]})
    assert status == 413 and "at most 1000" in said
    assert ask(url, "/v1/evaluate", SENT)[0] == 200


def test_a_soft_prompt_of_another_width(gateways, minilm):
    url = gateways(minilm)
    arrays = _packed.base64.b64encode(encode({"m": np.zeros((2, 7), np.float32)})).decode()
    status, said = ask(
        url, "/v1/evaluate", {**SENT, **prompted(soft=["m"]), "arrays": arrays, "box": minilm.name}
    )
    assert status == 422 and "384 columns" in said


def test_pages_for_people_and_machines(gateways, slow):
    url = gateways(slow)
    GatewayHttp(url)([PROMPT], ["a", "b"])
    assert json.loads(ask(url, "/healthz")[1]) == {
        "status": "ok",
        "box": "function:slow",
        "waiting": 0,
    }
    page = json.loads(ask(url, "/openapi.json")[1])
    for path in ("/v1/evaluate", "/v1/info", "/v1/completions", "/healthz", "/metrics"):
        assert path in page["paths"]
    assert "swagger" in ask(url, "/docs")[1].lower()
    assert ask(url, "/v1/nothing")[0] == 404
    assert metric(url, 'fedbbpt_requests_total{path="/v1/evaluate",status="200"}') == 1
    assert metric(url, 'fedbbpt_requests_total{path="other",status="404"}') == 1
    assert metric(url, "fedbbpt_batch_queries_sum") == 2
    assert metric(url, 'fedbbpt_request_seconds_count{path="/v1/evaluate"}') == 1


def test_a_caller_who_is_gone_costs_nothing_and_stops_nobody(slow):
    worker = Worker(Memory(1 << 20))
    worker.evaluate = slow.evaluate
    slow.free.clear()
    calls = [Call(slow.split([PROMPT], [text]).atoms, [0], "ash") for text in ("a", "b", "c")]
    for call in calls:
        worker.submit(call)
    assert slow.inside.wait(10) and calls[1].answer.cancel() and not calls[0].answer.cancel()
    slow.free.set()
    worker.close()
    assert [len(call.answer.result().rows) for call in (calls[0], calls[2])] == [1, 1]
    assert slow.asked == [["a"], ["c"]]
    with pytest.raises(TransientError, match="shutting down"):
        worker.submit(calls[0])
