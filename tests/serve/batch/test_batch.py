"""`pelton run-batch`: each line says what its route says, in its place, and a run can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pelton.errors import ConfigError
from pelton.serve.batch.lines import lines_done, read_lines

from ...cli.calling import call
from ..serving import NAME, Served, serving

USER = {"role": "user", "content": "hello world"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER], "max_tokens": 8, "seed": 3},
    "/v1/completions": {"prompt": ["the end", "hello"], "max_tokens": 8, "seed": 3, "n": 2, "logprobs": 1},
    "/v1/embeddings": {"input": "hello world"},
    "/v1/responses": {"input": "hello world", "max_output_tokens": 8, "seed": 3},
}


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


def line(custom_id: Any, url: str = "/v1/completions", body: Any = None, **other: Any) -> str:
    whole = {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": body or BODIES.get(url, {}),
        **other,
    }
    return json.dumps(whole)


def write(folder: Path, *lines: str) -> tuple[Path, Path]:
    given = folder / "in.jsonl"
    given.write_text("\n".join(lines) + "\n")
    return given, folder / "out.jsonl"


def run(model: Path, given: Path, output: Path, *flags: str) -> tuple[int, list[dict[str, Any]], str]:
    engine = ("-m", str(model), "-t", "1", "-c", "1024", "--kv-memory", "8M", "--alias", NAME)
    result = call("run-batch", "-i", str(given), "-o", str(output), *engine, *flags)
    answers = [json.loads(answer) for answer in output.read_text().splitlines()] if output.exists() else []
    return result.exit_code, answers, result.stderr


def without_names(reply: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(
        {k: v for k, v in reply.items() if k not in ("id", "created", "created_at", "completed_at")}
    )
    document: dict[str, Any] = json.loads(text)
    for item in document.get("output", []):
        del item["id"]
    for details in ("prompt_tokens_details", "input_tokens_details"):  # what a cache had may differ
        document["usage"].pop(details, None)
    return document


def test_each_line_says_what_its_route_says(served: Served, tiny_path: Path, tmp_path: Path) -> None:
    lines = [line(f"{url}-{turn}", url) for turn in range(5) for url in BODIES]
    code, answers, told = run(tiny_path, *write(tmp_path, *lines))
    assert code == 0
    assert [answer["custom_id"] for answer in answers] == [json.loads(line)["custom_id"] for line in lines]
    expected = {url: without_names(served.http.post(url, json=body).json()) for url, body in BODIES.items()}
    for answer in answers:
        assert answer["error"] is None
        assert answer["response"]["status_code"] == 200
        url = answer["custom_id"].rpartition("-")[0]
        assert without_names(answer["response"]["body"]) == expected[url]
    assert "20 answered, 0 failed" in told


def test_a_wrong_line_fails_alone_and_the_exit_code_says_so(tiny_path: Path, tmp_path: Path) -> None:
    wrong: list[tuple[str, str]] = [
        ("not json", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "JSON object"),
        (line(5), "custom_id"),
        (line("x" * 600), "custom_id"),
        (line("\ud800"), "custom_id"),
        (line("first"), "another line's"),
        (line("m", method="GET"), "method"),
        (line("e", extra=1), "extra"),
        (line("b", body=[1]), "body"),
        (line("u", "/v1/audio", {"a": 1}), "answered in batches"),
        (line("o", body={"prompt": "x", "best": 1}), "best"),
        (line("t", body={"prompt": "x", "temperature": -1}), "temperature"),
        (line("s", body={"prompt": "x", "stream": True}), "stream"),
        (line("l", body={"prompt": "hello " * 2000}), "context"),
        (line("g", "/v1/responses", {"input": "x", "background": True}), "background"),
        (line("n", body={"prompt": "x", "model": "gpt-4"}), "gpt-4"),
    ]
    code, answers, told = run(
        tiny_path, *write(tmp_path, line("first"), "", *(w for w, _ in wrong), line("last"))
    )
    assert code == 3
    assert f"2 answered, {len(wrong)} failed" in told
    first, *failed, last = answers
    assert (first["response"]["status_code"], last["response"]["status_code"]) == (200, 200)
    for answer, (_, word) in zip(failed, wrong, strict=True):
        error = answer["error"] or answer["response"]["body"]["error"]
        assert word in error["message"], answer
        assert (answer["response"] is None) == (answer["error"] is not None)
        if answer["response"] is not None:
            assert answer["response"]["status_code"] in (400, 404)


def test_a_run_goes_on_after_the_answers_it_has(tiny_path: Path, tmp_path: Path) -> None:
    given, output = write(tmp_path, *(line(f"r{number}") for number in range(6)))
    assert run(tiny_path, given, output)[0] == 0
    whole = output.read_bytes()
    code, _, told = run(tiny_path, given, output)
    assert (code, "resume" in told) == (1, True)
    third = whole.index(b"\n", whole.index(b"\n", whole.index(b"\n") + 1) + 1) + 1
    output.write_bytes(whole[: third + 40])  # three answers, and what a kill left of the fourth
    code, answers, told = run(tiny_path, given, output, "--resume")
    assert (code, "3 answered, 0 failed after 3" in told) == (0, True)
    assert [answer["custom_id"] for answer in answers] == [f"r{number}" for number in range(6)]
    first = json.loads(whole.splitlines()[5])["response"]["body"]["choices"]
    assert answers[5]["response"]["body"]["choices"] == first
    given.write_text(line("other") + "\n")
    with pytest.raises(ConfigError, match="line 1"):
        lines_done(output, given)


def test_long_lines_are_skipped_without_being_held(tmp_path: Path) -> None:
    given = tmp_path / "in.jsonl"
    given.write_text(line("a") + "\n" + "x" * 300_000 + "\n" + line("b") + "\n" + line("c") + "x" * 100_000)
    found = list(read_lines(given, most_bytes=1000))
    assert [read.custom_id for read in found] == ["a", None, "b", None]
    assert [read.number for read in found] == [1, 2, 3, 4]
    assert "1000" in found[1].fault
    assert found[-1].offset == given.stat().st_size


def test_more_lines_than_may_be_under_way_keep_their_order(tiny_path: Path, tmp_path: Path) -> None:
    """The first line takes longer than those behind it, which wait with their answers."""
    long, short = ({"prompt": "hello", "max_tokens": count, "ignore_eos": True} for count in (300, 1))
    lines = [line(f"a{number}", body=short if number else long) for number in range(200)]
    given, output = write(tmp_path, *lines)
    code, answers, _ = run(tiny_path, given, output, "--max-num-seqs", "2")
    assert code == 0
    assert [answer["custom_id"] for answer in answers] == [f"a{number}" for number in range(200)]
    spent = [answer["response"]["body"]["usage"]["completion_tokens"] for answer in answers]
    assert spent == [300] + [1] * 199
