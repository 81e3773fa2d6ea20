"""Changes of files, environment, vars, profiles and products take effect at the next load."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml

from floe_orchestrator_dagster import DagsterOrchestratorPlugin, load_product_definitions
from floe_orchestrator_dagster.cli.lineage import status as lineage_status
from floe_orchestrator_dagster.errors import PlanError, ProductError
from floe_orchestrator_dagster.product.image import image_context
from floe_orchestrator_dagster.product.launch_variables import with_launch_variables
from floe_orchestrator_dagster.product.opening import open_product
from floe_orchestrator_dagster.product.product import Product
from kit.support import BIN, DBT_PROJECT, TinyProject, materialized, run

TABLE = "{{ config(materialized='table') }}"


def opened(tiny: TinyProject, **options: Any) -> tuple[Product, int]:
    """Open a product; return it, and how often dbt parsed."""
    lines: list[str] = []
    product = open_product(tiny.directory, progress=lines.append, **options)
    return product, sum(line.startswith("Parsing") for line in lines)


def settings(tiny: TinyProject, **more: Any) -> None:
    """Write dbt_project.yml with more settings; `compile` writes it without them."""
    text = yaml.safe_dump(
        DBT_PROJECT | {name.replace("_", "-"): value for name, value in more.items()}
    )
    (tiny.directory / "dbt_project.yml").write_text(text)


def rows(tiny: TinyProject, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(tiny.database), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_changed_environment_variable_is_parsed_with_once_and_runs(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read by a node, by the project, and by a package, whose settings dbt itself does not watch.
    tiny.write(
        {
            "a": f"{TABLE} select '{{{{ env_var('AREA', 'none') }}}}' as area",
            "vendor/common/dbt_project.yml": "name: common\nversion: '1.0'\n"
            "models: {common: {+materialized: table, +schema: \"{{ env_var('ZONE', 'z0') }}\"}}\n",
            "vendor/common/models/b.sql": "select 1 as id",
            "packages.yml": "packages: [{local: vendor/common}]\n",
        }
    )
    tiny.compile([{"name": "a"}])
    settings(tiny, models={"tiny": {"+schema": "{{ env_var('PLACE', 'p0') }}"}})
    product, times = opened(tiny)
    assert times == 1
    assert opened(tiny)[1] == 0

    def relations(product: Product) -> dict[str, str | None]:
        return {node.name: node.relation for node in product.plan.assets.values()}

    assert relations(product) == {
        "a": '"tiny"."main_p0"."a"',
        "b": '"tiny"."main_z0"."b"',
    }
    monkeypatch.setenv("AREA", "north")
    monkeypatch.setenv("PLACE", "p1")
    monkeypatch.setenv("ZONE", "z1")
    product, times = opened(tiny)
    assert times == 1
    assert relations(product) == {
        "a": '"tiny"."main_p1"."a"',
        "b": '"tiny"."main_z1"."b"',
    }
    result = run(product, instance)
    assert result.success
    assert sorted(materialized(result)) == ["p1/a", "z1/b"]
    assert rows(tiny, "select area from main_p1.a") == [("north",)]
    assert opened(tiny)[1] == 0
    monkeypatch.delenv("AREA")
    assert opened(tiny)[1] == 1
    assert "north" not in "".join(path.read_text() for path in tiny.directory.rglob("parsed.json"))


def test_new_files_of_a_linked_package_are_built_and_tested(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(
        {
            "a": "select n from {{ ref('numbers') }}",
            "vendor/common/dbt_project.yml": "name: common\nversion: '1.0'\n",
            "vendor/common/models/numbers.sql": "select 1 as n",
            "packages.yml": "packages: [{local: vendor/common}]\n",
        }
    ).compile([{"name": "a"}])
    product, _ = opened(tiny)
    assert set(product.plan.assets) == {"model.tiny.a", "model.common.numbers"}
    tiny.write({"vendor/common/tests/no_one.sql": "select n from {{ ref('numbers') }} where n = 1"})
    product, times = opened(tiny)
    assert times == 1
    assert [node.name for node in product.plan.checks.values()] == ["no_one"]
    assert not run(product, instance).success


def test_settings_with_jinja_are_read_as_dbt_reads_them(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(
        {
            "sql/a.sql": "select 1 as id",
            "util/dbt_project.yml": "name: util\nversion: '1.0'\n",
            "packages.yml": "packages: [{local: util}]\n",
        }
    ).compile([{"name": "a"}], config={"vars": {"where": "sql"}})
    settings(
        tiny,
        target_path="{{ env_var('MY_TARGET', 'target') }}",
        packages_install_path="{{ env_var('MY_PACKAGES', 'dbt_packages') }}",
        model_paths=["{{ var('where') }}"],
    )
    monkeypatch.setenv("MY_TARGET", "built")
    product, _ = opened(tiny)
    assert product.layout is not None
    assert product.layout.own == tiny.directory / "built" / "floe"
    assert "model.tiny.a" in product.plan.assets
    assert sorted(path.name for path in tiny.directory.iterdir() if "{" in path.name) == []
    installed = (tiny.directory / "dbt_packages").stat().st_mtime_ns
    lines: list[str] = []
    open_product(tiny.directory, progress=lines.append)
    assert lines == []
    assert (tiny.directory / "dbt_packages").stat().st_mtime_ns == installed
    monkeypatch.setenv("DBT_TARGET_PATH", "chosen")
    layout = opened(tiny)[0].layout
    assert layout is not None
    assert layout.own == tiny.directory / "chosen" / "floe"


VARIED = {
    "root": "select '{{ var('day', 'none') }}' as day",
    "extra": "{{ config(enabled=var('with_extra', false)) }} select 1 as id",
}


def test_vars_of_the_configuration_decide_the_graph(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.write(VARIED).compile([{"name": "root"}], config={"vars": {"with_extra": True}})
    product, _ = opened(tiny)
    assert {node.name for node in product.plan.assets.values()} == {"root", "extra"}
    result = run(product, instance)
    assert result.success
    assert sorted(materialized(result)) == ["extra", "root"]


def test_a_launch_whose_vars_change_the_graph_is_refused_before_it_starts(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(VARIED).compile([{"name": "root"}])
    product, _ = opened(tiny)
    assert set(product.plan.assets) == {"model.tiny.root"}
    lines: list[str] = []
    with pytest.raises(ProductError) as caught:
        with_launch_variables(product, {"with_extra": True}, lines.append)
    assert str(caught.value) == (
        "Cannot run product 'tiny' with these vars (with_extra): they change the graph that "
        "Dagster has loaded. Only with these vars: extra. To use these vars, set `vars` in "
        "plugins.orchestrator.config of manifest.yaml, compile again and reload the code location. "
        "Or run the product without a server, with `floe-dagster run --vars`."
    )
    assert len(lines) == 1
    # Vars that are only printed cannot change the graph, and neither can unchanged vars.
    assert with_launch_variables(product, {"day": "2026-01-01"}, lines.append) is product
    assert with_launch_variables(product, {}, lines.append) is product
    same = with_launch_variables(product, {"with_extra": False}, lines.append)
    assert same.plan.nodes == product.plan.nodes
    assert same.variables == {"with_extra": False}
    assert len(lines) == 2
    # The command line parses with these vars, once per set of vars.
    assert {
        n.name for n in opened(tiny, variables={"with_extra": True})[0].plan.assets.values()
    } == {
        "root",
        "extra",
    }
    assert opened(tiny, variables={"with_extra": True})[1] == 0
    assert opened(tiny)[1] == 0
    # An image contains no manifests for the vars of a launch.
    monkeypatch.setenv("FLOE_PREPARED", "1")
    assert len(opened(tiny, variables={"with_extra": True})[0].plan.assets) == 2


PROFILES = {
    "target": "two",
    "outputs": {
        name: {"type": "duckdb", "path": f"target/{name}.duckdb"}
        for name in ("one", "two", "three")
    },
}


def default_target(tiny: TinyProject) -> str:
    product, _ = opened(tiny)
    return product.plan.computes[product.plan.default_compute].target


def test_the_profile_decides_when_several_outputs_fit(
    tiny: TinyProject, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    # dbt's order: DBT_PROFILES_DIR, the project, the home directory.
    for folder, target in ((home / ".dbt", "two"), (tiny.directory, "three"), (home / "x", "one")):
        folder.mkdir(exist_ok=True)
        (folder / "profiles.yml").write_text(
            yaml.safe_dump({"tiny": PROFILES | {"target": target}})
        )
    monkeypatch.setenv("DBT_PROFILES_DIR", str(home / "x"))
    assert default_target(tiny) == "one"
    monkeypatch.delenv("DBT_PROFILES_DIR")
    assert default_target(tiny) == "three"
    (tiny.directory / "profiles.yml").unlink()
    assert default_target(tiny) == "two"
    jinja = PROFILES | {"target": "{{ env_var('CHOSEN', 'one') }}"}
    (home / ".dbt" / "profiles.yml").write_text(yaml.safe_dump({"tiny": jinja}))
    assert default_target(tiny) == "one"
    monkeypatch.setenv("CHOSEN", "three")
    assert default_target(tiny) == "three"
    monkeypatch.setenv("DBT_TARGET", "two")
    assert default_target(tiny) == "two"
    monkeypatch.setenv("DBT_TARGET", "tow")
    with pytest.raises(ProductError) as caught:
        opened(tiny)
    assert (
        "DBT_TARGET is 'tow', but profile 'tiny' has no such output. Did you mean 'two'? Outputs: "
        "dev, one, three, two. Correct it, or unset it." in str(caught.value)
    )


def test_a_compiled_database_in_memory_gives_way_to_the_projects_own(tiny: TinyProject) -> None:
    own = {
        "tiny": {
            "target": "dev",
            "outputs": {"dev": {"type": "duckdb", "path": "target/own.duckdb"}},
        }
    }
    tiny.write({"a": "select 1 as id", "profiles.yml": yaml.safe_dump(own)})
    tiny.compile([{"name": "a"}], outputs={"dev": {"type": "duckdb", "path": ":memory:"}})
    product, _ = opened(tiny)
    assert product.profiles_dir is not None
    written = yaml.safe_load((product.profiles_dir / "profiles.yml").read_text())
    assert written["tiny"]["outputs"]["dev"]["path"] == "target/own.duckdb"


def test_a_deferral_through_dbts_own_variables_reads_production(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(
        {"up": f"{TABLE} select 7 as id", "down": f"{TABLE} select id from {{{{ ref('up') }}}}"}
    )
    tiny.compile([{"name": "up"}, {"name": "down"}])
    settings(tiny, models={"+schema": "{{ env_var('STAGE', 'dev') }}"})
    monkeypatch.setenv("STAGE", "prod")
    product, _ = opened(tiny)
    assert run(product, instance, select=["prod/up"]).success
    state = tiny.directory / "state"
    state.mkdir()
    [manifest] = product.manifest_paths.values()
    shutil.copy(manifest, state)
    monkeypatch.setenv("STAGE", "dev")
    monkeypatch.setenv("DBT_DEFER", "1")
    monkeypatch.setenv("DBT_STATE", "state")
    product, _ = opened(tiny)
    assert run(product, instance, select=["dev/down"]).success
    assert rows(tiny, "select id from main_dev.down") == [(7,)]


def test_checks_that_the_environment_excludes_are_not_planned(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write({"a": "select 1 as id", "tests/never.sql": "select id from {{ ref('a') }}"})
    tiny.compile([{"name": "a"}])
    settings(tiny, flags={"send_anonymous_usage_stats": False, "write_json": False})
    monkeypatch.setenv("DBT_WRITE_JSON", "false")
    product, _ = opened(tiny)
    assert len(product.plan.checks) == 1
    assert not run(product, instance).success
    monkeypatch.setenv("DBT_EXCLUDE_RESOURCE_TYPES", "test unit_test")
    product, times = opened(tiny)
    assert times == 0
    assert len(product.plan.checks) == 0
    result = run(product, instance)
    assert result.success
    assert materialized(result) == ["a"]
    monkeypatch.setenv("DBT_EXCLUDE_RESOURCE_TYPES", "model")
    result = run(opened(tiny)[0], instance)
    assert materialized(result) == ["a"]


def test_a_project_for_another_dbt_is_refused_with_dbts_words(tiny: TinyProject) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    settings(tiny, require_dbt_version=">=99.0.0")
    with pytest.raises(ProductError, match="This version of dbt is not supported"):
        opened(tiny)


def through_plugin(tiny: TinyProject) -> None:
    artifacts = json.loads((tiny.directory / "target" / "compiled_artifacts.json").read_text())
    DagsterOrchestratorPlugin().create_definitions(artifacts)


DOORS: Mapping[str, Callable[[TinyProject], object]] = {
    "plugin": through_plugin,
    "loader": lambda tiny: load_product_definitions("tiny", tiny.directory / "target"),
    "image": lambda tiny: image_context(tiny.directory, None, print),
    "lineage": lambda tiny: lineage_status(tiny.directory, as_json=True),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_looks_for_the_project_in_the_same_order(
    door: str, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first place that is set decides, even if only a later one has a project."""
    tiny.write({"a": "select 1 as id"})
    monkeypatch.chdir(tiny.directory)
    monkeypatch.setenv("FLOE_PROJECT_DIR", str(tiny.directory))
    tiny.compile([{"name": "a"}], config={"project_dir": "/configured"})
    with pytest.raises(ProductError) as caught:
        DOORS[door](tiny)
    assert str(caught.value).startswith(
        "Cannot find the dbt project of product 'tiny': project_dir in plugins.orchestrator.config "
        "is /configured, which has no dbt_project.yml. "
    )
    tiny.compile([{"name": "a"}])
    monkeypatch.setenv("FLOE_PROJECT_DIR", "/environment")
    with pytest.raises(ProductError, match="product 'tiny': FLOE_PROJECT_DIR is /environment, "):
        DOORS[door](tiny)


def test_the_project_of_the_plugins_constructor_decides(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write({"a": "select 1 as id"})
    tiny.compile([{"name": "a"}], config={"project_dir": str(tiny.directory)})
    monkeypatch.setenv("FLOE_PROJECT_DIR", str(tiny.directory))
    artifacts = json.loads((tiny.directory / "target" / "compiled_artifacts.json").read_text())
    plugin = DagsterOrchestratorPlugin(project_dir="/given")
    with pytest.raises(ProductError, match="project_dir of the plugin's constructor is /given, "):
        plugin.create_definitions(artifacts)
    tiny.compile([{"name": "a"}], config={"project_dir": "/configured"})
    artifacts = json.loads((tiny.directory / "target" / "compiled_artifacts.json").read_text())
    plugin = DagsterOrchestratorPlugin(project_dir=tiny.directory)
    assert len([*(plugin.create_definitions(artifacts).assets or ())]) == 1


def test_a_project_of_another_product_is_refused(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.spec = {"metadata": {"name": "shop"}, "schedule": {"cron": "0 6 * * *"}}
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    (tiny.directory / "dbt_project.yml").write_text(
        yaml.safe_dump(DBT_PROJECT | {"name": "shop", "profile": "shop"})
    )
    path = tiny.directory / "target" / "compiled_artifacts.json"
    artifacts = json.loads(path.read_text())
    monkeypatch.chdir(tiny.directory)
    plugin = DagsterOrchestratorPlugin()
    with pytest.raises(ProductError) as caught:
        plugin.create_definitions(artifacts)
    message = str(caught.value)
    assert message.startswith(
        f"Cannot load product 'tiny' on the dbt project in {tiny.directory}: that project belongs "
        f"to product 'shop' ({tiny.directory / 'floe.yaml'}). Compile 'tiny' again with its own "
        "floe.yaml. "
    )
    assert "set FLOE_PROJECT_DIR" in message
    with pytest.raises(ProductError, match="that project belongs to product 'shop'"):
        opened(tiny)
    # A project that the user names may be shared, but the other product's schedule does not apply.
    named = DagsterOrchestratorPlugin(project_dir=tiny.directory)
    assert [*(named.create_definitions(artifacts).schedules or ())] == []
    assert (
        f"{tiny.directory / 'floe.yaml'} belongs to product 'shop': its schedule and owner are not "
        "used for 'tiny'." in caplog.text
    )
    # With its own spec next to the other one.
    own = {"metadata": {"name": "tiny"}, "schedule": {"cron": "0 7 * * *"}}
    tiny.write({"floe-tiny.yaml": yaml.safe_dump(own)})
    [schedule] = plugin.create_definitions(artifacts).schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.cron_schedule == "0 7 * * *"


def test_a_project_without_a_spec_or_the_products_name_must_have_its_models(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    path = tiny.directory / "target" / "compiled_artifacts.json"
    (tiny.directory / "dbt_project.yml").write_text(
        yaml.safe_dump(DBT_PROJECT | {"name": "shop", "profile": "shop"})
    )
    monkeypatch.chdir(tiny.directory)
    plugin = DagsterOrchestratorPlugin()
    artifacts = json.loads(path.read_text())
    assert len([*(plugin.create_definitions(artifacts).assets or ())]) == 1
    elsewhere = json.loads(path.read_text())
    elsewhere["transforms"]["models"][0]["name"] = "not_here"
    with pytest.raises(PlanError, match="not_here"):
        plugin.create_definitions(elsewhere)
    elsewhere["transforms"] = None
    assert [*(plugin.create_definitions(elsewhere).assets or ())] == []
    assert "is not used: nothing shows that it belongs to product 'tiny'" in caplog.text


def test_artifacts_of_a_newer_version_cause_one_warning(
    tiny: TinyProject, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.write({"a": "select 1 as id"}).compile([{"name": "a"}])
    path = tiny.directory / "target" / "compiled_artifacts.json"
    artifacts = json.loads(path.read_text())
    known = artifacts["version"]
    opened(tiny)
    assert "have version" not in caplog.text
    path.write_text(json.dumps(artifacts | {"version": "99.0.0"}))
    for _ in range(2):
        caplog.clear()
        opened(tiny)
        assert caplog.text.count("The compiled artifacts have version 99.0.0; floe-core ") == 1
        assert f"knows versions up to {known} and ignores newer fields." in caplog.text


def test_a_build_context_needs_no_other_files(
    tiny: TinyProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("base")
    shop = TinyProject(base / "shop", tiny.template)
    shop.write(
        {
            "a": "select * from {{ ref('numbers') }} join {{ ref('shared') }} using (n)",
            "not_ours": "select nothing_like_it(",
            ".dbtignore": "not_ours.sql\n",
            ".env": "PASSWORD=hunter2",
            "packages.yml": "packages: [{local: ../common}]\n",
            "../common/dbt_project.yml": "name: common\nversion: '1.0'\n",
            "../common/models/numbers.sql": "select 1 as n",
            "../common/target/secret.txt": "hunter2",
            "../shared/models/shared.sql": "select 1 as n",
        }
    )
    shop.compile([{"name": "a"}])
    settings(shop, model_paths=["models", "../shared/models"])
    out = tmp_path_factory.mktemp("out")
    command("build-context", str(shop.directory), "--output", str(out))
    shutil.rmtree(base)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        "Dockerfile",
        "requirements.txt",
        "app/.dbtignore",
        "app/dbt_project.yml",
        "app/dbt_packages/common/dbt_project.yml",
        "app/dbt_packages/common/models/numbers.sql",
        "app/models/a.sql",
        "app/package-lock.yml",
        "app/packages.yml",
        "app/target/compiled_artifacts.json",
        "app/target/definitions.py",
        "shared/models/shared.sql",
    }
    lines = (out / "Dockerfile").read_text().splitlines()
    assert lines[lines.index("COPY app /app") + 1] == "COPY shared /shared"
    assert (
        lines[lines.index("COPY --from=build /app /app") + 1] == "COPY --from=build /shared /shared"
    )
    command("prepare", str(out / "app"))
    prepared = json.loads((out / "app/target/floe/dev/manifest.json").read_text())
    assert set(prepared["nodes"]) == {"model.common.numbers", "model.tiny.a", "model.tiny.shared"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"packages.yml": "packages: [{git: 'https://me:hunter2@example.com/p.git'}]"},
            "packages.yml: it contains secrets, at packages.0.git.",
        ),
        (
            {"../../far/models/x.sql": "select 1 as id", "model-paths": "../../far/models"},
            "the image cannot keep its place relative to",
        ),
    ],
)
def test_files_that_cannot_be_packaged_are_refused(
    tiny: TinyProject,
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, str],
    words: str,
) -> None:
    shop = TinyProject(tmp_path_factory.mktemp("base") / "products" / "shop", tiny.template)
    shop.write(
        {"a": "select 1 as id"} | {name: text for name, text in files.items() if "." in name}
    )
    shop.compile([{"name": "a"}])
    settings(shop, model_paths=["models", files.get("model-paths", "models")])
    out = str(tmp_path_factory.mktemp("out") / "context")
    error = command("build-context", str(shop.directory), "--output", out, code=3).stderr
    assert words in error
    assert "hunter2" not in error


def command(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line as a shell would."""
    done = subprocess.run(
        [str(BIN / "floe-dagster"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done
