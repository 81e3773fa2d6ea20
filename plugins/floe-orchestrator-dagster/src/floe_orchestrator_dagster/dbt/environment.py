"""dbt's own environment variables and project flags: what each is to a product of ours.

dbt takes nearly every option of its command line from the environment too, and many from `flags:`
in dbt_project.yml. Ours is not the only command line of a project, so that they are dbt's as far as
can be; `SETTINGS` says of each what becomes of it, and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# honoured: it means what it means to dbt.
# ours: we always say it ourselves; nobody can tell the difference, or a run config says it.
# overruled: what it asks for would make a run of ours untrue or impossible; a warning says so.
# unused: it belongs to commands that we never run.
Verdict = Literal["honoured", "ours", "overruled", "unused"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What becomes of one of dbt's variables, and of the flag of dbt_project.yml of that name.

    `parses` tells that another value may make another manifest of the same files.
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
        """The names of the variable, dbt's newest first: it wins."""
        if self.name.startswith("DBT_ENGINE_"):
            return (self.name,)
        return (self.name.replace("DBT_", "DBT_ENGINE_", 1), self.name)


def _settings(verdict: Verdict, why: str, *names: str, parses: bool = False) -> list[Setting]:
    return [Setting(f"DBT_{name}", verdict, why, parses) for name in names]


_DBTS = "dbt itself honours it."
_LEGACY = "An older name that dbt still honours."
_LOOKS = "Shapes dbt's log file and output; no result depends on it."
_LOG = "Every dbt run writes its own log beside its artifacts, at level debug."
_TESTING = "For tests of dbt itself: it takes the project, or the time, from elsewhere."
_FILES = "Our runs read the results, the manifest and the parsed project of each dbt run."

SETTINGS: Sequence[Setting] = (
    # Where the project and its connection are.
    *_settings("overruled", "The product says where its dbt project is.", "PROJECT_DIR"),
    *_settings(
        "honoured",
        "Its profiles.yml is read, and none else; outputs of the compiled artifacts are added.",
        "PROFILES_DIR",
    ),
    *_settings("honoured", "The profile of that name is read.", "PROFILE"),
    *_settings(
        "honoured",
        "Decides which output a compute stands for, where several fit; a compute that names its "
        "output keeps it.",
        "TARGET",
    ),
    *_settings(
        "honoured", "Our own files go below it; each dbt run has a directory there.", "TARGET_PATH"
    ),
    *_settings("ours", _LOG, "LOG_PATH", "LOG_LEVEL", "LOG_LEVEL_FILE"),
    # What is built.
    *_settings(
        "honoured",
        "For `test` and `unit_test`: checks that are left out are not planned. For what is an "
        "asset it is overruled, with a warning: a run leaves it out by selection.",
        "RESOURCE_TYPES",
        "EXCLUDE_RESOURCE_TYPES",
    ),
    *_settings("ours", "A run selects each node and test by itself.", "INDIRECT_SELECTION"),
    *_settings("honoured", _DBTS, "DEFER", "DEFER_STATE"),
    *_settings(
        "honoured",
        "Handed to dbt as --defer-state, as --state carries our selection.",
        "STATE",
        "ARTIFACT_STATE_PATH",
    ),
    *_settings(
        "honoured",
        "What an earlier dbt run of the same run of Dagster has built goes before the state.",
        "FAVOR_STATE",
    ),
    *_settings("honoured", _LEGACY, "DEFER_TO_STATE", "FAVOR_STATE_MODE", "NO_PRINT"),
    *_settings("honoured", _DBTS, "FULL_REFRESH", "EMPTY", "SAMPLE", parses=True),
    *_settings(
        "honoured",
        "For runs without a partition; a partition has a window of its own.",
        "EVENT_TIME_START",
        "EVENT_TIME_END",
        parses=True,
    ),
    *_settings("honoured", _DBTS, "STORE_FAILURES", parses=True),
    *_settings("honoured", _DBTS, "EXPORT_SAVED_QUERIES", "INCLUDE_SAVED_QUERY"),
    # What counts as a failure.
    *_settings("honoured", _DBTS, "FAIL_FAST"),
    *_settings("honoured", _DBTS, "WARN_ERROR", "WARN_ERROR_OPTIONS", parses=True),
    *_settings("honoured", _DBTS, "VERSION_CHECK", parses=True),
    # How it is parsed.
    *_settings(
        "honoured",
        _DBTS,
        "PARTIAL_PARSE",
        "STATIC_PARSER",
        "USE_EXPERIMENTAL_PARSER",
        "USE_FAST_TEST_EDGES",
        parses=True,
    ),
    *_settings("overruled", _FILES, "PARTIAL_PARSE_FILE_PATH", "WRITE_JSON"),
    *_settings(
        "overruled", "dbt would not look at the files of the project.", "PARTIAL_PARSE_FILE_DIFF"
    ),
    *_settings("overruled", _TESTING, "PP_FILE_DIFF_TEST", "PP_TEST", "RECORDED_FILE_PATH"),
    *_settings("overruled", _TESTING, "TEST_STATE_MODIFIED"),
    *_settings(
        "overruled", "A debugger would wait for a terminal that is not there.", "MACRO_DEBUGGING"
    ),
    # How it goes about it.
    *_settings(
        "honoured",
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
        "honoured",
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
    *_settings("ours", "dbt's events are read as they are; ours is the output.", "LOG_FORMAT"),
    *_settings("ours", "dbt's events are read as they are; ours is the output.", "USE_COLORS"),
    *_settings("unused", "`dbt docs serve`, `dbt clean`.", "HOST", "CLEAN_PROJECT_FILES_ONLY"),
)
# As click reads a switch.
_BY_NAME = {setting.name: setting for setting in SETTINGS}
# Of what dbt can leave out by its type, checks can be left out of a plan; assets cannot.
CHECK_TYPES = frozenset({"test", "unit_test"})
_ASSET_TYPES = frozenset({"model", "seed", "snapshot"})
_RESOURCE_TYPES = ("DBT_RESOURCE_TYPES", "DBT_EXCLUDE_RESOURCE_TYPES")
# "default" is what `dbt build` builds without being told.
_ALL_TYPES = frozenset({"all", "default"})


def value_of(name: str, environment: Mapping[str, str]) -> str:
    """Return one of dbt's variables, in whichever spelling it is set; "" if it is not."""
    values = (environment.get(spelling) for spelling in _BY_NAME[name].spellings)
    return next(filter(None, values), "")


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What a dbt command of ours needs besides its own words.

    `environment` is laid over that of this process; dbt takes an empty value for none.
    """

    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def adjusted(
    environment: Mapping[str, str],
    project_flags: Mapping[str, Any],
    *,
    selects: bool,
) -> Adjusted:
    """Return what keeps dbt's variables and flags true to `SETTINGS` in a command of ours.

    `selects` tells that the command has a selection of ours, which goes by `--state`.
    """
    flags: list[str] = []
    if project_flags.get("write_json") is False:
        flags.append("--write-json")
    cleared = [setting for setting in SETTINGS if setting.verdict == "overruled"]
    # What is left out has not been planned, and so is not selected.
    cleared += [_BY_NAME[name] for name in _RESOURCE_TYPES]
    if selects:
        state = value_of("DBT_ARTIFACT_STATE_PATH", environment) or value_of(
            "DBT_STATE", environment
        )
        if state and not value_of("DBT_DEFER_STATE", environment):
            flags += ["--defer-state", state]
        # dbt puts the older name above the --state of the command line.
        cleared.append(_BY_NAME["DBT_ARTIFACT_STATE_PATH"])
    return Adjusted(
        tuple(flags),
        {name: "" for setting in cleared for name in setting.spellings if name in environment},
    )


def types_left_out(environment: Mapping[str, str]) -> frozenset[str]:
    """Return the types of dbt node that the environment leaves out of a build."""
    wanted, unwanted = (
        frozenset(value_of(name, environment).lower().split()) for name in _RESOURCE_TYPES
    )
    known = CHECK_TYPES | _ASSET_TYPES
    return (known - wanted if wanted and not wanted & _ALL_TYPES else frozenset()) | (
        known & unwanted
    )


def overruled(environment: Mapping[str, str], project_flags: Mapping[str, Any]) -> list[str]:
    """Return a warning for each setting that is not followed, in order of `SETTINGS`."""
    found = []
    for setting in SETTINGS:
        if setting.verdict != "overruled":
            continue
        if value_of(setting.name, environment):
            found.append(f"{_spelled(setting, environment)} is ignored. {setting.why}")
        # On is dbt's default of these: only off is a wish.
        elif project_flags.get(setting.flag) is False:
            found.append(f"`{setting.flag}` in flags of dbt_project.yml is ignored. {setting.why}")
    assets = sorted(types_left_out(environment) & _ASSET_TYPES)
    if assets:
        found.append(
            f"{' and '.join(name for name in _RESOURCE_TYPES if value_of(name, environment))} "
            f"leaves out {', '.join(assets)}: ignored for these. What is an asset is left out of "
            "a run by selection."
        )
    return found


def _spelled(setting: Setting, environment: Mapping[str, str]) -> str:
    return next(name for name in setting.spellings if environment.get(name))


def parsing_values(environment: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield the variables that are set and may make another manifest of the same files."""
    for setting in SETTINGS:
        value = value_of(setting.name, environment) if setting.parses else ""
        if value:
            yield setting.name, value
