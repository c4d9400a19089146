"""doctor measures this machine."""

from __future__ import annotations

from pathlib import Path

from .calling import call, call_json, environment


def test_it_measures_and_remembers(tmp_path: Path) -> None:
    document = call_json("doctor", "--threads", "1", "--isa", "generic", env=environment(tmp_path))
    machine = document["machine"]
    assert (machine["threads"], machine["isa"]) == (1, "generic")
    assert machine["f32"] > 0
    assert document["memory_bandwidth"] == machine["bandwidth"][-1][1]
    assert document["surroundings"]["isa"] == "generic"
    assert len(list((tmp_path / "machines").iterdir())) == 1


def test_a_lower_level_than_possible_is_named(tmp_path: Path) -> None:
    result = call("doctor", "-t", "1", "--isa", "generic", env=environment(tmp_path))
    assert result.exit_code == 0
    facts = dict(line.split("  ", 1) for line in result.stdout.split("\n\n")[0].splitlines())
    assert facts["level"].strip().startswith("generic (of generic")
    if "avx2" in facts["level"]:
        assert "drop PELTON_ISA" in result.stdout
