"""Every way in which a server is not there, not the right one, or of another time, in a sentence.

The servers are real: threads on 127.0.0.1 behind certificates of :mod:`fedbbpt.sites.certs`.
"""

import email.utils
import errno
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("cryptography")

from fedbbpt.errors import ConfigError, Unreachable, UsageError
from fedbbpt.sites import preflight, trust
from fedbbpt.sites.certs import ensure
from fedbbpt.sites.preflight import free, loopback, reach, split
from fedbbpt.sites.signing import cert_at, pem

WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """Folders of three federations by name: of today, one whose time is over, one to come."""
    made = {}
    now = datetime.now(UTC)
    for name, when in (("today", now), ("other", now), ("old", now - WEEK), ("young", now + WEEK)):
        made[name] = tmp_path_factory.mktemp(name)
        ensure(made[name], ["ash"], days=3, now=when)
    return made


def http(ahead=0.0, date=True):
    """An answer whose date says that the client's clock is so far ahead."""

    def answer(connection):
        connection.recv(4096)
        stamp = email.utils.formatdate(time.time() - ahead, usegmt=True)
        head = f"Date: {stamp}\r\n" if date else ""
        connection.sendall(f"HTTP/1.1 404 Not Found\r\n{head}Content-Length: 0\r\n\r\n".encode())

    return answer


@contextmanager
def serving(answer, folder=None, host="127.0.0.1", port=0):
    """The port of a server in a thread; behind TLS where it has a folder of certificates."""
    door = socket.create_server((host, port))
    door.settimeout(0.05)
    ended = threading.Event()
    context = None
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")

    def one(connection):
        connection.settimeout(5)
        try:
            with context.wrap_socket(connection, server_side=True) if context else connection as c:
                answer(c)
        except OSError:
            connection.close()

    def serve():
        while not ended.is_set():
            try:
                connection, _ = door.accept()
            except TimeoutError:
                continue
            one(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield door.getsockname()[1]
    finally:
        ended.set()
        thread.join(10)
        door.close()


def unreachable(address, ca, *names, wait=0.3):
    with pytest.raises(Unreachable) as error:
        reach(address, ca, wait)
    sentence = str(error.value)
    assert "\n" not in sentence and all(name in sentence for name in names), sentence
    assert isinstance(error.value, UsageError)
    return sentence


# --- all is well ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_right_server_says_hello(certs, host):
    with serving(http(), certs["today"] / "server") as port:
        hello = reach(f"{host}:{port}", certs["today"] / "ash" / "ca.crt", 5)
    assert hello[:3] == (host, port, True)
    assert abs(hello.ahead) < 2 and hello.warning == ""


def test_a_server_in_plain_text_where_that_is_wanted():
    with serving(http()) as port:
        assert reach(f"127.0.0.1:{port}", None, 5)[:3] == ("127.0.0.1", port, False)


def test_a_server_that_comes_up_late_is_waited_for(certs):
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    found = []
    ca = certs["today"] / "ca.crt"
    waiting = threading.Thread(target=lambda: found.append(reach(f"127.0.0.1:{port}", ca, 20)))
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    with serving(http(), certs["today"] / "server", port=port):
        waiting.join(10)
    assert found and found[0].tls


# --- the address ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "host:",
        ":8000",
        "host:eight",
        "host:0",
        "host:65536",
        "::1:8000",
        "[::1]",
        "https://host:8000",
        "host:8000/x",
        "[host:8000",
        "a:-1",
        "a..b:80",
        "u@h:80",
        "a b:80",
    ],
)
def test_an_address_that_is_none(address):
    with pytest.raises(ConfigError, match=r"must be HOST:PORT") as error:
        reach(address, None, 0)
    assert f"'{address}'" in str(error.value)


def test_addresses_in_parts():
    assert split("fed.example.org:8000") == ("fed.example.org", 8000)
    assert split(" [2001:db8::1]:80 ") == ("2001:db8::1", 80)


def test_a_port_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    began = time.monotonic()
    unreachable(f"127.0.0.1:{port}", None, f"nothing listens at 127.0.0.1:{port}", wait=1)
    assert 0.7 < time.monotonic() - began < 3


def test_a_name_that_nobody_knows(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    began = time.monotonic()
    unreachable("fed.example.org:8000", None, "fed.example.org", "not known", wait=30)
    assert time.monotonic() - began < 5  # it will not be known later either


def test_an_address_that_swallows_everything(monkeypatch):
    def silent(_, timeout):
        time.sleep(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    unreachable("10.9.8.7:8000", None, "10.9.8.7:8000", "within 0.3 s", "firewall")


def test_a_network_that_is_down(monkeypatch):
    def down(*_, **__):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", down)
    unreachable("10.9.8.7:8000", None, "cannot be reached", "Network is unreachable")


# --- whom to trust -------------------------------------------------------------------------------


def test_a_server_of_another_authority(certs):
    ca = certs["other"] / "ca.crt"
    with serving(http(), certs["today"] / "server") as port:
        address = f"127.0.0.1:{port}"
        unreachable(address, ca, address, f"not signed by {ca}", "another federation")


@pytest.mark.parametrize(("which", "word"), [("old", "ended on"), ("young", "is valid from")])
def test_a_certificate_whose_time_is_not_now(certs, tmp_path, which, word):
    """Signed by an authority whose time it is, as a renewal that was forgotten is."""
    now, days = datetime.now(UTC), 60
    begun = now - 2 * WEEK if which == "old" else now
    ensure(tmp_path, [], days=days, now=begun)
    server = tmp_path / "server"
    (server / "server.crt").unlink()
    then = now - WEEK if which == "old" else now + WEEK
    ensure(tmp_path, [], days=3, now=then)
    cert = cert_at(server / "server.crt")
    date = cert.not_valid_after_utc if which == "old" else cert.not_valid_before_utc
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    with serving(http(), server) as port:
        told = (f"127.0.0.1:{port}", f"{word} {date:%Y-%m-%d %H:%M}", f"here says {today}")
        unreachable(f"127.0.0.1:{port}", tmp_path / "ca.crt", *told)


@pytest.mark.parametrize(("which", "word"), [("old", "ended on"), ("young", "is valid from")])
def test_an_authority_whose_time_is_not_now(certs, which, word):
    ca = certs[which] / "ca.crt"
    with pytest.raises(ConfigError, match=f"authority {ca} {word} .* here says"):
        reach("127.0.0.1:1", ca, 0)


def test_a_certificate_for_other_hosts(certs, tmp_path):
    signer = tmp_path / "fed"
    ensure(signer, ["ash"])
    # The node's own certificate is not for ::1.
    (signer / "server" / "server.crt").write_bytes((signer / "ash/node.crt").read_bytes())
    (signer / "server" / "server.key").write_bytes((signer / "ash/node.tls.key").read_bytes())
    with serving(http(), signer / "server", host="127.0.0.2") as port:
        told = ("not for 127.0.0.2 but for localhost, 127.0.0.1", "--host 127.0.0.2")
        unreachable(f"127.0.0.2:{port}", signer / "ca.crt", *told)


@pytest.mark.parametrize("content", [None, b"", b"nothing", "leaf"])
def test_an_authority_that_is_none(certs, tmp_path, content):
    ca = tmp_path / "ca.crt"
    if content is not None:
        leaf = (certs["today"] / "server" / "server.crt").read_bytes()
        ca.write_bytes(leaf if content == "leaf" else content)
    with pytest.raises(ConfigError, match=str(ca)):
        reach("127.0.0.1:1", ca, 0)


def test_plain_text_where_tls_is_expected(certs):
    with serving(http()) as port:
        address = f"127.0.0.1:{port}"
        told = (address, "speaks plain text where TLS is expected", "--insecure")
        unreachable(address, certs["today"] / "ca.crt", *told)


def test_tls_where_plain_text_is_expected(certs):
    with serving(http(), certs["today"] / "server") as port:
        address = f"127.0.0.1:{port}"
        unreachable(address, None, address, "speaks TLS", "ca.crt")


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_is_none_of_ours(certs, secure):
    def ssh(connection):
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        connection.recv(4096)

    ca = certs["today"] / "ca.crt" if secure else None
    with serving(ssh) as port:
        unreachable(f"127.0.0.1:{port}", ca, f"127.0.0.1:{port}", "but not in")


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_says_nothing(certs, secure, monkeypatch):
    monkeypatch.setattr(preflight, "ANSWER", 0.3)
    hold = threading.Event()
    folder = certs["today"] / "server" if secure else None
    with serving(lambda _: hold.wait(5), folder) as port:
        address, ca = f"127.0.0.1:{port}", certs["today"] / "ca.crt" if secure else None
        try:
            unreachable(address, ca, address, "did not answer")
        finally:
            hold.set()


# --- the time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, -30, -250])
def test_clocks_that_agree_well_enough(ahead):
    with serving(http(ahead)) as port:
        hello = reach(f"127.0.0.1:{port}", None, 5)
    assert hello.warning == "" and abs(hello.ahead - ahead) < 2


def test_a_clock_that_is_almost_too_far_ahead():
    with serving(http(5.0)) as port:  # half a second less after the mean age of a date
        hello = reach(f"127.0.0.1:{port}", None, 5)
    assert 3 < hello.ahead < 5
    assert "s ahead of" in hello.warning and "more than 5 s ahead or 305 s behind" in hello.warning


@pytest.mark.parametrize(("ahead", "word"), [(90, "s ahead of"), (-400, "s behind")])
def test_a_clock_with_which_flower_would_refuse_everything(certs, ahead, word):
    with serving(http(ahead), certs["today"] / "server") as port:
        told = (word, "Flower refuses", "set it right")
        unreachable(f"127.0.0.1:{port}", certs["today"] / "ca.crt", *told)


@pytest.mark.parametrize("date", [False, True])
def test_a_server_that_does_not_tell_the_time(date, monkeypatch):
    monkeypatch.setattr(email.utils, "formatdate", lambda *_, **__: "yesterday")
    with serving(http(date=date)) as port:
        hello = reach(f"127.0.0.1:{port}", None, 5)
    assert hello.ahead is None and hello.warning == ""


# --- ports and hosts -----------------------------------------------------------------------------


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is taken"):
            free("127.0.0.1", port)
        with pytest.raises(ConfigError, match=f"0.0.0.0:{port} is taken"):
            free("0.0.0.0", port)
    free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):  # looking did not take it
        pass


def test_hosts_on_which_nobody_can_listen():
    free("127.0.0.1", 0)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:8000 is no address of this machine"):
        free("192.0.2.1", 8000)
    with pytest.raises(ConfigError, match="from 0 to 65535"):
        free("127.0.0.1", 70000)


def test_names_in_certificates():
    for named, host in (
        ("Fed.example.org", "fed.Example.org."),
        ("*.example.org", "fed.example.org"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("xn--bcher-kva.example.org", "bücher.example.org"),
    ):
        assert trust.same(named, host)
    for named, host in (("*.example.org", "a.fed.example.org"), ("*.org", "org"), ("a.b", "b")):
        assert not trust.same(named, host)


def test_which_hosts_are_this_machine_alone():
    here = ("127.0.0.1", "127.9.9.9", "localhost", "LocalHost.", "::1", "[::1]", "::ffff:127.0.0.1")
    there = (
        "0.0.0.0",
        "::",
        "",
        "10.0.0.7",
        "fed.example.org",
        "localhost.example.org",
        "128.0.0.1",
    )
    assert all(map(loopback, here))
    assert not any(map(loopback, there))


def test_dates_are_read_from_any_certificate(certs):
    for folder in certs.values():
        for name in ("ca.crt", "server/server.crt"):
            cert = cert_at(folder / name)
            der = ssl.PEM_cert_to_DER_cert(pem(cert).decode())
            dates = (cert.not_valid_before_utc, cert.not_valid_after_utc)
            assert trust.validity(der) == tuple(date.timestamp() for date in dates)
            for cut in range(len(der) - 1):  # whatever comes over a wire
                trust.validity(der[:cut])
            assert trust.validity(der[:40]) is None
    assert trust.validity(b"nothing of the kind") is None
