"""Hostile products write only inside their own directory, and planted secrets stay secret."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from floe_orchestrator_dagster.errors import FloeDagsterError
from kit.support import BIN, TinyProject

OUTSIDE_NAMES = ["../../outside", "..", "/outside", "a/../../../outside", "", "a\x00b", "a\nb"]
SECRETS = {
    "CANARY_ENV": "canary-env-5b1f",
    "CANARY_PROFILE": "canary-profile-77c2",
    "CANARY_TOKEN": "canary-token-09d4",
}
URL_SECRET = "canary-url-31aa"  # noqa: S105  a canary


def files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


def artifacts_of(tiny: TinyProject) -> tuple[Path, dict[str, Any]]:
    path = tiny.directory / "target" / "compiled_artifacts.json"
    return path, json.loads(path.read_text())


@pytest.mark.parametrize("name", OUTSIDE_NAMES)
def test_an_output_name_does_not_lead_outside(tiny: TinyProject, name: str) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    before = {*tiny.directory.parent.rglob("*")}
    path, artifacts = artifacts_of(tiny)
    profile = artifacts["dbt_profiles"]["tiny"]
    profile["outputs"] = {name: profile["outputs"].pop("dev")}
    profile["target"] = name
    path.write_text(json.dumps(artifacts))
    with pytest.raises(FloeDagsterError) as error:
        tiny.open()
    assert f"dbt output {name!r}" in str(error.value)
    new = {path for path in {*tiny.directory.parent.rglob("*")} - before if path.is_file()}
    # The cache stores the artifacts under a name derived from their content.
    assert {path.parent for path in new} <= {tiny.directory / "target" / "floe" / "cache"}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        *(("product", name) for name in OUTSIDE_NAMES),
        *(("compute", name) for name in OUTSIDE_NAMES),
        # Each model name parses the project, so one name is enough.
        ("model", "../../outside"),
    ],
)
def test_a_name_in_the_artifacts_does_not_lead_outside(
    tiny: TinyProject, place: str, name: str
) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    before = {*tiny.directory.parent.rglob("*")}
    path, artifacts = artifacts_of(tiny)
    if place == "product":
        artifacts["metadata"]["product_name"] = name
    elif place == "model":
        artifacts["transforms"]["models"][0]["name"] = name
    else:
        artifacts["transforms"]["models"][0]["compute"] = name
    path.write_text(json.dumps(artifacts))
    with pytest.raises(FloeDagsterError):
        tiny.open()
    new = {*tiny.directory.parent.rglob("*")} - before
    assert all(path.is_relative_to(tiny.directory) for path in new)


def test_a_linked_runs_directory_is_not_cleared(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    product = tiny.open()
    others = tmp_path / "others"
    for number in range(40):
        (others / f"folder-{number}").mkdir(parents=True)
    assert product.layout is not None
    product.layout.runs.symlink_to(others)
    with pytest.raises(FloeDagsterError, match=r"it is a link\. Remove it"):
        product.new_run_dir("run", "dev")
    assert len([*others.iterdir()]) == 40


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch pwned']",
        "name: !!python/object/new:os.system ['touch pwned']",
        "a: &a [x, x]\nb: &b [*a, *a]\nname: {{ 7 * 7 }}\n",
    ],
)
def test_yaml_runs_no_code(tiny: TinyProject, text: str) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    (tiny.directory / "floe.yaml").write_text(text)
    with pytest.raises(FloeDagsterError, match=r"Cannot read .*floe\.yaml: "):
        tiny.open()
    assert not (tiny.directory / "pwned").exists()
    assert not Path("pwned").exists()


def leaky(tiny: TinyProject) -> TinyProject:
    """Return a product with secrets in its environment, its profile and its URLs."""
    tiny.write(
        {
            "a": "select 1 as id",
            "b": "select nothing from {{ ref('a') }}",
            "profiles.yml": yaml.safe_dump(
                {
                    "tiny": {
                        "target": "other",
                        "outputs": {
                            "other": {
                                "type": "duckdb",
                                "path": "target/other.duckdb",
                                "config_options": {"custom_user_agent": SECRETS["CANARY_PROFILE"]},
                            }
                        },
                    }
                }
            ),
        }
    )
    tiny.compile(
        [{"name": "a"}, {"name": "b", "depends_on": ["a"]}],
        config={
            "url": f"http://user:{URL_SECRET}@127.0.0.1:9",
            "computes": {"duckdb": {"target": "dev"}},
        },
        outputs={
            "dev": {
                "type": "duckdb",
                "path": "target/tiny.duckdb",
                "config_options": {"custom_user_agent": "{{ env_var('CANARY_TOKEN') }}"},
            }
        },
    )
    return tiny


def test_planted_secrets_are_in_no_output_of_a_run(tiny: TinyProject, tmp_path: Path) -> None:
    directory = leaky(tiny).directory
    home = tmp_path / "home"
    home.mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    environment: Mapping[str, str] = {
        **os.environ,
        **SECRETS,
        "DAGSTER_HOME": str(home),
        "TMPDIR": str(temporary),
        "DAGSTER_URL": f"http://user:{URL_SECRET}@127.0.0.1:9",
    }
    sources = {directory / "profiles.yml", directory / "target" / "compiled_artifacts.json"}
    output = ""
    for words in (["check"], ["run", "--verbose", "--json"], ["connection"], ["prepare"]):
        done = subprocess.run(
            [str(BIN / "floe-dagster"), *words, str(directory)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=environment,
        )
        output += done.stdout + done.stderr
    assert "Connection refused" in output
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [run] = instance.get_runs()
        output += "".join(map(repr, instance.all_logs(run.run_id)))
        output += repr(run)
    assert "nothing" in output
    private = {path for path in files(temporary) if path.name == "profiles.yml"}
    assert private
    canaries = [*SECRETS.values(), URL_SECRET]
    assert not [canary for canary in canaries if canary in output]
    leaks = [
        (path, canary)
        for path in {*files(directory, home, temporary)} - sources - private
        for canary in canaries
        if canary.encode() in path.read_bytes()
    ]
    assert not leaks
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_private_directory_of_another_user_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from floe_orchestrator_dagster.files import private_dir

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"floe-dagster-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FloeDagsterError, match=r"not a directory that belongs to you\. Set TMPDIR"):
        private_dir("profiles", "key")
