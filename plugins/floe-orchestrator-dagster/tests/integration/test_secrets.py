"""A failing run neither prints nor records a secret of the environment or the profile."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from floe_orchestrator_dagster.cli import main
from kit.support import TinyProject, cli_runner

OF_ENVIRONMENT, OF_PROFILE = "canary/of-env+0123", "canary/of-profile+4567"


def encodings(secret: str) -> list[str]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return [secret, quote(secret, safe=""), encoded]


@pytest.mark.parametrize("place", ["model", "hook", "test", "compilation"])
def test_a_failing_run_shows_no_secret(
    tiny: TinyProject,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DBT_ENV_SECRET_CANARY", OF_ENVIRONMENT)
    monkeypatch.setenv("PROFILE_CANARY", OF_PROFILE)
    secrets = [*encodings(OF_ENVIRONMENT), *encodings(OF_PROFILE)]
    cast = f"cast('{' '.join(secrets)}' as int)"
    broken = f"select {cast} as id"
    table = "{{ config(materialized='table') }}"
    files = {"a": f"{table} {broken if place == 'model' else 'select 1 as id'}"}
    if place == "test":
        files["tests/broken.sql"] = f"select * from {{{{ ref('a') }}}} where id = {cast}"
    if place == "compilation":
        raised = " ".join(secrets)
        files["a"] = (
            f"{{{{ exceptions.raise_compiler_error('{raised}') if execute }}}}select 1 as id"
        )
    output = {
        "type": "duckdb",
        "path": str(tiny.database),
        "settings": {"http_proxy_password": "{{ env_var('PROFILE_CANARY') }}"},
    }
    tiny.write(files).compile([], outputs={"dev": output})
    if place == "hook":
        project = tiny.directory / "dbt_project.yml"
        project.write_text(project.read_text() + f'on-run-end: ["{broken}"]\n')
    done = cli_runner().invoke(main, ["run", str(tiny.directory), "--verbose"])
    assert done.exit_code == 1, done.stderr
    assert "*****" in done.stdout
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
        for path in (path for path in home.rglob("*") if path.is_file()):
            assert secret.encode() not in path.read_bytes(), path
