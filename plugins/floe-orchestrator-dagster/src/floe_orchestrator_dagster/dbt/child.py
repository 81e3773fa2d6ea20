"""The dbt side of a run: one dbt command in a separate process that reports in JSON.

The parent starts it as ``python -m floe_orchestrator_dagster.dbt.child``. The process reads one
request line from stdin. Then it writes JSON objects to stdout, one per line:

- dbt's structured events (``info`` and ``data``) in dbt's order, only the kinds that a run needs.
  The event of a finished node also has ``floe``: ``rows``, ``columns`` and ``checks``, read from
  the warehouse over dbt's own connection, so that a second connection is not needed. If the
  request wants lineage, ``floe`` also has ``inputs``, the columns of the relations that the node
  reads, and the first event after dbt has connected has ``output``, the dbt output as dbt
  resolved it, with its secrets;
- ``{"secrets": [str]}``: values that the parent must mask in files that it reads. All other text
  is masked already: this process is the only place where text leaves dbt;
- ``{"checked": {"unique_id": str, "checks": [...]}}``: results of quality checks on a node that
  this command does not build;
- ``{"problem": str}``: why an event could not be reported;
- last, ``{"done": {"success": bool, "exception": str | None}}``.

If the request names an `executable`, the command line has `OTHER_DBT`. The process then runs that
program, such as dbt 2 (Fusion), in place of dbt-core. It writes the same events. Its connection is
out of reach, so nothing is read from the warehouse.

stdin stays open as long as the parent lives. When stdin ends, the process interrupts itself, so
that no dbt outlives a killed worker.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from floe_orchestrator_dagster.dbt.scrub import Scrubber, environment_secrets, output_secrets
from floe_orchestrator_dagster.dbt.status import BUILT, FAILED_TEST, WARNED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OTHER_DBT = "--other-dbt"
EVENTS = frozenset(
    {
        *("NodeStart", "NodeFinished", "MainReportVersion", "CommandCompleted"),
        *("LogHookStartLine", "LogHookEndLine", "GenericExceptionOnRun", "LogCancelLine"),
    }
)
ORPHAN_GRACE_SECONDS = 10.0
# dbt holds its project in hundreds of thousands of objects. With Python's default thresholds the
# collector visits them again and again. With these, a build of 500 models takes 7 % less time and
# 2 % more memory.
GC_THRESHOLDS = (50_000, 20, 50)


class Reporter:
    """A dbt event callback that sends events to the parent and inspects the nodes dbt built."""

    def __init__(
        self,
        channel: TextIO,
        *,
        row_counts: bool,
        checks: Mapping[str, Sequence[Mapping[str, Any]]],
        reads: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        self._channel = channel
        self._row_counts = row_counts
        self._checks = checks
        self._reads = reads
        self._described: set[str] = set()
        self._output_sent = reads is None
        self._connected = False
        self._scrubber = Scrubber(secrets)
        self._lock = threading.Lock()
        self._send_secrets()

    def write(self, message: Mapping[str, Any]) -> None:
        """Write one message as a line, without secrets.

        If the parent is gone, drop the message: no node may fail because of that.
        """
        self._write({key: self._masked(key, value) for key, value in message.items()})

    def masked(self, text: str) -> str:
        """Return a text without the secrets known so far."""
        return self._scrubber.text(text)

    def _masked(self, key: str, value: Any) -> Any:
        if key == "output":
            return value
        if key == "data":
            # These identify a node. The parent looks nodes up by them, so they are not masked.
            return {
                name: item if name in {"node_info", "unique_id", "status"} else self._text(item)
                for name, item in value.items()
            }
        if key == "info":
            return {**value, "msg": self._scrubber.text(value["msg"])}
        if key == "floe":
            columns = {"columns", "inputs"}
            return {
                name: item if name in columns else self._text(item) for name, item in value.items()
            }
        return self._text(value)

    def _text(self, value: Any) -> Any:
        return self._scrubber.value(value)

    def _write(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message, default=str)
        with self._lock:
            try:
                self._channel.write(line + "\n")
                self._channel.flush()
            except OSError:
                self._channel = io.StringIO()

    def _send_secrets(self) -> None:
        """Send the parent the values that it must mask in the files of this command."""
        if self._scrubber.secrets:
            self._write({"secrets": sorted(self._scrubber.secrets)})

    def _learn_secrets(self) -> None:
        """Add the secrets of the connection, as soon as dbt has resolved them."""
        output = _output()
        if output is not None:
            self._connected = True
            self._scrubber = Scrubber({*self._scrubber.secrets, *output_secrets(output)})
            self._send_secrets()

    def __call__(self, event: Any) -> None:
        """Handle one dbt event. Never raises: dbt would fail the node because of an exception."""
        try:
            self._handle(event)
        except Exception:  # noqa: BLE001
            self.write({"problem": traceback.format_exc(limit=3)})

    def _handle(self, event: Any) -> None:
        from google.protobuf.json_format import MessageToDict

        info = event.info
        if not self._connected:
            self._learn_secrets()
        if info.name not in EVENTS and info.level == "debug":
            return
        message = MessageToDict(event, preserving_proto_field_name=True)
        # protobuf omits empty fields.
        message["info"] = {"msg": "", "invocation_id": "", **message["info"]}
        message.setdefault("data", {})
        if info.name in {"NodeStart", "NodeFinished"} and "node_info" not in message["data"]:
            # dbt could not fill in its own event. The parent uses the recorded result instead.
            return
        if not self._output_sent and info.name in {"NodeStart", "LogHookStartLine"}:
            self._output_sent = True
            message["output"] = _output() or {}
        if info.name == "NodeFinished":
            node = message["data"]["node_info"]
            status = message["data"].get("run_result", {}).get("status")
            if status in BUILT and node.get("resource_type") in {"model", "seed", "snapshot"}:
                message["floe"] = self._inspect(node)
        self.write(message)

    def check(self, relations: Mapping[str, str]) -> None:
        """Evaluate the quality checks on existing relations; `relations` has unique ids as keys."""
        from dbt.adapters.factory import FACTORY

        adapter: Any = next(iter(FACTORY.adapters.values()))
        for uid, checks in self._checks.items():
            with adapter.connection_named(f"floe_{uid}"):
                results = [_evaluate(adapter, relations.get(uid), check) for check in checks]
            self.write({"checked": {"unique_id": uid, "checks": results}})

    def _inspect(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return rows, columns and check results of a node that dbt just built."""
        from dbt.adapters.factory import FACTORY

        adapter: Any = next(iter(FACTORY.adapters.values()))
        relation_info = node.get("node_relation", {})
        if not relation_info.get("relation_name"):
            return {}
        relation = adapter.Relation.create(
            database=relation_info.get("database") or None,
            schema=relation_info.get("schema") or None,
            identifier=relation_info.get("alias"),
        )
        observed: dict[str, Any] = {}
        with adapter.connection_named(f"floe_{node['unique_id']}"):
            try:
                columns = _columns(adapter, relation)
                observed["columns"] = [[column.name, column.data_type] for column in columns]
                # Counting the rows of a view would run its query again.
                if self._row_counts and node.get("materialized") != "view":
                    observed["rows"] = _count(adapter, relation_info["relation_name"])
            except Exception as error:  # noqa: BLE001
                observed["problem"] = str(error)
            if self._reads is not None:
                self._described.add(relation_info["relation_name"])
                observed["inputs"] = self._inputs(adapter, self._reads.get(node["unique_id"], ()))
            checks = self._checks.get(node["unique_id"], ())
            if checks:
                observed["checks"] = [
                    _evaluate(adapter, relation_info["relation_name"], check) for check in checks
                ]
        return observed

    def _inputs(
        self, adapter: Any, relations: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[list[str]]]:
        """Return the columns of relations, by name; skip relations that were described before."""
        columns_by_name = {}
        for read in relations:
            name = read["name"]
            if name in self._described:
                continue
            self._described.add(name)
            relation = adapter.Relation.create(
                database=read["database"], schema=read["schema"], identifier=read["identifier"]
            )
            if adapter.type() == "duckdb":
                relation = name  # it may be a file, such as `'data/people.csv'`
            try:
                columns = _columns(adapter, relation)
            except Exception:  # noqa: BLE001  lineage then uses the declared columns
                columns = []
            columns_by_name[name] = [[column.name, column.data_type] for column in columns]
        return columns_by_name


def _columns(adapter: Any, relation: Any) -> Any:
    """Return the columns of a relation, each with `name` and `data_type`."""
    if adapter.type() == "duckdb":
        # dbt-duckdb queries information_schema, which gets slower with each relation.
        return adapter.get_column_schema_from_query(f"select * from {relation}")  # noqa: S608
    return adapter.get_columns_in_relation(relation)


def _output() -> dict[str, Any] | None:
    """Return the output that dbt connects with, secrets included; None before dbt has one."""
    from dbt.adapters.factory import FACTORY

    adapter: Any = next(iter(FACTORY.adapters.values()), None)
    if adapter is None:
        return None
    credentials = adapter.config.credentials
    return {**credentials.to_dict(omit_none=True), "type": credentials.type}


def _count(adapter: Any, relation: str) -> int:
    """Return the number of rows of a relation, or of a query in parentheses with an alias."""
    sql = f"select count(*) from {relation}"  # noqa: S608  the text comes from dbt
    _, table = adapter.execute(sql, auto_begin=False, fetch=True)
    return int(table.rows[0][0])


def _evaluate(adapter: Any, relation: str | None, check: Mapping[str, Any]) -> dict[str, Any]:
    """Run a quality check as the dbt generic test of its type; its rows are the failures."""
    result = {"unique_id": check["unique_id"]}
    if relation is None:
        return result | {"problem": "the project on disk has no such node"}
    try:
        sql = adapter.execute_macro(
            f"test_{check['type']}",
            project=check.get("package"),
            kwargs={"model": relation, **check["arguments"]},
        )
        failures = _count(adapter, f"({sql}) as floe_check")
    except Exception as error:  # noqa: BLE001
        return result | {"problem": str(error)}
    return result | {"failures": failures}


class OtherDbt:
    """A dbt other than dbt-core; the events that it writes to its output are passed on."""

    def __init__(self, reporter: Reporter, request: Mapping[str, Any]) -> None:
        self._reporter = reporter
        self._command_line = [request["executable"], *request["args"]]
        self._profile = request["profile"] if request.get("reads") is not None else None
        self._error_messages: dict[str, str] = {}
        self._completed = False

    def run(self) -> tuple[bool, str | None]:
        """Run the command; return whether it succeeded, and why it ended without a result."""
        try:
            process = subprocess.Popen(  # noqa: S603  the user's own dbt
                self._command_line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return False, f"cannot start {self._command_line[0]}: {reason}. Correct dbt_executable"
        # Pass an interrupt on and keep reading: dbt still reports how it ends.
        signal.signal(signal.SIGINT, lambda *_: process.send_signal(signal.SIGINT))
        if process.stdout is not None:
            for line in process.stdout:
                self._read(line)
        code = process.wait()
        if code and not self._completed:
            return False, f"{self._command_line[0]} ended without a result (exit code {code})"
        return code == 0, None

    def _read(self, line: bytes) -> None:
        """Handle one line. Never raises: dbt continues, even if a line cannot be handled."""
        try:
            self._handle(line)
        except Exception:  # noqa: BLE001
            self._reporter.write({"problem": traceback.format_exc(limit=3)})

    def _handle(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            info, data = message["info"], message["data"]
        except (ValueError, TypeError, KeyError):
            # Not an event. It may help a person who reads the log.
            sys.stderr.write(self._reporter.masked(line.decode(errors="replace")))
            return
        node = data.get("node_info", {})
        if info["level"] == "error" and "unique_id" in node:
            self._error_messages[node["unique_id"]] = info["msg"]
        if info["level"] == "debug" and info["name"] not in EVENTS:
            return
        if info["name"] == "NodeFinished":
            self._explain(node["unique_id"], data.setdefault("run_result", {}))
        if info["name"] == "CommandCompleted":
            self._completed = True
        if self._profile is not None and info["name"] == "NodeStart":
            message["output"] = _profile_output(*self._profile)
            self._profile = None
        self._reporter.write(message)

    def _explain(self, uid: str, result: dict[str, Any]) -> None:
        """Add the message that dbt-core puts on a result; dbt 2 reports it in another event."""
        failures = result.get("num_failures")
        if uid in self._error_messages:
            result["message"] = self._error_messages[uid]
        elif failures and result.get("status") in {FAILED_TEST, WARNED}:
            result["message"] = f"failing rows: {failures}"


def _secrets(folder: str, profile: str, target: str) -> Iterator[str]:
    """Yield the secrets of the environment and of the profile, which precede dbt's connection."""
    import yaml

    yield from environment_secrets(os.environ)
    # dbt itself reports what is wrong with a profile.
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        content = yaml.safe_load((Path(folder) / "profiles.yml").read_text(encoding="utf-8"))
        yield from output_secrets(content[profile]["outputs"][target], os.environ)


def _profile_output(folder: str, profile: str, target: str) -> dict[str, Any]:
    """Return an output of profiles.yml as dbt-core would render it."""
    from dbt.config.profile import read_profile
    from dbt.config.renderer import ProfileRenderer
    from dbt_common.context import set_invocation_context

    set_invocation_context(os.environ)
    output = read_profile(folder)[profile]["outputs"][target]
    rendered: dict[str, Any] = ProfileRenderer({}).render_data(output)
    return rendered


def _interrupt_when_orphaned() -> None:
    """Wait until stdin ends, which means that the parent is gone; then act like Ctrl-C."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    # Not every adapter can cancel a query, and the parent is no longer there to wait for it.
    time.sleep(ORPHAN_GRACE_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _move(folder: str, environment: Mapping[str, str]) -> None:
    """Enter the project folder and take the command's environment, as if started there."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # `python -m` puts the directory in which it was started first.
    sys.path[0] = folder


def main() -> int:
    """Run the dbt command that the request on stdin describes; return dbt's exit code."""
    # The channel is the real stdout; everything that an adapter prints goes to stderr instead.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Import dbt before the request arrives: a spare process then saves these seconds.
    missing = ""
    if OTHER_DBT not in sys.argv:
        try:
            from dbt.cli.main import dbtRunner
        except ImportError as error:
            missing = f"dbt cannot be imported: {error}. Install dbt-core in this environment"
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    request_line = b""
    while not request_line.endswith(b"\n"):
        piece = os.read(0, 1 << 20)
        if not piece:
            return 2
        request_line += piece
    request = json.loads(request_line)
    _move(request["cwd"], request["environment"])
    threading.Thread(target=_interrupt_when_orphaned, daemon=True).start()
    reporter = Reporter(
        channel,
        row_counts=request.get("row_counts", False),
        checks=request.get("checks") or {},
        reads=request.get("reads"),
        secrets=_secrets(*request["profile"]),
    )
    if missing:
        reporter.write({"done": {"success": False, "exception": missing}})
        return 2
    if OTHER_DBT in sys.argv:
        success, exception = OtherDbt(reporter, request).run()
    else:
        try:
            result = dbtRunner(callbacks=[reporter]).invoke(request["args"])
            success, exception = bool(result.success), str(result.exception or "") or None
            if success and request["args"][0] == "parse" and request.get("checks"):
                manifest: Any = result.result
                nodes = manifest.nodes.items()
                reporter.check({uid: node.relation_name for uid, node in nodes})
        except KeyboardInterrupt:
            success, exception = False, "interrupted"
    reporter.write({"done": {"success": success, "exception": exception}})
    return 0 if success else 1


if __name__ == "__main__":
    sys.exit(main())
