"""The plugin class: floe can load it, and its methods behave as documented."""

from __future__ import annotations

import subprocess
import sys
import uuid
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import dagster as dg
import pytest
from floe_core.lineage import LineageDataset, RunState
from floe_core.plugins.orchestrator import OrchestratorPlugin, TransformConfig
from floe_core.version_compat import FLOE_PLUGIN_API_VERSION, is_compatible

from floe_orchestrator_dagster import DagsterOrchestratorPlugin
from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.errors import PlanError, ProductError, ScheduleError
from floe_orchestrator_dagster.schedules import time_zones


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DagsterOrchestratorPlugin:
    monkeypatch.chdir(tmp_path)
    return DagsterOrchestratorPlugin()


def test_floe_finds_it_under_the_key_dagster() -> None:
    [point] = [e for e in entry_points(group="floe.orchestrators") if e.name == "dagster"]
    assert point.value == "floe_orchestrator_dagster:DagsterOrchestratorPlugin"
    assert issubclass(point.load(), OrchestratorPlugin)


def test_no_method_of_the_abc_is_left_abstract(plugin: DagsterOrchestratorPlugin) -> None:
    assert not type(plugin).__abstractmethods__
    assert plugin.name == "dagster"
    assert version("floe-orchestrator-dagster").startswith(plugin.version)
    assert is_compatible(plugin.floe_api_version, FLOE_PLUGIN_API_VERSION)
    assert plugin.get_config_schema() is PluginConfig
    assert plugin.tracer_name


def test_naming_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys; from floe_orchestrator_dagster import DagsterOrchestratorPlugin as P; P();"
        "print([m for m in ('dagster', 'dagster_dbt', 'dbt', 'msgspec', 'openlineage', 'httpx')"
        " if m in sys.modules])"
    )
    baseline = "import sys; import floe_core.plugins.orchestrator;" + code.partition("P();")[2]
    ours, theirs = (
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout
        for c in (code, baseline)
    )
    assert ours == theirs


def test_resource_presets_are_those_of_the_requirements(plugin: DagsterOrchestratorPlugin) -> None:
    spec = plugin.get_resource_requirements("medium")
    assert (spec.cpu_request, spec.memory_request) == ("250m", "512Mi")
    assert (spec.cpu_limit, spec.memory_limit) == ("1000m", "1Gi")
    with pytest.raises(ValueError, match=r"'huge'. Sizes: large, medium, small\."):
        plugin.get_resource_requirements("huge")


def test_helm_values_follow_the_configured_size(plugin: DagsterOrchestratorPlugin) -> None:
    assert set(plugin.get_helm_values()) == {
        "dagster-webserver",
        "dagster-daemon",
        "dagster-user-code",
        "postgresql",
    }
    plugin.configure(PluginConfig(workload_size="large"))
    limits = plugin.get_helm_values()["dagster-user-code"]["resources"]["limits"]
    assert limits == {"cpu": "4000m", "memory": "8Gi"}


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("61 * * * *", "UTC", "cron '61 * * * *' is not one that Dagster accepts"),
        ("@reboot", "UTC", "cron '@reboot' is not one that Dagster accepts"),
        ("0 0 31 4 *", "UTC", "cron '0 0 31 4 *' never occurs"),
        ("*/70 * * * *", "UTC", "steps by 70 in a field of 60 values"),
        ("R R * * *", "UTC", "contains random times (R)"),
        ("0 6 * * *", "Europe/Wien", "'Europe/Wien' is not an IANA time zone."),
        ("0 6 * * *", "Europe/Viena", "Did you mean 'Europe/Vienna'?"),
        ("0 6 * * *", "", "'' is not an IANA time zone."),
    ],
)
def test_a_schedule_that_dagster_cannot_run_is_refused(
    plugin: DagsterOrchestratorPlugin, cron: str, timezone: str, message: str
) -> None:
    with pytest.raises(ScheduleError) as error:
        plugin.schedule_job("shop", cron, timezone)
    assert message in str(error.value)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("zone", "near"),
    [
        ("Factory", None),
        ("localtime", None),
        ("posixrules", None),
        ("right/UTC", "Etc/UTC"),
        ("posix/Europe/Vienna", "Europe/Vienna"),
        ("europe/vienna", "Europe/Vienna"),
        ("UTC ", "UTC"),
        ("CEST", None),
        ("+02:00", None),
        (" ", None),
        (None, None),
        (["UTC"], None),
    ],
)
def test_a_name_that_is_not_an_iana_zone_is_refused(
    plugin: DagsterOrchestratorPlugin, zone: Any, near: str | None
) -> None:
    with pytest.raises(ScheduleError) as error:
        plugin.schedule_job("shop", "@daily", zone)
    message = str(error.value)
    assert message.startswith(f"Cannot use schedule_job(): {zone!r} is not an IANA time zone. ")
    assert near is None or f"Did you mean '{near}'?" in message


def test_dagster_accepts_every_zone_that_we_accept() -> None:
    zones = time_zones()
    assert {"UTC", "Europe/Vienna", "Etc/GMT+5", "EST5EDT", "Asia/Kathmandu"} <= zones
    assert zones >= {zone for zone in available_timezones() if "/" in zone}
    for zone in sorted(zones):
        dg.ScheduleDefinition(
            name="s", cron_schedule="@daily", job_name="j", execution_timezone=zone
        )


@pytest.mark.parametrize("name", [None, "", "  ", 7, ["shop"]])
def test_a_schedule_without_a_job_is_refused(plugin: DagsterOrchestratorPlugin, name: Any) -> None:
    with pytest.raises(ValueError, match="is not the name of a job") as error:
        plugin.schedule_job(name, "@daily", "UTC")
    assert str(error.value).startswith(f"Cannot use schedule_job(): {name!r} is not")


def test_all_problems_of_a_schedule_are_reported_at_once(
    plugin: DagsterOrchestratorPlugin,
) -> None:
    with pytest.raises(ScheduleError) as error:
        plugin.schedule_job("", "99 * * * *", "Factory")
    for message in ("'' is not the name of a job", "'Factory' is not an IANA", "cron '99 * * * *'"):
        assert message in str(error.value)
    with pytest.raises(ScheduleError, match="cron None is not a string of five fields"):
        plugin.schedule_job("shop", None, "UTC")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "description"),
    [
        (None, "got None."),
        ([], "got a list of 0."),
        ("target/compiled_artifacts.json", "got a str."),
        (Path("target"), f"got a {type(Path()).__name__}."),
        (5, "got 5."),
    ],
)
def test_a_value_that_is_not_artifacts_is_refused_with_a_remedy(
    plugin: DagsterOrchestratorPlugin, value: Any, description: str
) -> None:
    with pytest.raises(ValueError, match="Cannot create Definitions") as error:
        plugin.create_definitions(value)
    assert isinstance(error.value, PlanError)
    [problem] = error.value.problems
    assert problem.path == "artifacts"
    assert problem.message == f"Expected a dictionary, {description}"
    assert "load_product_definitions(name, directory)" in problem.fix


def test_an_empty_dictionary_is_refused_with_the_missing_fields(
    plugin: DagsterOrchestratorPlugin,
) -> None:
    with pytest.raises(ValueError, match="metadata: Field required"):
        plugin.create_definitions({})


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        (None, ["transforms: Expected a list of transforms, got None."]),
        ("a", ["transforms: Expected a list of transforms, got a str."]),
        ({"a": 1}, ["transforms: Expected a list of transforms, got a dict."]),
        (TransformConfig("a"), ["transforms: Expected a list of transforms, got a TransformConf"]),
        (
            [TransformConfig("a"), None, "b", TransformConfig(" "), TransformConfig("c", tags="x")],  # type: ignore[arg-type]
            [
                "transforms[1]: Expected a TransformConfig, got None.",
                "transforms[2]: Expected a TransformConfig, got a str.",
                "transforms[3].name: ' ' is not a name.",
                "transforms[4].tags: 'x' is not a list of strings.",
            ],
        ),
        ([TransformConfig("a")] * 2, ["transforms.models[1].name: Duplicate name 'a' (first at"]),
    ],
)
def test_a_value_that_is_not_a_list_of_transforms_is_refused(
    plugin: DagsterOrchestratorPlugin, value: Any, problems: list[str]
) -> None:
    with pytest.raises(ValueError, match="Cannot ") as error:
        plugin.create_assets_from_transforms(value)
    assert isinstance(error.value, PlanError)
    assert len(error.value.problems) == len(problems)
    for problem, start in zip(error.value.problems, problems, strict=True):
        assert str(problem).startswith(start)


def test_any_iterable_of_transforms_is_accepted(plugin: DagsterOrchestratorPlugin) -> None:
    [asset] = plugin.create_assets_from_transforms(  # type: ignore[arg-type]
        TransformConfig(name) for name in "a"
    )
    assert asset.key == dg.AssetKey("a")


@pytest.mark.parametrize("cron", ["0 6 * * MON-FRI", "@daily", "0 0 29 2 *", "*/15 * * * *"])
def test_a_schedule_that_dagster_can_run_is_accepted(
    plugin: DagsterOrchestratorPlugin, cron: str
) -> None:
    plugin.schedule_job("shop", cron, "Europe/Vienna")


def test_the_entry_point_file_is_small_and_written_whole(
    plugin: DagsterOrchestratorPlugin, tmp_path: Path
) -> None:
    path = Path(plugin.generate_entry_point_code("customer-360", str(tmp_path / "out")))
    assert path == tmp_path / "out" / "definitions.py"
    assert 'load_product_definitions("customer-360", Path(__file__).parent)' in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["definitions.py"]
    compile(path.read_text(), str(path), "exec")


@pytest.mark.parametrize("name", ["", "Shop", "a b", 'x")\nimport os', "../up", "a" * 64])
def test_a_product_name_that_floe_refuses_is_not_written(
    plugin: DagsterOrchestratorPlugin, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="is not a valid product name"):
        plugin.generate_entry_point_code(name, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_unwritable_directory_is_reported(
    plugin: DagsterOrchestratorPlugin, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProductError, match=r"Cannot write .*definitions\.py: File exists\."):
        plugin.generate_entry_point_code("shop", str(tmp_path / "file"))


def test_transforms_become_one_asset_each_and_load(plugin: DagsterOrchestratorPlugin) -> None:
    assets = plugin.create_assets_from_transforms(
        [
            TransformConfig(
                "stg",
                path="models/stg.sql",
                schema_name="staging",
                materialization="view",
                depends_on=["raw"],
                tags=["daily", "layer:gold"],
            ),
            TransformConfig("dim", depends_on=["stg"], compute="spark"),
        ]
    )
    assert [asset.key.to_user_string() for asset in assets] == ["stg", "dim"]
    dg.Definitions.validate_loadable(dg.Definitions(assets=assets))
    [stg] = assets[0].specs
    assert [dep.asset_key.to_user_string() for dep in stg.deps] == ["raw"]
    assert stg.metadata["floe/schema"] == "staging"
    assert stg.tags["daily"] == ""
    assert stg.tags["layer"] == "gold"
    assert {"dbt", "spark"} <= {*next(iter(assets[1].specs)).kinds}


def test_transforms_without_a_project_fail_with_a_remedy_when_materialized(
    plugin: DagsterOrchestratorPlugin,
) -> None:
    assets = plugin.create_assets_from_transforms([TransformConfig("a")])
    result = dg.materialize(assets, raise_on_error=False)
    [failed] = [event for event in result.all_events if event.is_step_failure]
    assert "Set FLOE_PROJECT_DIR" in failed.step_failure_data.error_display_string


def test_transforms_that_contradict_each_other_are_refused(
    plugin: DagsterOrchestratorPlugin,
) -> None:
    with pytest.raises(PlanError) as error:
        plugin.create_assets_from_transforms(
            [
                TransformConfig("a", depends_on=["b"]),
                TransformConfig("b", depends_on=["a"]),
                TransformConfig("b"),
            ]
        )
    assert "Duplicate name 'b'" in str(error.value)
    assert "Circular dependency: " in str(error.value)


def test_lineage_without_a_backend_is_a_quiet_no_op(plugin: DagsterOrchestratorPlugin) -> None:
    run_id = uuid.uuid4()
    outputs = [LineageDataset(namespace="n", name="d")]
    assert plugin.emit_lineage_event(RunState.START, "j", run_id=run_id, outputs=outputs) == run_id
    assert isinstance(plugin.emit_lineage_event(RunState.COMPLETE, "j"), uuid.UUID)
    assert plugin.get_lineage_emitter() is None
    assert plugin.sensor_definition() is None


def test_a_refused_connection_reports_the_request(plugin: DagsterOrchestratorPlugin) -> None:
    plugin.configure(PluginConfig(url="http://user:hunter2@localhost:1"))
    result = plugin.validate_connection()
    assert not result.success
    [error] = result.errors
    assert error.startswith("POST http://localhost:1/graphql (url in plugins.")
    assert "hunter2" not in error
    assert plugin.health_check(timeout=1).state.value == "unhealthy"
