"""`floe-dagster helm-values` and `build-context` work as a shell calls them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from floe_orchestrator_dagster.deploy.official import official_values
from floe_orchestrator_dagster.deploy.sizes import SIZES
from floe_orchestrator_dagster.deploy.values import helm_values
from kit.support import BIN, TinyProject


def command(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(BIN / "floe-dagster"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def product(tiny: TinyProject) -> TinyProject:
    """A product of one model on a DuckDB file, whose compute requests resources."""
    config = {"workload_size": "medium", "computes": {"duckdb": {"resources": "large"}}}
    return tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}], config=config)


def test_values_of_each_size_and_chart_are_printed() -> None:
    for size in SIZES:
        assert yaml.safe_load(command("helm-values", "--size", size).stdout) == helm_values(size)
    official = command("helm-values", "--size", "large", "--chart", "dagster", "--json").stdout
    assert json.loads(official) == official_values("large")
    assert "&id" not in command("helm-values", "--size", "small").stdout


def test_values_of_a_product_come_from_its_config(product: TinyProject) -> None:
    words = ("helm-values", str(product.directory), "--image", "tiny:1.0")
    values = yaml.safe_load(command(*words).stdout)
    assert values["dagster-webserver"]["resources"]["limits"]["memory"] == "1Gi"
    assert values["runs"]["resources"]["limits"]["memory"] == "8Gi"
    [deployment] = values["dagster-user-code"]["deployments"]
    assert deployment == {"name": "tiny", "image": {"repository": "tiny", "tag": "1.0"}}
    database = ("--database-host", "db", "--database-secret", "mine")
    assert yaml.safe_load(command(*words, *database).stdout)["postgresql"]["external"] == {
        "host": "db",
        "existingSecret": "mine",
    }


def test_values_are_written_to_a_file_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    words = ("helm-values", "--size", "small")
    assert f"Wrote {file}." in command(*words, "--output", str(file)).stderr
    assert list(tmp_path.iterdir()) == [file]
    same = command(*words, "--diff", str(file))
    assert same.stdout.strip() == ""
    # Comments and the order of keys do not count as a difference.
    mixed = yaml.safe_dump(yaml.safe_load(file.read_text()), sort_keys=True)
    file.write_text("# mine\n" + mixed.replace("cpu: 500m", "cpu: 750m"))
    diff = command(*words, "--diff", str(file), code=1).stdout
    assert "-      cpu: 750m" in diff
    assert "+      cpu: 500m" in diff
    assert (
        json.loads(command(*words, "--diff", str(file), "--json", code=1).stdout)["equal"] is False
    )


def test_wrong_usage_is_explained(tmp_path: Path, product: TinyProject) -> None:
    assert "name its directory too" in command("helm-values", "--image", "a:1", code=2).stderr
    assert "go together" in command("helm-values", "--database-host", "db", code=2).stderr
    message = command("helm-values", str(product.directory), "--image", "tiny", code=2).stderr
    assert "is not an image with a tag or a digest" in " ".join(message.split())
    missing = str(tmp_path / "none.yaml")
    assert f"Cannot find {missing}" in command("helm-values", "--diff", missing, code=3).stderr
    message = command("helm-values", "--output", "/proc/none/values.yaml", code=3).stderr
    assert "Cannot write /proc/none/values.yaml" in message


def test_a_context_is_minimal_and_reproducible(product: TinyProject, tmp_path: Path) -> None:
    product.write(
        {
            ".env": "PASSWORD=hunter2",
            "notes.txt": "mine",
            "logs/dbt.log": "hunter2",
            "models/schema.yml": "version: 2",
            "macros/m.sql": "{% macro m() %}{% endmacro %}",
        }
    )
    first, second = tmp_path / "first", tmp_path / "second.tar"
    source = str(product.directory)
    report = json.loads(command("build-context", source, "--output", str(first), "--json").stdout)
    assert report["files"] == [
        "Dockerfile",
        "app/dbt_project.yml",
        "app/macros/m.sql",
        "app/models/a.sql",
        "app/models/schema.yml",
        "app/target/compiled_artifacts.json",
        "app/target/definitions.py",
        "requirements.txt",
    ]
    written = {
        path.relative_to(first).as_posix(): path.read_bytes()
        for path in first.rglob("*")
        if path.is_file()
    }
    assert sorted(written) == report["files"]
    assert 'load_product_definitions("tiny"' in written["app/target/definitions.py"].decode()
    pins = written["requirements.txt"].decode().splitlines()
    assert {line.partition("==")[0] for line in pins} == {
        "dagster",
        "dagster-dbt",
        "dagster-k8s",
        "dagster-postgres",
        "dagster-webserver",
        "dbt-core",
        "dbt-duckdb",
        "floe-core",
        "floe-orchestrator-dagster",
    }
    assert all("==" in line for line in pins)
    # A later build from a copy elsewhere, with other file times, gives the same bytes.
    shutil.copytree(product.directory, tmp_path / "copy")
    again = command(
        "build-context", str(tmp_path / "copy"), "--output", str(second), "--json"
    ).stdout
    assert json.loads(again)["sha256"] == report["sha256"]
    with tarfile.open(second) as archive:
        assert archive.getnames() == report["files"]
        assert {(entry.mtime, entry.uid, entry.mode) for entry in archive} == {(0, 0, 0o644)}


def test_a_context_can_contain_wheels(product: TinyProject, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    words = ("--output", str(tmp_path / "out"), "--wheels", str(wheels), "--json")
    files = json.loads(command("build-context", str(product.directory), *words).stdout)["files"]
    assert "wheels/a-1-py3-none-any.whl" in files


def test_a_secret_in_a_profile_is_not_packaged(tiny: TinyProject, tmp_path: Path) -> None:
    password = {"type": "postgres", "host": "db", "password": "hunter2"}
    variable = {"type": "postgres", "host": "db", "password": "{{ env_var('PGPASSWORD') }}"}
    profiles = {"other": {"outputs": {"pg": password, "good": variable}}}
    tiny.write({"a": "select 1 as id", "profiles.yml": yaml.safe_dump(profiles)})
    tiny.compile([{"name": "a"}])
    out = tmp_path / "out"
    done = command("build-context", str(tiny.directory), "--output", str(out), code=3)
    assert "it contains secrets, at other.outputs.pg.password." in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert not out.exists()


def test_an_existing_directory_is_not_overwritten(product: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    words = ("build-context", str(product.directory), "--output", str(tmp_path / "out"))
    message = command(*words, code=3).stderr
    assert "it already exists and is not an empty directory. Name a new or empty" in message


def test_a_link_out_of_the_project_is_followed(
    product: TinyProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "shared.sql"
    outside.write_text("select 2 as id")
    (product.directory / "models" / "b.sql").symlink_to(outside)
    out = tmp_path / "out"
    command("build-context", str(product.directory), "--output", str(out))
    assert not (out / "app/models/b.sql").is_symlink()
    assert (out / "app/models/b.sql").read_text() == "select 2 as id"
