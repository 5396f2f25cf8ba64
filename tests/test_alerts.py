"""Who is told: each new alert once, at addresses that only the environment knows; told to a real server on loopback."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prodkit.errors import ParameterError
from prodkit.evidence import Evidence
from prodkit.monitoring.alerts import alert_table, ranked_alerts, send_alerts
from prodkit.params import MonitorParams
from prodkit.store.registry import Store

SECRET = "t0ken-that-nobody-sees"
SLOW = Evidence("health.latency_p99_ms", "fail", value=500.0, limit=250.0, n=9, rung=2, note="slow")
FAST = Evidence("health.latency_p99_ms", "pass", value=5.0, limit=250.0, n=9, rung=2, note="slow")
UNKNOWN = Evidence("health.latency_p99_ms", "inconclusive", limit=250.0, rung=2)
MOVED = Evidence("drift.temp", "fail", value=0.6, limit=0.1, n=9, rung=5, note="temp has moved")
STILL = Evidence("drift.columns", "pass", value=0.01, limit=0.1, n=9, rung=5)


@contextmanager
def webhook(*, status=200, wait=0.0):
    """A server that keeps what it is told; yields its address, with a secret in it, and what it was told."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(json.loads(body))
            time.sleep(wait)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/{SECRET}", told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    with Store.open(f"sqlite:///{tmp_path}/store.db", str(tmp_path / "artifacts")) as opened:
        yield opened


def look(store, *evidence, day=1, version=1, notify=("${OPS}",), **settings):
    """One look at the model, on a day of May."""
    window = f"2013-04-{day:02d}/2013-05-{day:02d}"
    params = MonitorParams.check({"window": window, "notify": list(notify)})
    found = ranked_alerts(evidence, version=version)
    return send_alerts(store, params, found, evidence=evidence, version=version, **settings)


def test_alerts_are_ranked_by_rung_and_by_size():
    """The strongest rung first, then what is furthest beyond its limit; what could not be measured leads its rung."""
    more = Evidence("health.error_share", "fail", value=0.5, limit=0.01, rung=2)
    lost = Evidence("health.degraded_share", "error", value=float("nan"), limit=0.05, rung=2)
    low = Evidence("performance.value", "fail", value=1.0, limit=4.0, rung=3)
    found = ranked_alerts([MOVED, low, SLOW, lost, more, STILL, UNKNOWN], version=3)
    assert [alert.name.split(".")[1] for alert in found] == [
        "degraded_share",
        "error_share",
        "latency_p99_ms",
        "value",
        "temp",
    ]
    assert [alert.size for alert in found[1:]] == pytest.approx([50, 2, 4, 6])
    assert alert_table(found, new=found[:1])["new"].tolist() == ["new", "", "", "", ""]


def test_a_new_alert_is_told_once_and_again_after_it_had_cleared(store, monkeypatch):
    """A webhook hears of it at the first look, not at the next nor while it is unknown, and anew when it is back."""
    with webhook() as (address, told):
        monkeypatch.setenv("OPS", address)
        assert look(store, SLOW, MOVED, day=1).channels == {"${OPS}": "told"}
        assert "2 new alerts about version 1" in told[0]["title"]
        assert told[0]["message"].splitlines()[0] == "- slow: 500, limit 250 [health.latency_p99_ms, rung 2]"
        assert look(store, SLOW, MOVED, day=2).channels == {"${OPS}": "nothing new"}
        look(store, UNKNOWN, MOVED, day=3)
        assert look(store, SLOW, MOVED, day=4).new == ()
        assert len(told) == 1
        look(store, FAST, MOVED, day=5)
        again = look(store, SLOW, MOVED, day=6)
        assert [alert.name for alert in again.new] == ["health.latency_p99_ms"]
        assert len(told) == 2
        assert "temp" not in told[1]["message"]


def test_the_same_look_repeated_tells_nobody_again(store, monkeypatch):
    """What a run has told is known to the run that does the same work once more."""
    with webhook() as (address, told):
        monkeypatch.setenv("OPS", address)
        look(store, SLOW)
        assert look(store, SLOW).channels == {"${OPS}": "nothing new"}
        assert len(told) == 1


def test_another_version_has_alerts_of_its_own(store, monkeypatch):
    """What was told of version 1 is news when it happens to version 2, and news again once 1 is back."""
    with webhook() as (address, told):
        monkeypatch.setenv("OPS", address)
        for day, version in enumerate((1, 2, 2, 1), start=1):
            look(store, SLOW, day=day, version=version)
        assert [message["title"][-9:] for message in told] == ["version 1", "version 2", "version 1"]


def test_a_column_that_no_longer_drifts_has_cleared(store, monkeypatch):
    """An alert that is not looked for by name clears when others of its kind were judged, and not when none was."""
    with webhook() as (address, told):
        monkeypatch.setenv("OPS", address)
        look(store, MOVED, day=1)
        look(store, Evidence("drift.columns", "inconclusive", rung=5), day=2)
        assert look(store, MOVED, day=3).new == ()
        look(store, STILL, day=4)
        assert len(look(store, MOVED, day=5).new) == 1
        assert len(told) == 2


def test_a_channel_that_fails_is_recorded_tried_again_and_never_fatal(store, monkeypatch):
    """One channel refuses: the other is told once, the run goes on, and the next run tries the first again."""
    with webhook() as (good, heard), webhook(status=500) as (bad, refused):
        monkeypatch.setenv("OPS", good)
        monkeypatch.setenv("BOSS", bad)
        both = ("${OPS}", "${BOSS}")
        first = look(store, SLOW, day=1, notify=both)
        assert first.channels["${OPS}"] == "told"
        assert first.channels["${BOSS}"].startswith("failed: ")
        second = look(store, SLOW, day=2, notify=both)
        assert second.channels["${OPS}"] == "nothing new"
        assert (len(heard), len(refused)) == (1, 2)
        assert second.new == ()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"json://127.0.0.1:9/{SECRET}", "could not be reached"),
        (f"nonsense-{SECRET}", "not an address that apprise knows"),
        (None, "must be set in the environment"),
    ],
)
def test_an_address_that_leads_nowhere_says_so_without_saying_itself(
    store, monkeypatch, capfd, address, said
):
    """Nobody listens, no such service, no such variable: a sentence in the result, and the address nowhere."""
    if address is None:
        monkeypatch.delenv("OPS", raising=False)
    else:
        monkeypatch.setenv("OPS", address)
    answer = look(store, SLOW).channels["${OPS}"]
    assert said in answer
    assert SECRET not in answer + "".join(capfd.readouterr())


def test_a_channel_that_hangs_is_left_behind(store, monkeypatch):
    """After its time is up the run goes on, and says so."""
    with webhook(wait=5.0) as (address, _):
        monkeypatch.setenv("OPS", address)
        began = time.monotonic()
        assert "no answer within 0.2 seconds" in look(store, SLOW, patience_seconds=0.2).channels["${OPS}"]
        assert time.monotonic() - began < 4.5


def test_no_secret_is_in_the_store(store, tmp_path, monkeypatch):
    """Neither the address nor a part of it is in any byte of the database."""
    with webhook() as (address, _):
        monkeypatch.setenv("OPS", address)
        look(store, SLOW, MOVED)
    store.close()
    content = (tmp_path / "store.db").read_bytes()
    assert b"health.latency" in content
    assert SECRET.encode() not in content
    assert b"json://" not in content


def test_nobody_is_told_by_a_verification_or_by_a_look_back(store, monkeypatch, tmp_path):
    """What happened long ago is no news, and what is only executed again happens to nobody."""
    with webhook() as (address, told):
        monkeypatch.setenv("OPS", address)
        look(store, FAST, MOVED, day=9)
        assert "looks back" in look(store, SLOW, day=2).channels["${OPS}"]
        monkeypatch.setenv("PRODKIT_SANDBOX", str(tmp_path))
        assert "verified" in look(store, SLOW, day=10).channels["${OPS}"]
        assert len(told) == 1


@pytest.mark.parametrize("address", [f"slack://{SECRET}", f"https://example.invalid/{SECRET}", "${}"])
def test_an_address_that_is_not_a_reference_is_refused_unseen(address):
    """Parameters are recorded, so an address must come from the environment; the error does not repeat it."""
    with pytest.raises(ParameterError, match=r"notify is wrong: .*write \$\{NAME\}") as caught:
        MonitorParams.check({"notify": [address]})
    assert SECRET not in str(caught.value) + str(caught.value.__cause__)


OUTCOMES = st.sampled_from(["pass", "fail", "inconclusive", "error"])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(OUTCOMES, st.sampled_from([1, 2])), min_size=1, max_size=8))
def test_told_are_the_onsets_and_no_more(looks):
    """Over any course of looks, an alert is new if and only if it is there and was not open for its version."""
    known = set()
    with Store.open("sqlite://", "memory://alerts") as store:
        for day, (outcome, version) in enumerate(looks, start=1):
            item = Evidence("health.error_share", outcome, value=0.5, limit=0.01, rung=2)
            notice = look(store, item, day=day, version=version, notify=())
            here = {(outcome, version)} if outcome in ("fail", "error") else set()
            assert {(alert.kind, alert.version) for alert in notice.new} == here - known
            kept = {each for each in known if each[1] == version and outcome in ("inconclusive", "error")}
            known = here | kept
