"""Certificates: what is made is what Flower and TLS want, and no key is ever written twice."""

import ssl
import stat
import sys
import tomllib
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedbbpt.config import Config, read
from fedbbpt.errors import ConfigError, MissingExtra
from fedbbpt.sites.agreed import agreed, apart, federated
from fedbbpt.sites.certs import ensure
from fedbbpt.sites.invitation import invitation
from fedbbpt.sites.signing import cert_at, hosts_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PRIVATE = ("ca.key", "server/server.key", "ash/node.key", "ash/node.tls.key")


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_everything_is_there_and_keys_are_for_their_owner_alone(tmp_path):
    made = ensure(tmp_path, ["ash"], ["10.0.0.7"])
    public = ("ca.crt", "server/ca.crt", "server/server.crt", "server/nodes/ash.pub")
    public += ("ash/ca.crt", "ash/node.crt", "ash/node.pub")
    files = contents(tmp_path)
    assert set(files) == {*PRIVATE, *public}
    assert {str(file.relative_to(tmp_path)) for file in made} == set(files)
    for name in files:
        mode = stat.S_IMODE((tmp_path / name).stat().st_mode)
        assert mode & 0o077 == (0 if name in PRIVATE else mode & 0o044), name
        assert (b"PRIVATE KEY" in files[name]) == (name in PRIVATE)
    assert files["ca.crt"] == files["ash/ca.crt"] == files["server/ca.crt"]


def test_a_nodes_key_is_what_flower_reads(tmp_path):
    ensure(tmp_path, ["ash", "birch"])
    files = contents(tmp_path)
    private = load_ssh_private_key(files["ash/node.key"], None)
    assert isinstance(private.curve, ec.SECP384R1)
    public = load_ssh_public_key(files["server/nodes/ash.pub"])
    assert private.public_key() == public
    assert files["ash/node.pub"] == files["server/nodes/ash.pub"] != files["birch/node.pub"]


@pytest.mark.parametrize("leaf", ["server/server", "ash/node"])
def test_leaves_are_signed_by_the_authority_for_their_hosts(tmp_path, leaf):
    ensure(tmp_path, ["ash"], ["Fed.Example.ORG", "[2001:db8::1]", "10.0.0.7"], days=30, now=NOW)
    authority, cert = cert_at(tmp_path / "ca.crt"), cert_at(tmp_path / f"{leaf}.crt")
    cert.verify_directly_issued_by(authority)
    here = ["localhost", "127.0.0.1"]
    every = [*here, "::1", "fed.example.org", "2001:db8::1", "10.0.0.7"]
    assert hosts_of(cert) == (every if leaf == "server/server" else here)
    for one in (authority, cert):
        assert one.not_valid_before_utc == NOW - timedelta(days=1)
        assert one.not_valid_after_utc == NOW + timedelta(days=30)
    for one, is_authority in ((authority, True), (cert, False)):
        basic = one.extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical and basic.value.ca is is_authority
    # What a program other than ours makes of the files.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = "server.key" if leaf == "server/server" else "node.tls.key"
    context.load_cert_chain(tmp_path / f"{leaf}.crt", (tmp_path / leaf).with_name(key))


def test_the_same_call_again_writes_nothing(tmp_path):
    ensure(tmp_path, ["ash", "birch"], ["10.0.0.7"])
    before = contents(tmp_path)
    assert ensure(tmp_path, ["ash", "birch"], ["10.0.0.7"]) == []
    assert ensure(tmp_path, ["birch"]) == []
    assert contents(tmp_path) == before


def test_a_node_that_comes_later_gets_the_same_authority(tmp_path):
    ensure(tmp_path, ["ash"])
    before = contents(tmp_path)
    made = ensure(tmp_path, ["birch"])
    after = contents(tmp_path)
    assert before == {name: after[name] for name in before}
    assert {f.parent.name for f in made} == {"birch", "nodes"}
    cert_at(tmp_path / "birch/node.crt").verify_directly_issued_by(cert_at(tmp_path / "ca.crt"))


def test_what_a_kill_left_out_is_made_and_no_key_changes(tmp_path):
    ensure(tmp_path, ["ash"])
    whole = contents(tmp_path)
    for lost in sorted(set(whole) - {"ca.key", "ash/node.key"}):
        (tmp_path / lost).unlink()
        ensure(tmp_path, ["ash"])
        again = contents(tmp_path)
        for leaf in ("server/server.crt", "ash/node.crt"):
            cert_at(tmp_path / leaf).verify_directly_issued_by(cert_at(tmp_path / "ca.crt"))
        assert set(again) == set(whole)
        kept = [name for name in PRIVATE if name != lost]
        assert {n: again[n] for n in kept} == {n: whole[n] for n in kept}
        whole = again


def test_a_new_host_and_old_age_renew_a_certificate_but_no_key(tmp_path):
    ensure(tmp_path, ["ash"], ["10.0.0.7"], days=400, now=NOW)
    keys = {name: (tmp_path / name).read_bytes() for name in PRIVATE}
    made = ensure(tmp_path, ["ash"], ["10.0.0.8"], days=100, now=NOW)
    assert made == [tmp_path / "server/server.crt"]
    first = cert_at(made[0])
    assert hosts_of(first)[-2:] == ["10.0.0.8", "10.0.0.7"]
    assert ensure(tmp_path, ["ash"], days=100, now=NOW + timedelta(days=40)) == []
    late = NOW + timedelta(days=350)
    made = ensure(tmp_path, ["ash"], days=100, now=late)
    assert made == [tmp_path / "server/server.crt"]
    second = cert_at(made[0])
    # It cannot outlive the authority.
    assert second.not_valid_after_utc == NOW + timedelta(days=400)
    assert second.public_key() == first.public_key() and set(hosts_of(second)) == set(
        hosts_of(first)
    )
    assert keys == {name: (tmp_path / name).read_bytes() for name in PRIVATE}


def refused(folder, *names, nodes=(), **options):
    before = contents(folder)
    with pytest.raises(ConfigError) as error:
        ensure(folder, nodes, **options)
    assert contents(folder) == before
    sentence = str(error.value)
    assert sentence.count("\n") == 0 and all(name in sentence for name in names), sentence


@pytest.mark.parametrize("name", ["", "a b", "../ash", "a/b", ".ash", "-ash", "é", "a" * 65, "a."])
def test_a_name_that_is_none(tmp_path, name):
    refused(tmp_path, f"'{name}'", "letters, digits", nodes=["ash", name])


@pytest.mark.parametrize("pair", [("ash", "ash"), ("ash", "Ash")])
def test_two_nodes_with_one_name(tmp_path, pair):
    refused(tmp_path, "'ash'", f"'{pair[1]}'", "name of its own", nodes=pair)
    ensure(tmp_path, ["ash"])
    if pair[1] != "ash":
        refused(tmp_path, "'Ash'", nodes=[pair[1]])


def test_a_name_of_what_the_server_has(tmp_path):
    refused(tmp_path, "'Server'", nodes=["Server"])


def test_a_node_whose_invitation_has_gone_is_not_replaced_in_silence(tmp_path):
    ensure(tmp_path, ["ash"])
    for file in (tmp_path / "ash").iterdir():
        file.unlink()
    refused(tmp_path, "'ash'", "node.key", "ash.pub", nodes=["ash"])


@pytest.mark.parametrize(
    "host",
    ["", "fed.example.org:8000", "0.0.0.0", "::", "a b", "10.0.0", "-x.org", "https://x.org"],
)
def test_a_host_that_nobody_can_reach(tmp_path, host):
    refused(tmp_path, "--host", host, nodes=["ash"], hosts=["10.0.0.7", host])


@pytest.mark.parametrize("days", [0, -3, 10**9])
def test_days_that_make_no_sense(tmp_path, days):
    refused(tmp_path, str(days), "from 1 to", nodes=["ash"], days=days)


def test_an_authority_whose_time_is_over_or_not_come(tmp_path):
    ensure(tmp_path, ["ash"], days=30, now=NOW)
    late, early = NOW + timedelta(days=30), NOW - timedelta(days=2)
    refused(tmp_path, "ended on 2026-12-21", "2026-12-21", nodes=["birch"], now=late)
    refused(tmp_path, "begins on 2026-11-20", "2026-11-19", nodes=["birch"], now=early)


def test_an_authority_without_its_key_or_with_another(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    ensure(one, ["ash"])
    ensure(other, ["ash"])
    (one / "ca.key").unlink()
    refused(one, "ca.key is missing", nodes=["ash"])
    (one / "ca.key").write_bytes((other / "ca.key").read_bytes())
    refused(one, "not the key of", nodes=["ash"])
    (one / "ca.key").write_bytes(b"nothing")
    refused(one, "ca.key", "holds no private key", nodes=["ash"])
    (other / "ca.crt").write_bytes(b"nothing")
    refused(other, "ca.crt", "holds no certificate", nodes=["ash"])


def test_a_library_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedbbpt\[flower\]'"):
        ensure(tmp_path, ["ash"])
    assert contents(tmp_path) == {}


# --- the invitation ------------------------------------------------------------------------------

CONFIG = """
[data]
train = "private/train.csv"
test = "private/test.csv"
text = "sentence"
[box]
kind = "openai_http"
url = "http://localhost:8000/v1"
model = "/srv/models/small"
prices = { input = 1.0, output = 2.0 }
[prompt]
side = "text"
kind = "tokens"
template = "{text} It was"
labels = { bad = "awful", good = "great" }
[method]
name = "fedwords"
[budget]
queries = 500
usd = 9.0
client_usd = 3.0
[run]
seed = 7
ledger = "paid.sqlite"
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "fed.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_an_invitation_holds_what_is_agreed_and_nothing_of_the_servers(tmp_path, config):
    mine = read(config)
    made = invitation(mine)
    private = {"data.train", "data.test", "run.ledger", "box.url", "box.model"}
    assert set(made.apart) - {"data.train"} == private - {"data.train"}
    tree = tomllib.loads(made.toml)
    assert str(tmp_path) not in made.toml and "localhost" not in made.toml
    assert tree["data"]["text"] == "sentence" and tree["data"]["classes"] == ["bad", "good"]
    assert tree["box"]["prices"] == {"input": 1.0, "output": 2.0}
    assert {k: tree["budget"][k] for k in tree["budget"]} == {"queries": 500, "client_usd": 3.0}
    # A node that reads it has agreed to what the server has.
    theirs = Config.model_validate(tree)
    assert not apart(agreed(theirs), agreed(federated(mine)))


def test_an_address_and_a_model_that_all_can_use_stay(config):
    text = CONFIG.replace("localhost", "model.example.org").replace("/srv/models/small", "gpt")
    config.write_text(text, encoding="utf-8")
    box = invitation(read(config)).tree["box"]
    assert box["url"] == "http://model.example.org:8000/v1" and box["model"] == "gpt"


@pytest.mark.parametrize("key", ["words = 'words.txt'", "vocabulary = 'public'\npublic = 'c.txt'"])
def test_a_file_that_nodes_do_not_have_is_refused(config, key):
    config.write_text(CONFIG.replace('side = "text"', f'side = "text"\n{key}'), encoding="utf-8")
    with pytest.raises(ConfigError, match="file, which nodes do not have"):
        invitation(read(config))


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, config):
    from fedbbpt.cli.main import main

    def certs(*more):
        command = ["fedbbpt", "certs", str(config), "--out", str(tmp_path / "certs"), *more]
        monkeypatch.setattr(sys, "argv", command)
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                return ended.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    return certs


def test_the_command_says_what_it_made_and_what_comes_next(tmp_path, config, call):
    code, said = call("--nodes", "ash", "--nodes", "birch", "--host", "fed.example.org")
    out = tmp_path / "certs"
    assert code == 0
    assert f"fedbbpt server {config} --certs {out} --address 0.0.0.0:8000\n" in said
    for name in ("ash", "birch"):
        assert f"fedbbpt node {out / name} --data FILE --server fed.example.org:8000" in said
        assert Config.model_validate(tomllib.loads((out / name / "federation.toml").read_text()))
    assert "box.url" in said and "keep it apart" in said
    before = contents(out)
    code, said = call("--nodes", "ash")
    assert code == 0 and f"kept      {out / 'ash'}" in said and contents(out) == before
    # Without another host it is for this machine.
    assert f"fedbbpt server {config} --certs {out}\n" in said and "--server 127.0.0.1:8000" in said


def test_a_config_that_has_changed_is_told_of(tmp_path, config, call):
    call("--nodes", "ash", "--nodes", "birch")
    config.write_text(CONFIG.replace("seed = 7", "seed = 8"), encoding="utf-8")
    code, said = call("--nodes", "ash")
    assert code == 0 and "birch was invited with another config" in said
    seeds = {
        name: tomllib.loads((tmp_path / "certs" / name / "federation.toml").read_text())["run"]
        for name in ("ash", "birch")
    }
    assert seeds == {"ash": {"seed": 8}, "birch": {"seed": 7}}


def test_a_refused_command_makes_nothing(tmp_path, call):
    code, said = call("--nodes", "a/b")
    assert code == 2 and said.startswith("fedbbpt: ") and said.count("\n") == 1
    assert not (tmp_path / "certs").exists()
