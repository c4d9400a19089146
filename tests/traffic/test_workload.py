"""Workloads are the same for the same seed, of the shape asked for; ShareGPT's file may be cut anywhere."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest

from pelton.errors import ConfigError
from pelton.traffic.arrivals import Arrivals
from pelton.traffic.sharegpt import conversations
from pelton.traffic.workload import WORKLOADS, WorkloadShape, make_workload

RECORDS = [
    {
        "id": str(number),
        "conversations": [
            {"from": "human", "value": f"Question {number}?"},
            {"from": "gpt", "value": "An answer."},
            {"from": "human", "value": "And then?"},
        ],
    }
    for number in range(40)
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps(RECORDS), encoding="utf-8")
    return path


def test_every_whole_record_before_a_cut_is_read(tmp_path: Path) -> None:
    whole = json.dumps(RECORDS)
    ends = [len(json.dumps(RECORDS[:count])) - 1 for count in range(1, len(RECORDS) + 1)]
    for cut in range(1, len(whole), 97):
        path = tmp_path / "cut.json"
        path.write_text(whole[:cut], encoding="utf-8")
        assert len(list(conversations(path))) == sum(end <= cut for end in ends)


def test_other_speakers_and_empty_texts_end_a_conversation(tmp_path: Path) -> None:
    turns = [
        [{"from": "gpt", "value": "I begin."}],
        [{"from": "human", "value": "A"}, {"from": "human", "value": "B"}],
        [{"from": "human", "value": "A"}, {"from": "gpt", "value": " "}],
        [{"from": "human", "value": 7}],
        "none",
    ]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps([{"conversations": item} for item in turns]), encoding="utf-8")
    assert list(conversations(path)) == [["A"], ["A"]]


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "object.json"
    path.write_text('{"conversations": []}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"object\.json"):
        list(conversations(path))


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_a_seed_gives_the_same_sessions(name: str, file: Path) -> None:
    shape = WorkloadShape(sessions=12, prefix_words=30, input_words=5, prefixes=3, turns=4, file=file)
    sessions = make_workload(name, shape)
    assert sessions == make_workload(name, shape)
    assert len(sessions) == 12
    assert {len(session.turns) for session in sessions} == {4 if name == "agent" else 1}
    systems = {session.system for session in sessions}
    assert len(systems) == (3 if name == "shared-prefix" else 1)


def test_unknown_workloads_and_sizes_are_named(file: Path) -> None:
    with pytest.raises(ConfigError, match="workload"):
        make_workload("sonnet", WorkloadShape())
    with pytest.raises(ConfigError, match="sessions"):
        WorkloadShape(sessions=0)


def test_arrivals_keep_their_rate_and_bursts_their_shape() -> None:
    assert Arrivals().moments(3) == [0.0, 0.0, 0.0]
    even, poisson, bursty = (Arrivals(rate=10, burstiness=b).moments(4000) for b in (100.0, 1.0, 0.1))
    for moments in (even, poisson, bursty):
        assert moments == sorted(moments)
        assert moments[0] == 0.0
        assert 4000 / moments[-1] == pytest.approx(10, rel=0.2)

    def spread(moments: list[float]) -> float:
        gaps = [later - earlier for earlier, later in pairwise(moments)]
        mean = sum(gaps) / len(gaps)
        return math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean

    assert spread(even) == pytest.approx(0.1, rel=0.2)
    assert spread(poisson) == pytest.approx(1.0, rel=0.2)
    assert spread(bursty) == pytest.approx(math.sqrt(10), rel=0.2)


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("request_rate", {"rate": 0.0}),
        ("burstiness", {"burstiness": 0.0}),
        ("max_concurrency", {"concurrency": 0}),
    ],
)
def test_impossible_arrivals_are_named(field: str, settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=field):
        Arrivals(**settings)  # type: ignore[arg-type]
