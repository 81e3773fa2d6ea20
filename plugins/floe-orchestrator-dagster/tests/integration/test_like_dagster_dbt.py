"""Dagster sees no difference between a run by the plugin and a run by dagster-dbt."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
from dagster import AssetExecutionContext
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, dbt_assets

from floe_orchestrator_dagster.assets.specs import code_version
from floe_orchestrator_dagster.definitions.build import build_definitions
from floe_orchestrator_dagster.definitions.jobs import job_named
from floe_orchestrator_dagster.run.step import Host
from kit.support import BIN, TinyProject

FILES = {
    "a": "{{ config(materialized='table') }} select 1 as id union all select 2",
    "b": "select id from {{ ref('a') }}",
    "c": "{{ config(materialized='table') }} select b.id from {{ ref('b') }} b join {{ ref('s') }}"
    " s using (id) join {{ ref('a') }} a using (id)",
    "seeds/s.csv": "id\n1\n2\n",
    "models/t.yml": """
models:
  - name: a
    columns:
      - name: id
        data_tests: [not_null, {accepted_values: {values: [1], config: {severity: warn}}}]
  - {name: b, columns: [{name: id, data_tests: [{relationships: {to: ref('a'), field: id}}]}]}
""",
}
ASSETS = ("a", "b", "c", "report", "s")
CONDITIONS: Mapping[str, dg.AutomationCondition[Any]] = {
    "eager": dg.AutomationCondition.eager(),
    "on missing": dg.AutomationCondition.on_missing(),
    "any deps updated": dg.AutomationCondition.any_deps_updated(),
    "data version changed": dg.AutomationCondition.data_version_changed(),
    "code version changed": dg.AutomationCondition.code_version_changed(),
    "newly updated": dg.AutomationCondition.newly_updated(),
    "blocking checks": dg.AutomationCondition.all_deps_blocking_checks_passed()
    & dg.AutomationCondition.any_deps_updated(),
}
# Metadata about one run, which differs between two runs of the same code.
OF_A_RUN = {"Execution Duration", "invocation_id"}


@dataclass(frozen=True)
class Side:
    """One of the two sides: its Definitions and the prefix of its asset keys."""

    prefix: list[str]
    definitions: dg.Definitions

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([*self.prefix, asset])

    def conditioned(self, condition: dg.AutomationCondition[Any]) -> dg.Definitions:
        """Return the same assets with this condition."""
        assets = dg.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=condition),
            [
                item
                for item in self.definitions.assets or ()
                if isinstance(item, dg.AssetsDefinition)
            ],
        )
        return dg.Definitions(assets=assets, resources=self.definitions.resources)

    def build(
        self, instance: dg.DagsterInstance, names: Sequence[str] = ASSETS
    ) -> dg.ExecuteInProcessResult:
        return job_named(self.definitions, "everything").execute_in_process(
            instance=instance, asset_selection=[self.key(name) for name in names]
        )


def below(prefix: list[str]) -> dg.Definitions:
    """Return an asset of another op below a model, as users write it, and a job of all assets."""
    above = [dg.AssetKey([*prefix, name]) for name in ("b", "c")]  # a test of b blocks

    @dg.asset(name="report", key_prefix=prefix or None, deps=above)
    def report(context: AssetExecutionContext) -> None:
        """Check that this run built the upstream asset."""
        event = context.instance.get_latest_materialization_event(dg.AssetKey([*prefix, "c"]))
        assert event is not None
        assert event.run_id == context.run_id

    return dg.Definitions(assets=[report], jobs=[dg.define_asset_job("everything", "*")])


@pytest.fixture
def sides(tiny: TinyProject) -> tuple[Side, Side]:
    tiny.write(FILES).compile([{"name": name} for name in ("a", "b", "c")])
    product = tiny.open()
    [manifest] = product.manifest_paths.values()

    class Theirs(DagsterDbtTranslator):
        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            return super().get_asset_key(dbt_resource_props).with_prefix("theirs")

        def get_code_version(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
            """Return our code version, so that both sides get the same data version."""
            return code_version(product.plan.nodes[dbt_resource_props["unique_id"]])

    @dbt_assets(manifest=json.loads(manifest.read_text()), dagster_dbt_translator=Theirs())
    def models(context: AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        yield from dbt.cli(["build"], context=context).stream()

    dbt = DbtCliResource(
        project_dir=str(tiny.directory),
        profiles_dir=str(product.profiles_dir),
        dbt_executable=str(BIN / "dbt"),
    )
    theirs = dg.Definitions(assets=[models], resources={"dbt": dbt})
    ours = build_definitions(product, host=Host(echo=lambda _: None))
    return (
        Side([], dg.Definitions.merge(ours, below([]))),
        Side(["theirs"], dg.Definitions.merge(theirs, below(["theirs"]))),
    )


def last_shown(side: Side, instance: dg.DagsterInstance, name: str) -> dict[str, Any]:
    """Return the metadata of the last materialization, without entries that differ between runs."""
    record = instance.fetch_materializations(side.key(name), limit=1).records[0]
    materialization = record.asset_materialization
    assert materialization is not None
    metadata = {
        key: value.value
        for key, value in materialization.metadata.items()
        if key not in OF_A_RUN and not key.startswith("floe/")
    }
    prefix = "/".join([*side.prefix, ""]) if side.prefix else ""
    tags = {
        key.replace(f"/{prefix}", "/", 1): value
        for key, value in (materialization.tags or {}).items()
    }
    pointers = [tags.pop(key) for key in [*tags] if "input_event_pointer" in key]
    return {"metadata": metadata, "tags": tags, "inputs": len(pointers)}


def test_materializations_checks_and_versions(
    sides: tuple[Side, Side], instance: dg.DagsterInstance
) -> None:
    results = [side.build(instance) for side in sides]
    assert [result.success for result in results] == [True, True]
    ours, theirs = sides
    for name in ("a", "b", "c", "s"):
        mine, other = last_shown(ours, instance, name), last_shown(theirs, instance, name)
        # We may show more than dagster-dbt. Everything that dagster-dbt shows is equal.
        for part in ("metadata", "tags"):
            assert {key: mine[part].get(key) for key in other[part]} == other[part], name
        assert mine["inputs"] == other["inputs"], name
        version, provenance = (
            [dg_version(instance, side.key(name)) for side in sides],
            [
                materialization.tags["dagster/code_version"]
                for side in sides
                if (materialization := last(instance, side.key(name))).tags
            ],
        )
        assert version[0] == version[1]
        assert provenance[0] == provenance[1]

    def evaluated(number: int) -> dict[tuple[str, str], tuple[bool, str, Any]]:
        return {
            (item.asset_key.path[-1], item.check_name): (
                item.passed,
                item.severity.value,
                str(item.metadata.get("dagster_dbt/failed_row_count")),
            )
            for item in results[number].get_asset_check_evaluations()
        }

    assert evaluated(0) == evaluated(1)
    assert len(evaluated(0)) == 3
    order = [
        [event.asset_key.path[-1] for event in result.get_asset_materialization_events()]
        for result in results
    ]
    assert order[0][-1] == order[1][-1] == "report"
    assert sorted(order[0]) == sorted(order[1]) == sorted(ASSETS)


def last(instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.AssetMaterialization:
    materialization = instance.fetch_materializations(key, limit=1).records[0].asset_materialization
    assert materialization is not None
    return materialization


def dg_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    return (last(instance, key).tags or {}).get("dagster/data_version")


def test_dagster_shows_the_same_for_each_asset(
    sides: tuple[Side, Side], instance: dg.DagsterInstance
) -> None:
    """Compare the asset page: last run, last materialization, materialized partitions."""
    for side in sides:
        side.build(instance)
    for name in ("a", "b", "c", "s"):
        pages = []
        for side in sides:
            [record] = instance.get_asset_records([side.key(name)])
            entry = record.asset_entry
            pages.append(
                (
                    entry.last_materialization_record is not None,
                    entry.last_run_id == entry.last_materialization_record.run_id
                    if entry.last_materialization_record
                    else None,
                    instance.get_materialized_partitions(side.key(name)),
                )
            )
        assert pages[0] == pages[1]


# Dagster warns about its own beta parameter when it evaluates automation conditions.
@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_automation_conditions_request_the_same_assets(
    sides: tuple[Side, Side], instance: dg.DagsterInstance
) -> None:
    """Evaluate before a build, after a full one, one model again, nothing new, and parts again."""
    cursors: dict[tuple[str, int], Any] = {}
    requested: dict[str, list[set[str]]] = {name: [] for name in CONDITIONS}
    for names in (None, ASSETS, ("a",), None, ("b", "s")):
        for side in sides if names else ():
            side.build(instance, names or ())
        for name, condition in CONDITIONS.items():
            requested_now = []
            for number, side in enumerate(sides):
                result = dg.evaluate_automation_conditions(
                    side.conditioned(condition), instance, cursor=cursors.get((name, number))
                )
                cursors[name, number] = result.cursor
                requested_now.append(
                    {asset for asset in ASSETS if result.get_num_requested(side.key(asset))}
                )
            assert requested_now[0] == requested_now[1], (name, names)
            requested[name].append(requested_now[0])
    # All other conditions request an asset; otherwise the test would compare nothing.
    assert [name for name, rounds in requested.items() if not any(rounds)] == [
        "on missing",
        "code version changed",
    ]
