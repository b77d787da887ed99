"""The trust sample: the page's figures are those of the command."""

from pathlib import Path

import pytest

pytest.importorskip("attpc_filter_web", reason="needs plugins/web")

from attpc_filter_web.trust import judge

from tests.conftest import Cli
from tests.plugins.web.conftest import StartServer
from tests.plugins.web.test_server import ask


def test_the_page_and_the_command_say_the_same(
    folder: Path, start: StartServer, tmp_path: Path, call: Cli
) -> None:
    server = start(folder, "--labels", tmp_path / "l.sqlite", "--repeats", 0)
    server.post("/api/trust", {"per_tag": 4})
    said = iter(["proton", "noise", "noise", "carbon"] * 10)
    state = server.get("/api/next?labeller=anna&policy=trust")
    n_answers = 0
    while state["task"] is not None:
        state = server.answer(state["task"]["row"], next(said), policy="trust")
        n_answers += 1
    found = server.get("/api/trust")
    assert n_answers == sum(tag["drawn"] for tag in found["tags"])
    assert [tag["drawn"] for tag in found["tags"]] == [min(4, t["events"]) for t in found["tags"]]
    path, numbers = tmp_path / "sample.csv", tmp_path / "numbers.csv"
    path.write_bytes(ask(server, "/api/sample.csv")[2])
    assert call("trust", folder, "--labels", path, "--csv", numbers).status == 0
    header, *lines = [line.split(",") for line in numbers.read_text().splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert [row["tag"] for row in rows] == [entry["name"] for entry in found["classes"]]
    # intervals are drawn: of a tag with few events they may differ by one event
    for row, entry in zip(rows, found["classes"], strict=True):
        for what in ("purity", "efficiency"):
            if entry[what] is not None:
                assert float(row[what]) == pytest.approx(entry[what]["value"], abs=1e-4)
                assert float(row[f"{what}_low"]) == pytest.approx(entry[what]["low"], abs=0.13)
    status, _, _ = ask(server, "/api/trust", "POST", '{"per_tag": 9}', X_Attpc_Filter="1")
    assert status == 400  # the sample has answers, so it stays


def test_a_tag_without_labels_leaves_efficiency_open() -> None:
    sample = [(1, 1, "proton"), (1, 2, "proton"), (1, 3, "noise")]
    labels = {(1, 1): "proton", (1, 2): "unsure", (1, 3): "unsure"}
    proton, noise = judge(sample, labels, {"proton": 10, "noise": 10}, ("proton", "noise"))
    assert proton.purity is not None
    assert proton.purity.value == 1.0
    assert proton.efficiency is None
    assert noise.purity is None
