"""vbctl simulate: every example runs, the same seed says the same, and wrong files are refused by line and column."""
import json
import os
import re
import subprocess
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from harness import BUILD, run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "simulate"
SCENARIOS = sorted(EXAMPLES.glob("*.yaml"))
POLICIES = ["round_robin", "least_conn", "fastest", "p2c", "random", "hash", "least_load"]

SMALL = """\
listen: 8080
pools:
  web: {backends: [{name: a, address: "a:80"}, {name: b, address: "b:80"}]}
simulate: {policies: [round_robin, p2c], duration: 2s, rate: 500}
"""


def shortened(scenario, tmp_path, seed=1):
    """The example, over a tenth of its time."""
    def tenth(match):
        return f"{match[1]}: {int(match[2]) * 100}ms"
    text = re.sub(r"\b(duration|from|to): (\d+)s", tenth, scenario.read_text())
    file = tmp_path / scenario.name
    file.write_text(text.replace("simulate:\n", f"simulate:\n  seed: {seed}\n"))
    return file


def simulate(file, *args):
    result = run("vbctl", "simulate", file, *args)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_there_are_scenarios():
    assert len(SCENARIOS) == 6


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_each_example_plays_all_policies(scenario, tmp_path):
    file = shortened(scenario, tmp_path)
    document = json.loads(simulate(file, "--json"))
    assert {row["policy"] for row in document["policies"]} == set(POLICIES)
    for row in document["policies"]:
        assert row["requests"] == row["answered"] + row["errors"] > 0
        assert row["tries"] == sum(backend["requests"] for backend in row["backends"]) == sum(row["picks"].values())
        assert row["answered"] == sum(slice["answered"] for slice in row["slices"])
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p999_ms"] <= row["max_ms"]
        assert abs(sum(backend["share_percent"] for backend in row["backends"]) - 100) < 1e-6


def test_the_same_seed_says_the_same_and_another_does_not(tmp_path):
    scenario = EXAMPLES / "cold_restart.yaml"
    file = shortened(scenario, tmp_path)
    tables, document = simulate(file), simulate(file, "--json")
    assert (simulate(file), simulate(file, "--json")) == (tables, document)
    assert simulate(shortened(scenario, tmp_path, seed=2), "--json") != document


def test_tables_for_people(tmp_path):
    file = tmp_path / "vb.yaml"
    file.write_text(SMALL)
    lines = simulate(file).splitlines()
    assert lines[0] == "2 s of pool web: 2 backends, 4 workers, 500 requests/s (poisson), seed 1"
    assert re.match(r"POLICY +REQUESTS +ERRORS +MEAN ms +P50 ms +P99 ms +P99.9 ms +MAX ms +QUEUED +SPREAD$", lines[2])
    assert [line.split()[0] for line in lines[3:5]] == ["round_robin", "p2c"]
    assert lines[6].split() == ["SHARE", "round_robin", "p2c"]
    assert lines[7].split()[:2] == ["a", "50.0%"]


def test_without_a_section_the_pool_is_played_as_it_is(tmp_path):
    file = tmp_path / "vb.yaml"
    file.write_text(SMALL.partition("simulate:")[0].replace("web: {", "web: {balance: least_conn, "))
    assert [row["policy"] for row in json.loads(simulate(file, "--json"))["policies"]] == ["least_conn"]


def test_the_balancer_takes_the_same_file(tmp_path):
    for scenario in SCENARIOS:
        result = run("vibebalancer", "-c", scenario, "--check")
        assert (result.returncode, result.stderr) == (0, "")


def test_a_plot_is_drawn(tmp_path):
    plot = tmp_path / "plot.svg"
    simulate(shortened(EXAMPLES / "cold_restart.yaml", tmp_path), "--svg", plot)
    root = xml.parse(plot).getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(POLICIES) <= set(texts)
    assert "restarted down" in texts
    lines = [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "line"]
    assert len(lines) == 2 * len(POLICIES)
    assert all(len(line) > 100 and "nan" not in line and "inf" not in line for line in lines)


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path):
    file = tmp_path / "vb.yaml"
    file.write_text(SMALL)
    result = run("vbctl", "simulate", file, "--svg", tmp_path / "no" / "plot.svg")
    assert result.returncode == 1
    assert result.stderr.startswith(f"vbctl: cannot write {tmp_path}/no/plot.svg: ")


@pytest.mark.parametrize("wrong, place, message", [
    ("simulate: {rate: many}", "4:18", "`rate`: expected a whole number from 1 to 10000000, found `many`"),
    ("simulate: {rat: 5}", "4:12", "unknown key `rat`; did you mean `rate`?"),
    ("simulate: {rate: 1000000, duration: 1h}", "4:1", "`simulate`: that may be 3600000000 requests, more than 100000000"),
    ("simulate: {arrivals: closed, clients: 1000000, think: 1ms}", "4:1",
     "`simulate`: that may be 60001000000 requests, more than 100000000"),
    ("simulate: {backends: {c: {concurrency: 2}}}", "4:23", "pool `web` has no backend `c`"),
])
def test_errors_of_the_file_are_named_by_their_place(tmp_path, wrong, place, message):
    file = tmp_path / "vb.yaml"
    file.write_text(SMALL.partition("simulate:")[0] + wrong + "\n")
    for program in (["vbctl", "simulate", file], ["vibebalancer", "-c", file, "--check"]):
        result = run(*program)
        assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{file}:{place}: {message}\n")


def test_a_file_that_cannot_be_read_is_an_error():
    result = run("vbctl", "simulate", "/nowhere")
    assert result.returncode == 1
    assert result.stderr.startswith("vbctl: cannot read /nowhere: ")


def test_all_policies_over_all_examples_make_one_table(tmp_path):
    for scenario in SCENARIOS:
        shortened(scenario, tmp_path)
    script = tmp_path / "compare.sh"
    script.write_text((EXAMPLES / "compare.sh").read_text())
    result = subprocess.run(["sh", script, BUILD / "vbctl"], capture_output=True, text=True, env=os.environ)
    assert (result.returncode, result.stderr) == (0, "")
    rows = [line.strip("|").split("|") for line in result.stdout.splitlines()]
    assert len(rows) == 2 + len(POLICIES) and {len(row) for row in rows} == {1 + len(SCENARIOS)}
    assert {row[0].strip(" `") for row in rows[2:]} == set(POLICIES)
    assert all(re.search(r"^ [\d.]+ ms(, \d+ errors)? $", cell) for row in rows[2:] for cell in row[1:])
