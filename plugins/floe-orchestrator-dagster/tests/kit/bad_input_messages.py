"""The exact words that each broken product of test_bad_input.py gets; DIR is its directory."""

from __future__ import annotations

MESSAGES = {
    "artifacts_missing": "Cannot find compiled_artifacts.json in DIR, its target folder or its "
    "parents. Create it with `floe platform compile --spec floe.yaml --manifest "
    "manifest.yaml --output target/compiled_artifacts.json "
    "--generate-definitions`.",
    "artifacts_empty": "Cannot read DIR/target/compiled_artifacts.json: it is not JSON (line 1, "
    "column 1: Expecting value); it may be truncated. Compile again with `floe platform "
    "compile --spec floe.yaml --manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.",
    "artifacts_truncated": "Cannot read DIR/target/compiled_artifacts.json: it is not JSON (line 1, "
    "column 196: Unterminated string starting at); it may be truncated. "
    "Compile again with `floe platform compile --spec floe.yaml --manifest "
    "manifest.yaml --output target/compiled_artifacts.json "
    "--generate-definitions`.",
    "artifacts_not_utf8": "Cannot read DIR/target/compiled_artifacts.json: not UTF-8 at byte 14. "
    "Compile again with `floe platform compile --spec floe.yaml --manifest "
    "manifest.yaml --output target/compiled_artifacts.json "
    "--generate-definitions`.",
    "artifacts_a_list": "Cannot read DIR/target/compiled_artifacts.json: it does not contain floe's "
    "compiled artifacts. Compile again with `floe platform compile --spec floe.yaml "
    "--manifest manifest.yaml --output target/compiled_artifacts.json "
    "--generate-definitions`.",
    "artifacts_nested_too_deeply": "Cannot read DIR/target/compiled_artifacts.json: it is nested too "
    "deeply. Compile again with `floe platform compile --spec "
    "floe.yaml --manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.",
    "artifacts_huge": "Cannot read DIR/target/compiled_artifacts.json: it has 314,572,800 bytes, "
    "and the limit is 268,435,456. Compile again with `floe "
    "platform compile --spec floe.yaml --manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.",
    "artifacts_a_directory": "Cannot find compiled_artifacts.json in DIR, its target folder or its "
    "parents. Create it with `floe platform compile --spec floe.yaml "
    "--manifest manifest.yaml --output target/compiled_artifacts.json "
    "--generate-definitions`.",
    "artifacts_of_another_shape": "Cannot plan product 'tiny': 6 problems.\n"
    "  1. metadata.compiled_at: Field required. Compile again with "
    "`floe platform compile --spec floe.yaml --manifest manifest.yaml "
    "--output target/compiled_artifacts.json "
    "--generate-definitions`.\n"
    "  2. metadata.floe_version: Field required. Compile again with "
    "`floe platform compile --spec floe.yaml --manifest manifest.yaml "
    "--output target/compiled_artifacts.json "
    "--generate-definitions`.\n"
    "  3. metadata.source_hash: Field required. Compile again with "
    "`floe platform compile --spec floe.yaml --manifest manifest.yaml "
    "--output target/compiled_artifacts.json "
    "--generate-definitions`.\n"
    "  4. metadata.product_version: Field required. Compile again "
    "with `floe platform compile --spec floe.yaml --manifest "
    "manifest.yaml --output target/compiled_artifacts.json "
    "--generate-definitions`.\n"
    "  5. identity: Field required. Compile again with `floe platform "
    "compile --spec floe.yaml --manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.\n"
    "  6. observability: Field required. Compile again with `floe "
    "platform compile --spec floe.yaml --manifest manifest.yaml "
    "--output target/compiled_artifacts.json --generate-definitions`.",
    "artifacts_with_an_unknown_field": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. surprise: Extra inputs are not permitted. Compile "
    "again with `floe platform compile --spec floe.yaml "
    "--manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.",
    "artifacts_with_a_bad_version": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. version: String should match pattern "
    "'^\\d+\\.\\d+\\.\\d+$'. Compile again with `floe platform "
    "compile --spec floe.yaml --manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.",
    "artifacts_with_no_models": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models: List should have at least 1 item after "
    "validation, not 0. Compile again with `floe platform compile "
    "--spec floe.yaml --manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.",
    "artifacts_with_an_unnamed_model": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models.0.name: String should have at least "
    "1 character. Compile again with `floe platform compile "
    "--spec floe.yaml --manifest manifest.yaml --output "
    "target/compiled_artifacts.json --generate-definitions`.",
    "duplicate_names": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models[1].name: Duplicate name 'a' (first at models[0]). "
    "Keep one of them in floe.yaml.",
    "a_cycle": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models: Circular dependency: a -> c -> b -> a. Remove one of these "
    "dependsOn entries from floe.yaml.",
    "a_model_that_needs_itself": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models: Circular dependency: a -> a. Remove one "
    "of these dependsOn entries from floe.yaml.",
    "an_unknown_dependency": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models[0].depends_on: 'a' depends on unknown 'ordrs'. "
    "Did you mean 'orders'? Correct dependsOn in floe.yaml; known: a, "
    "orders.",
    "a_model_that_dbt_does_not_know": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models[0].name: dbt has no model, seed or "
    "snapshot 'oders'. Did you mean 'orders'? Correct the name in "
    "floe.yaml, or add the model to the dbt project.",
    "a_compute_without_an_output": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models[a].compute: Compute 'spark' has no dbt "
    "output. Outputs of the dbt profile: dev (duckdb). Name one "
    "under plugins.orchestrator.config.computes.spark.target, add an "
    "output 'spark' to profiles.yml, or choose another compute in "
    "floe.yaml.",
    "a_compute_that_fits_two_outputs": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models[a].compute: Compute 'duckdb' matches 2 "
    "dbt outputs (dev, second). Outputs of the dbt profile: dev "
    "(duckdb), second (duckdb). Name one under "
    "plugins.orchestrator.config.computes.duckdb.target, add an "
    "output 'duckdb' to profiles.yml, or choose another compute "
    "in floe.yaml.",
    "a_compute_mapped_to_no_output": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. transforms.models[a].compute: Compute 'duckdb' is mapped "
    "to target 'prod', which is not an output of the dbt profile. Outputs of the dbt profile: "
    "dev (duckdb). Name one under "
    "plugins.orchestrator.config.computes.duckdb.target, add an "
    "output 'duckdb' to profiles.yml, or choose another compute in "
    "floe.yaml.",
    "several_problems_at_once": "Cannot plan product 'tiny': 3 problems.\n"
    "  1. transforms.models[a].compute: Compute 'spark' has no dbt "
    "output. Outputs of the dbt profile: dev (duckdb). Name one under "
    "plugins.orchestrator.config.computes.spark.target, add an output "
    "'spark' to profiles.yml, or choose another compute in floe.yaml.\n"
    "  2. transforms.models[2].name: Duplicate name 'b' (first at "
    "models[1]). Keep one of them in floe.yaml.\n"
    "  3. transforms.models: Circular dependency: a -> b -> a. Remove "
    "one of these dependsOn entries from floe.yaml.",
    "an_unknown_config_key": "Cannot use plugins.orchestrator.config of the platform manifest: "
    "isolaton: unknown key (Did you mean 'isolation'?). Fix manifest.yaml "
    "and compile again.",
    "a_bad_config_value": "Cannot use plugins.orchestrator.config of the platform manifest: "
    "isolation: input should be 'product' or 'compute'; retries: input should "
    "be greater than or equal to 0. Fix manifest.yaml and compile again.",
    "an_unknown_compute_key": "Cannot use plugins.orchestrator.config of the platform manifest: "
    "computes.duckdb.targt: unknown key (Did you mean 'target'?). Fix "
    "manifest.yaml and compile again.",
    "a_project_dir_without_a_project": "Cannot find the dbt project of product 'tiny': project_dir "
    "in plugins.orchestrator.config is /nowhere, which has "
    "no dbt_project.yml. Correct it, or remove it to search "
    "DIR/target and above.",
    "a_default_schedule_that_never_comes": "Cannot use "
    "plugins.orchestrator.config.default_schedule: cron '0 0 "
    "31 4 *' never occurs, such as on February 30. Write five "
    "fields (minute hour day month weekday) such as '0 6 * * "
    "MON-FRI', or @hourly, @daily, @weekly, @monthly, "
    "@yearly.",
    "no_dbt_project": "Cannot load product 'tiny': there is no dbt_project.yml in DIR/target or above "
    "it. "
    "Compile into the dbt project (`floe platform compile --spec floe.yaml "
    "--manifest manifest.yaml --output target/compiled_artifacts.json "
    "--generate-definitions`), or set FLOE_PROJECT_DIR.",
    "a_dbt_project_that_is_not_yaml": "Cannot read DIR/dbt_project.yml: not YAML (line 2). Write one "
    "with `dbt init`.",
    "a_dbt_project_that_is_a_list": "Cannot read DIR/dbt_project.yml: it is not a mapping. Write one "
    "with `dbt init`.",
    "a_dbt_project_not_utf8": "Cannot read DIR/dbt_project.yml: not UTF-8 at byte 6. Write one with "
    "`dbt init`.",
    "no_output_at_all": "Cannot load product 'tiny': it has no dbt output. Configure a compute "
    "plugin in manifest.yaml and compile again, or add profile 'tiny' to "
    "DIR/profiles.yml.",
    "a_profile_without_outputs": "Cannot use profile 'dbt_profiles.tiny' of "
    "compiled_artifacts.json: it has no `outputs` mapping.",
    "an_output_that_is_not_a_mapping": "Cannot use profile 'dbt_profiles.tiny' of "
    "compiled_artifacts.json: outputs ['dev'] are not mappings.",
    "a_profiles_file_that_is_not_yaml": "Cannot read DIR/profiles.yml: not YAML (line 1). Correct "
    "it.",
    "manifest_missing_from_a_prepared_product": "Cannot find DIR/target/floe/dev/manifest.json: "
    "FLOE_PREPARED is set, so the image should "
    "contain it. Run `floe-dagster prepare` in the "
    "product's directory when you build the image.",
    "manifest_truncated": "Cannot read DIR/target/floe/dev/manifest.json: Input data was truncated. "
    "Rebuild it with `floe-dagster prepare --force`.",
    "manifest_not_utf8": "Cannot read DIR/target/floe/dev/manifest.json: 'utf-8' codec can't decode "
    "byte 0xff in position 0: invalid start byte. Rebuild it with "
    "`floe-dagster prepare --force`.",
    "manifest_with_a_wrong_type": "Cannot read DIR/target/floe/dev/manifest.json: Expected `array`, "
    "got `int` - at `$.nodes[...].fqn`. Rebuild it with "
    "`floe-dagster prepare --force`.",
    "manifest_without_nodes": "Cannot read DIR/target/floe/dev/manifest.json: Object missing "
    "required field `nodes`. Rebuild it with `floe-dagster prepare "
    "--force`.",
    "manifest_of_an_old_dbt": "Cannot plan product 'tiny': 1 problem.\n"
    "  1. manifest.json (target dev): Written by dbt 1.5.0 in schema "
    "https://schemas.getdbt.com/dbt/manifest/v9.json. The plugin "
    "supports manifest v12: install dbt-core 1.8 to 1.11 and run `floe-dagster "
    "prepare`.",
    "partitions_with_wrong_settings": "Cannot plan product 'tiny': 3 problems.\n"
    "  1. dbt model 'a' meta.dagster.partitions.type: Input should be "
    "'hourly', 'daily', 'weekly' or 'monthly'. Expected {type: "
    "hourly|daily|weekly|monthly, start: 'YYYY-MM-DD', end?, "
    "timezone?}.\n"
    "  2. dbt model 'a' meta.dagster.partitions.start: Field required. "
    "Expected {type: hourly|daily|weekly|monthly, start: 'YYYY-MM-DD', "
    "end?, timezone?}.\n"
    "  3. dbt model 'a' meta.dagster.partitions.begin: Extra inputs are "
    "not permitted. Expected {type: hourly|daily|weekly|monthly, start: "
    "'YYYY-MM-DD', end?, timezone?}.",
    "a_schedule_that_is_not_a_mapping": "Cannot use `schedule` of floe.yaml: 'daily' is not a "
    "mapping. Write {cron: '0 6 * * *', timezone: UTC, enabled: true}.",
    "a_schedule_with_an_unknown_key": "Cannot use `schedule` of floe.yaml: unknown keys ['corn']. "
    "Known: cron, enabled, timezone.",
    "a_schedule_with_a_bad_cron": "Cannot use `schedule` of floe.yaml: cron '0 6 * *' is not one "
    "that Dagster accepts. Write five fields (minute hour day month "
    "weekday) such as '0 6 * * MON-FRI', or @hourly, @daily, @weekly, "
    "@monthly, @yearly.",
    "a_schedule_with_a_bad_time_zone": "Cannot use `schedule` of floe.yaml: 'Europe/Viena' is not an "
    "IANA time zone. Did you mean 'Europe/Vienna'? Write one "
    "such as 'Europe/Vienna' or 'UTC'.",
    "a_floe_yaml_that_is_not_yaml": "Cannot read DIR/floe.yaml: not YAML (line 1). Correct it and "
    "compile again.",
}
