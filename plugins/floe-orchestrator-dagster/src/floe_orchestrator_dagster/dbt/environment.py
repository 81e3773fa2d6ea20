"""How the plugin treats each of dbt's own environment variables and project flags.

dbt also reads nearly every command-line option from the environment, and many from `flags:` in
dbt_project.yml. Users run the same project with dbt itself, so these settings keep their effect
where that is possible. `SETTINGS` gives the verdict on each setting and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# honored: the setting has the same effect as in dbt.
# ours: the plugin always sets it. The result is the same, or the run config controls it.
# overruled: it would make a run incorrect or impossible, so it is ignored with a warning.
# unused: it belongs to commands that the plugin never runs.
Verdict = Literal["honored", "ours", "overruled", "unused"]


@dataclass(frozen=True, slots=True)
class Setting:
    """The verdict on one of dbt's variables and on the flag of that name in dbt_project.yml.

    `parses` is True if another value may produce another manifest from the same files.
    """

    name: str
    verdict: Verdict
    why: str
    parses: bool = False

    @property
    def flag(self) -> str:
        """The name in `flags:` of dbt_project.yml."""
        return self.name.removeprefix("DBT_").removeprefix("ENGINE_").lower()

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names of the variable, the newest first. dbt prefers the newest."""
        if self.name.startswith("DBT_ENGINE_"):
            return (self.name,)
        return (self.name.replace("DBT_", "DBT_ENGINE_", 1), self.name)


def _settings(verdict: Verdict, why: str, *names: str, parses: bool = False) -> list[Setting]:
    return [Setting(f"DBT_{name}", verdict, why, parses) for name in names]


_DBTS = "dbt itself honors it."
_LEGACY = "An older name that dbt still honors."
_LOOKS = "Changes dbt's log file and output; no result depends on it."
_LOG = "Every dbt run writes its own log next to its artifacts, at level debug."
_TESTING = "For tests of dbt itself: it replaces the project or the time."
_OUTPUT = "The plugin reads dbt's events and writes the output itself."
_FILES = "The plugin reads the results, the manifest and the parsed project of each dbt run."

SETTINGS: Sequence[Setting] = (
    # Where the project and its connection are.
    *_settings("overruled", "The product defines where its dbt project is.", "PROJECT_DIR"),
    *_settings(
        "honored",
        "Only the profiles.yml in this folder is used, with the outputs of the compiled artifacts "
        "added.",
        "PROFILES_DIR",
    ),
    *_settings("honored", "The profile of that name is used.", "PROFILE"),
    *_settings(
        "honored",
        "Decides which output a compute uses if several match. A compute that names its output "
        "keeps that one.",
        "TARGET",
    ),
    *_settings(
        "honored",
        "The plugin keeps its files below this folder, with one directory per dbt run.",
        "TARGET_PATH",
    ),
    *_settings("ours", _LOG, "LOG_PATH", "LOG_LEVEL", "LOG_LEVEL_FILE"),
    # What is built.
    *_settings(
        "honored",
        "For `test` and `unit_test`: excluded checks are not planned. For assets it is overruled, "
        "with a warning: exclude an asset from a run by selection.",
        "RESOURCE_TYPES",
        "EXCLUDE_RESOURCE_TYPES",
    ),
    *_settings("ours", "A run selects each node and test by unique id.", "INDIRECT_SELECTION"),
    *_settings("honored", _DBTS, "DEFER", "DEFER_STATE"),
    *_settings(
        "honored",
        "Passed to dbt as --defer-state, because --state holds the selection of the run.",
        "STATE",
        "ARTIFACT_STATE_PATH",
    ),
    *_settings(
        "honored",
        "Relations that an earlier dbt run of the same Dagster run built take precedence over the "
        "state.",
        "FAVOR_STATE",
    ),
    *_settings("honored", _LEGACY, "DEFER_TO_STATE", "FAVOR_STATE_MODE", "NO_PRINT"),
    *_settings("honored", _DBTS, "FULL_REFRESH", "EMPTY", "SAMPLE", parses=True),
    *_settings(
        "honored",
        "For runs without a partition. A partition has its own window.",
        "EVENT_TIME_START",
        "EVENT_TIME_END",
        parses=True,
    ),
    *_settings("honored", _DBTS, "STORE_FAILURES", parses=True),
    *_settings("honored", _DBTS, "EXPORT_SAVED_QUERIES", "INCLUDE_SAVED_QUERY"),
    # What counts as a failure.
    *_settings("honored", _DBTS, "FAIL_FAST"),
    *_settings("honored", _DBTS, "WARN_ERROR", "WARN_ERROR_OPTIONS", parses=True),
    *_settings("honored", _DBTS, "VERSION_CHECK", parses=True),
    # How it is parsed.
    *_settings(
        "honored",
        _DBTS,
        "PARTIAL_PARSE",
        "STATIC_PARSER",
        "USE_EXPERIMENTAL_PARSER",
        "USE_FAST_TEST_EDGES",
        parses=True,
    ),
    *_settings("overruled", _FILES, "PARTIAL_PARSE_FILE_PATH", "WRITE_JSON"),
    *_settings(
        "overruled", "dbt would not check the files of the project.", "PARTIAL_PARSE_FILE_DIFF"
    ),
    *_settings("overruled", _TESTING, "PP_FILE_DIFF_TEST", "PP_TEST", "RECORDED_FILE_PATH"),
    *_settings("overruled", _TESTING, "TEST_STATE_MODIFIED"),
    *_settings(
        "overruled", "A debugger would wait for a terminal that does not exist.", "MACRO_DEBUGGING"
    ),
    # How it is run.
    *_settings(
        "honored",
        _DBTS,
        "CACHE_SELECTED_ONLY",
        "POPULATE_CACHE",
        "INTROSPECT",
        "SINGLE_THREADED",
        "ENGINE_SQLPARSE",
        "INVOCATION_ENV",
        "PACKAGE_HUB_URL",
        "DOWNLOAD_DIR",
        "UPLOAD_TO_ARTIFACTS_INGEST_API",
    ),
    *_settings("ours", "Always off.", "SEND_ANONYMOUS_USAGE_STATS"),
    # How it looks.
    *_settings(
        "honored",
        _LOOKS,
        "DEBUG",
        "QUIET",
        "PRINT",
        "PRINTER_WIDTH",
        "LOG_CACHE_EVENTS",
        "LOG_FORMAT_FILE",
        "LOG_FILE_MAX_BYTES",
        "USE_COLORS_FILE",
        "SHOW_RESOURCE_REPORT",
    ),
    *_settings("ours", _OUTPUT, "LOG_FORMAT", "USE_COLORS"),
    *_settings("unused", "`dbt docs serve`, `dbt clean`.", "HOST", "CLEAN_PROJECT_FILES_ONLY"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
# dbt can exclude nodes by type. A plan can exclude these types, but not assets.
CHECK_TYPES = frozenset({"test", "unit_test"})
_ASSET_TYPES = frozenset({"model", "seed", "snapshot"})
_RESOURCE_TYPES = ("DBT_RESOURCE_TYPES", "DBT_EXCLUDE_RESOURCE_TYPES")
# "default" means the types that `dbt build` builds without this setting.
_ALL_TYPES = frozenset({"all", "default"})


def value_of(name: str, environment: Mapping[str, str]) -> str:
    """Return the value of one of dbt's variables, under any of its spellings; "" if not set."""
    values = (environment.get(spelling) for spelling in _BY_NAME[name].spellings)
    return next(filter(None, values), "")


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What to add to a dbt command of the plugin.

    `environment` overrides the environment of this process. dbt treats an empty value as not set.
    """

    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def adjusted(
    environment: Mapping[str, str],
    project_flags: Mapping[str, Any],
    *,
    selects: bool,
) -> Adjusted:
    """Return what enforces the verdicts of `SETTINGS` in a dbt command of the plugin.

    `selects` is True if the command has a selection, which `--state` holds.
    """
    flags: list[str] = []
    if project_flags.get("write_json") is False:
        flags.append("--write-json")
    cleared = [setting for setting in SETTINGS if setting.verdict == "overruled"]
    # Excluded checks are not planned, so the command does not select them.
    cleared += [_BY_NAME[name] for name in _RESOURCE_TYPES]
    if selects:
        state = value_of("DBT_ARTIFACT_STATE_PATH", environment) or value_of(
            "DBT_STATE", environment
        )
        if state and not value_of("DBT_DEFER_STATE", environment):
            flags += ["--defer-state", state]
        # dbt prefers the older name to --state on the command line.
        cleared.append(_BY_NAME["DBT_ARTIFACT_STATE_PATH"])
    return Adjusted(
        tuple(flags),
        {name: "" for setting in cleared for name in setting.spellings if name in environment},
    )


def types_left_out(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the types of dbt node that the environment excludes from a build."""
    wanted, unwanted = (
        frozenset(value_of(name, environment).lower().split()) for name in _RESOURCE_TYPES
    )
    known = CHECK_TYPES | _ASSET_TYPES
    return (known - wanted if wanted and not wanted & _ALL_TYPES else frozenset()) | (
        known & unwanted
    )


def overruled(environment: Mapping[str, str], project_flags: Mapping[str, Any]) -> list[str]:
    """Return a warning for each setting that is ignored, in order of `SETTINGS`."""
    warnings = []
    for setting in SETTINGS:
        if setting.verdict != "overruled":
            continue
        if value_of(setting.name, environment):
            warnings.append(f"{_spelled(setting, environment)} is ignored. {setting.why}")
        # dbt's default is on, so only off is a choice of the user.
        elif project_flags.get(setting.flag) is False:
            warnings.append(
                f"`{setting.flag}` in flags of dbt_project.yml is ignored. {setting.why}"
            )
    assets = sorted(types_left_out(environment) & _ASSET_TYPES)
    if assets:
        names = " and ".join(name for name in _RESOURCE_TYPES if value_of(name, environment))
        warnings.append(
            f"{names} is ignored for {', '.join(assets)}. Exclude assets from a run by selection."
        )
    return warnings


def _spelled(setting: Setting, environment: Mapping[str, str]) -> str:
    return next(name for name in setting.spellings if environment.get(name))


def parsing_values(environment: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield the variables that are set and may change the manifest of the same files."""
    for setting in SETTINGS:
        value = value_of(setting.name, environment) if setting.parses else ""
        if value:
            yield setting.name, value
