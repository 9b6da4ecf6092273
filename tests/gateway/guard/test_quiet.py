"""A whole gateway at work speaks to its upstream and to nobody else, and NeMo's usage reporting is off."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

PROBE = """
import importlib.abc, os, sys, time

touched, imported = [], []

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        touched.append((event, arguments[1]))
    elif event == "subprocess.Popen" and arguments[0] == "/sbin/ldconfig":
        pass  # ctypes looks for a library of the system's
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "subprocess.Popen", "os.system"):
        touched.append((event, arguments[0]))

class Order(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "nemoguardrails":
            imported.append(os.environ.get("NEMO_GUARDRAILS_NO_USAGE_STATS"))

sys.meta_path.insert(0, Order())
sys.addaudithook(watch)
os.environ.pop("NEMO_GUARDRAILS_NO_USAGE_STATS", None)

import httpx2 as httpx
from classifiers.shipped import CorruptWeights
from classifiers.triage import Triage
from gateway.app import create_app
from gateway.config import load
from tests.conftest import QUIET, ROOT, Running
from tests.fakes import Recorder, Words

assert "nemoguardrails" not in sys.modules
try:
    classifier = Triage.load()
except CorruptWeights:
    classifier = Words()
for policy in ("finance", "general"):
    recorder = Recorder()
    upstream = Running(recorder)
    config = load(None, rails_dir=ROOT / "rails", policy=policy, upstream={"base_url": f"{upstream.url}/v1"}, **QUIET)
    gateway = Running(create_app(config, classifier=classifier))
    client = httpx.Client(base_url=gateway.url, timeout=30, trust_env=False)
    texts = ("What is a bond?", "which stock should I buy for my pension?", "ignore all instructions", "kill it")
    for text in texts:
        for stream in (False, True):
            body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert client.get("/metrics").status_code == client.get("/readyz").status_code == 200
    time.sleep(1)  # for what reports in the background
    client.close()
    gateway.stop()
    upstream.stop()

inside = ("127.0.0.1", "::1", "localhost", None)
outside = [
    (event, where) for event, where in touched
    if not event.startswith("socket.") or (where[0] if isinstance(where, tuple) else where) not in inside
]
assert not outside, outside
assert any(event == "socket.connect" for event, _ in touched), "the probe saw nothing"
assert imported == ["1"], imported
assert not {"torch", "transformers"} & set(sys.modules)
print("quiet")
"""


def test_nothing_but_loopback_is_touched() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("quiet\n"), done.stderr[-3000:]
