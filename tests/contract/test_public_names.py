"""The public names on which other code depends."""

from __future__ import annotations

import inspect
import subprocess
import sys

from floe_core.plugins.orchestrator import OrchestratorPlugin

import floe_orchestrator_dagster as package
from floe_orchestrator_dagster import testing
from floe_orchestrator_dagster.loader import load_product_definitions
from floe_orchestrator_dagster.plugin import DagsterOrchestratorPlugin


def test_the_package_exports_these_names() -> None:
    assert package.__all__ == ["DagsterOrchestratorPlugin", "load_product_definitions"]
    for name in package.__all__:
        assert getattr(package, name)


def test_the_testing_module_exports_these_names() -> None:
    assert testing.__all__ == ["PLATFORM", "RecordingBackend", "compile_product", "write_product"]
    for name in testing.__all__:
        assert getattr(testing, name)


def test_only_tests_import_the_testing_module() -> None:
    code = (
        "import sys, floe_orchestrator_dagster.cli, floe_orchestrator_dagster.component;"
        "from floe_orchestrator_dagster import *;"
        "print([m for m in ('pytest', 'floe_orchestrator_dagster.testing') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_testing_module_needs_no_test_library() -> None:
    code = (
        "import sys, floe_orchestrator_dagster.testing;"
        "print([m for m in ('pytest', 'hypothesis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_method_keeps_the_signature_of_the_abc() -> None:
    for name in OrchestratorPlugin.__abstractmethods__:
        theirs, ours = getattr(OrchestratorPlugin, name), getattr(DagsterOrchestratorPlugin, name)
        if isinstance(theirs, property):
            assert isinstance(ours, property)
            continue
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        )


def test_the_loader_of_generated_files_takes_name_and_directory() -> None:
    parameters = list(inspect.signature(load_product_definitions).parameters)
    assert parameters[:2] == ["product_name", "project_dir"]


def test_a_dbt_process_imports_no_dagster() -> None:
    code = (
        "import sys, floe_orchestrator_dagster.dbt.child;"
        "print([m for m in ('dagster', 'floe_core', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
