"""The server as a page sees it: the real command in a process of its own."""

import http.client
import json
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")

from attpc_filter.formats.registry import open_run
from attpc_filter.rebuild.detector_file import load_detector
from attpc_filter.rebuild.hits import rebuild_hits
from attpc_filter.score.bundle import load_bundle
from tests.conftest import Cli
from tests.plugins.web.conftest import SAMPLE, Server, StartServer


def ask(
    server: Server, path: str, method: str = "GET", body: str = "", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """A request as it is, without what a browser or urllib mends in its path and headers."""
    host, port = server.address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body.encode())
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, content


def read_event(server: Server, row: int) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    content = ask(server, f"/api/events/{row}")[2]
    (length,) = struct.unpack("<I", content[:4])
    header = json.loads(content[4 : 4 + length])
    columns = np.frombuffer(content[4 + length :], "<f4").reshape(-1, header["n_hits"])
    return header, dict(zip(header["columns"], columns, strict=True))


def test_hits_are_those_of_filtering(server: Server) -> None:
    contract = load_bundle("default").contract
    with open_run(SAMPLE) as run:
        records = list(run.records())
    for row, record in enumerate(records):
        hits = rebuild_hits([record], load_detector(), contract.hits)
        header, columns = read_event(server, row)
        assert (header["run"], header["event"]) == (101, record.event)
        assert header["n_hits"] == len(hits.x)
        order = np.argsort(hits.charge, kind="stable")
        for name in ("x", "y", "z", "charge", "time_bucket", "pad"):
            np.testing.assert_array_equal(columns[name], getattr(hits, name)[order])


def test_a_trace_has_its_samples_baseline_and_peaks(server: Server) -> None:
    _, columns = read_event(server, 0)
    pad = int(columns["pad"][-1])
    trace = server.get(f"/api/events/0/trace/{pad}")
    with open_run(SAMPLE) as run:
        matrix = next(iter(run.records())).traces
    assert matrix is not None
    expected = matrix[matrix[:, 4] == pad][:, 5:]
    assert trace["samples"] == expected.tolist()
    peak = round(trace["peaks"][int(np.argmax(trace["charges"]))])
    samples, baseline = np.array(trace["samples"][0]), np.array(trace["baselines"][0])
    assert abs(int(np.argmax(samples - baseline)) - peak) <= 1
    assert samples[peak] - baseline[peak] == pytest.approx(columns["charge"][-1], rel=0.02, abs=2)


def test_only_this_machines_names_are_answered(server: Server) -> None:
    assert ask(server, "/", Host="localhost:1234")[0] == 200  # as through an ssh tunnel
    for host in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "localhost.x"):
        assert ask(server, "/api/setup", Host=host)[0] == 403, host


def test_other_sites_cannot_change_anything(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite")
    body = json.dumps({"row": 0, "label": "proton", "labeller": "a", "policy": "random"})
    path, ours = "/api/answers", {"X_Attpc_Filter": "1"}
    refused = [
        ask(server, path, "POST", body),
        ask(server, path, "POST", body, Origin="http://evil.example", **ours),
        ask(server, path, "POST", body, Origin="null", **ours),
        ask(server, path, "POST", body, Sec_Fetch_Site="cross-site", **ours),
        ask(server, path, "POST", body, Sec_Fetch_Site="same-site", **ours),
    ]
    assert [status for status, _, _ in refused] == [403] * len(refused)
    assert server.get("/api/history?labeller=a") == []
    assert ask(server, path, "POST", body, Origin=server.address, **ours)[0] == 200
    headers = ask(server, "/api/setup", "OPTIONS", Origin="http://evil.example")[1]
    assert not [name for name in headers if name.startswith("access-control-allow")]


def test_no_path_from_outside_reaches_the_file_system(server: Server) -> None:
    for path in (
        "/static/../command.py",
        "/static/..%2Fcommand.py",
        "/static/%2e%2e/command.py",
        "/static//etc/passwd",
        "/api/events/-1",
        "/api/events/99999",
        "/api/events/0/trace/../../1",
        "/../../../etc/passwd",
    ):
        status, _, content = ask(server, path)
        assert status in (400, 404), path
        assert b"import" not in content
        assert b"root:" not in content


def test_pages_may_load_nothing_from_elsewhere_and_run_no_inline_script(server: Server) -> None:
    for page in ("/", "/gallery", "/compare", "/clusters", "/agreement", "/trust"):
        status, headers, content = ask(server, page)
        assert status == 200
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert b"://" not in content
    static = Path(__file__).parents[3] / "plugins" / "web" / "attpc_filter_web" / "static"
    for path in static.glob("*.js"):
        text = path.read_text()
        assert "innerHTML" not in text, path
        assert "eval(" not in text, path


def test_elsewhere_a_token_is_needed(folder: Path, start: StartServer, tmp_path: Path) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite", "--host", "0.0.0.0")
    address, token = server.address.split("/?token=")
    server.address = address
    assert len(token) >= 32
    assert ask(server, "/api/setup")[0] == 403
    assert ask(server, "/api/setup?token=guessed")[0] == 403
    status, headers, _ = ask(server, f"/?token={token}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert ask(server, "/api/setup", Cookie=cookie.split(";")[0])[0] == 200


def test_a_request_that_makes_no_sense_is_answered_with_one_line(server: Server) -> None:
    good = {"row": 0, "label": "proton", "labeller": "a", "policy": "random", "seconds": 1}
    for change in (
        {"row": 10_000},
        {"row": -1},
        {"row": "x"},
        {"label": "deuteron"},
        {"labeller": ""},
        {"labeller": "x" * 50},
        {"policy": "nothing"},
        {"seconds": -1},
        {"seconds": "long"},
        {"note": "x" * 5000},
    ):
        body = json.dumps(good | change)
        status, _, content = ask(server, "/api/answers", "POST", body, X_Attpc_Filter="1")
        assert status == 400, change
        assert "\n" not in json.loads(content)["error"]
    for body in ("", "[]", "{", "\xff"):
        status, _, _ = ask(server, "/api/answers", "POST", body, X_Attpc_Filter="1")
        assert status == 400, body
    for text in ("tag", "nothing=1", "run=a", "tag>1", "score.proton~x"):
        status, _, content = ask(server, f"/api/list?filter={text.replace('>', '%3E')}")
        assert status == 400
        assert "filter" in json.loads(content)["error"]
    assert server.get("/api/history?labeller=a") == []


def test_filters_keep_what_the_tag_table_says(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    server = start(folder, "--labels", tmp_path / "l.sqlite")
    rows = pq.read_table(folder / "tags" / "run_0101.parquet").to_pylist()

    def events(text: str) -> list[int]:
        found = server.get(f"/api/list?limit=200&filter={text}")
        assert found["total"] == len(found["events"])
        return [entry["event"] for entry in found["events"]]

    assert events("") == [row["event"] for row in rows]
    assert events("tag=proton") == [r["event"] for r in rows if r["tag"] == "proton"]
    assert events("tag!=proton%20hits%3E=300") == [
        r["event"] for r in rows if r["tag"] != "proton" and r["n_hits"] >= 300
    ]
    assert events("score.noise%3E0.5") == [
        r["event"] for r in rows if (r["score_noise"] or 0) > 0.5
    ]
    assert events("event=0..12,20") == [
        r["event"] for r in rows if r["event"] <= 12 or r["event"] == 20
    ]
    assert events('reason~"ion-chamber%20downscale"') == [
        r["event"] for r in rows if r["tag"] == "passthrough"
    ]
    server.answer(3, "carbon")
    assert events("label=carbon") == [rows[3]["event"]]
    assert len(events("label=none")) == len(rows) - 1


def test_triggers_are_not_shown_for_labelling(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite", "--repeats", 0)
    n_triggers = server.get("/api/list?filter=tag=passthrough")["total"]
    assert n_triggers == 1
    shown = []
    task = server.get("/api/next?labeller=anna&policy=random")["task"]
    while task is not None:
        shown.append(task["row"])
        task = server.answer(task["row"], "proton")["task"]
    assert len(shown) == len(set(shown)) == server.get("/api/setup")["n_events"] - n_triggers


def test_repeats_come_later_unannounced_and_at_the_share_asked_for(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite", "--repeats", 0.5)
    shown: list[int] = []
    answer = server.get("/api/next?labeller=anna&policy=random")
    while answer["task"] is not None and len(shown) < 40:
        assert set(answer["task"]) == {"row", "policy"}  # nothing tells a repeat from a first time
        shown.append(answer["task"]["row"])
        answer = server.answer(shown[-1], "proton")
    again = [at for at, row in enumerate(shown) if row in shown[:at]]
    assert again
    assert all(at - shown.index(shown[at]) > 15 for at in again)
    (within,) = server.get("/api/agreement")["within"]
    assert (within["n_events"], within["share"]) == (len(again), 1.0)


def test_every_labeller_is_shown_the_same_random_events(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite", "--repeats", 0)
    first = [server.get(f"/api/next?labeller={name}&policy=random")["task"] for name in "ab"]
    assert first[0] == first[1]


def test_suggestions_are_made_and_the_upcoming_event_is_the_next_one(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    import time

    server = start(folder, "--labels", tmp_path / "l.sqlite", "--repeats", 0, "--refit-every", 100)
    for _ in range(600):
        state = server.get("/api/next?labeller=anna&policy=suggest")
        if state["suggestions"]:
            break
        time.sleep(0.1)
    assert state["suggestions"] == 1, state
    for _ in range(5):
        following = server.answer(state["task"]["row"], "proton", policy="suggest")
        assert following["task"]["row"] == state["upcoming"]
        state = following


def test_undo_shows_the_event_again(folder: Path, start: StartServer, tmp_path: Path) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite", "--repeats", 0)
    first = server.get("/api/next?labeller=anna&policy=random")["task"]
    server.answer(first["row"], "proton", note="a kink")
    undone = server.post("/api/undo", {"labeller": "anna"})
    assert undone == {"row": first["row"], "label": "proton"}
    assert server.get("/api/next?labeller=anna&policy=random")["task"] == first
    assert server.post("/api/undo", {"labeller": "anna"}) == {"row": None}


def test_a_disagreement_is_shown_to_be_settled(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite")
    for name, labels in {"anna": "pp", "ben": "pc"}.items():
        for row, label in enumerate(labels):
            server.answer(row, {"p": "proton", "c": "carbon"}[label], name)
    state = server.get("/api/next?labeller=carl&policy=settle")
    assert state["task"]["row"] == 1
    assert state["said"] == {"anna": "proton", "ben": "carbon"}
    assert server.answer(1, "carbon", "carl", policy="settle")["task"] is None
    table = ask(server, "/api/labels.csv")[2].decode().splitlines()
    rows = [line for line in table if not line.startswith("#")]
    assert rows[0] == "run,event,label"
    assert [line.split(",")[2] for line in rows[1:]] == ["proton", "carbon"]


def test_kill_9_loses_no_answer_that_was_acknowledged(
    folder: Path, start: StartServer, tmp_path: Path
) -> None:
    labels = tmp_path / "l.sqlite"
    server = start(folder, "--labels", labels, "--repeats", 0)
    task = server.get("/api/next?labeller=anna&policy=random")["task"]
    for _ in range(3):
        following = server.answer(task["row"], "noise")["task"]
        server.kill()
        server = start(folder, "--labels", labels, "--repeats", 0)
        state = server.get("/api/next?labeller=anna&policy=random")
        assert state["task"] == following
        task = following
    assert len(server.get("/api/history?labeller=anna")) == 3


def test_raw_runs_are_labelled_without_an_output_folder(
    start: StartServer, tmp_path: Path, cli: Cli
) -> None:
    labels = tmp_path / "l.sqlite"
    server = start(SAMPLE, "--labels", labels, "--classes", "alpha", "other")
    setup = server.get("/api/setup")
    assert setup["classes"] == ["alpha", "other"]
    assert not setup["has_scores"]
    assert {entry["name"] for entry in setup["policies"]} == {"random", "filter", "settle"}
    server.answer(0, "alpha")
    server.answer(1, "unsure")
    ended = cli("label", "--labels", labels, "--export", tmp_path / "labels.csv")
    assert ended.status == 0, ended.err
    rows = [x for x in (tmp_path / "labels.csv").read_text().splitlines() if x[0] != "#"]
    assert len(rows) == 2
    assert rows[1].endswith(",alpha")


def test_bad_usage_is_one_line(folder: Path, tmp_path: Path, call: Cli) -> None:
    labels = tmp_path / "l.sqlite"
    for arguments, wanted in (
        ([tmp_path / "none", "--labels", labels], "no such file or folder"),
        ([tmp_path, "--labels", labels], "neither an output folder nor run files"),
        ([SAMPLE, SAMPLE, "--labels", labels], "has run number 101"),
        ([folder, "--labels", labels, "--classes", "one"], "two to nine"),
        ([folder, "--labels", labels, "--repeats", "2"], "--repeats"),
        ([folder, "--labels", labels, "--list", SAMPLE], "no table with the columns"),
        ([folder, "--labels", labels, "--compare", SAMPLE.parent], "both must be output folders"),
        ([folder, "--labels", labels, "--clusters", tmp_path], "no table of clusters"),
        ([folder, "--labels", labels, "--port", "99999"], "cannot listen"),
        (["--labels", tmp_path / "x.sqlite", "--export", tmp_path / "y.csv"], "no such labels"),
    ):
        ended = call("label", *arguments)
        assert ended.status == 2, arguments
        assert wanted in ended.the_error(), ended.err
