"""A remembered value is reused for the same content, and never if it is damaged."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from floe_orchestrator_dagster.config import PluginConfig
from floe_orchestrator_dagster.plan import CompiledProduct, ProductPlan
from floe_orchestrator_dagster.product.cache import KEPT, digest_of, remembered
from kit.plans import plan


class Maker:
    def __init__(self, plan: ProductPlan) -> None:
        self.plan = plan
        self.calls = 0

    def __call__(self) -> ProductPlan:
        self.calls += 1
        return self.plan


@pytest.fixture
def maker() -> Maker:
    return Maker(plan("a > b"))


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_a_plan_is_made_once_and_read_back_equal(tmp_path: Path, maker: Maker) -> None:
    key = digest_of(["content"])
    first = remembered(tmp_path, ProductPlan, key, maker)
    again = remembered(tmp_path, ProductPlan, key, maker)
    assert maker.calls == 1
    assert again == first
    assert list(again.order) == list(first.order)


def test_other_content_is_made_again(tmp_path: Path, maker: Maker) -> None:
    contents: list[list[bytes | str]] = [["a", "b"], ["ab"], [b"ab", ""], ["", "ab"]]
    for content in contents:
        remembered(tmp_path, ProductPlan, digest_of(content), maker)
    assert maker.calls == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: data + b"x",
        lambda data: b"\x80" * len(data),
    ],
    ids=["empty", "short", "half", "one bit", "longer", "other"],
)
def test_a_damaged_file_is_made_again(tmp_path: Path, maker: Maker, damage: object) -> None:
    key = digest_of(["content"])
    remembered(tmp_path, ProductPlan, key, maker)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))  # type: ignore[operator]
    assert remembered(tmp_path, ProductPlan, key, maker) == maker.plan
    assert maker.calls == 2
    assert path.read_bytes() == whole


def test_a_value_of_another_type_is_not_read_as_a_plan(tmp_path: Path, maker: Maker) -> None:
    key = digest_of(["content"])
    remembered(tmp_path, CompiledProduct, key, lambda: CompiledProduct("x"))
    only_file(tmp_path).rename(tmp_path / f"ProductPlan-{key}.msgpack")
    assert remembered(tmp_path, ProductPlan, key, maker) == maker.plan
    assert maker.calls == 1


def test_the_configuration_is_read_back_too(tmp_path: Path) -> None:
    config = PluginConfig(retries=3, computes={"spark": {"pool": "p"}})  # type: ignore[dict-item]
    product = CompiledProduct("x", config=config)
    for _ in range(2):
        assert remembered(tmp_path, CompiledProduct, "key", lambda: product) == product


def test_only_the_newest_are_kept_and_only_the_user_can_read_them(
    tmp_path: Path, maker: Maker
) -> None:
    for number in range(KEPT + 3):
        remembered(tmp_path, ProductPlan, digest_of([str(number)]), maker)
    kept = [*tmp_path.iterdir()]
    assert len(kept) == KEPT
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_an_unwritable_folder_only_disables_remembering(tmp_path: Path, maker: Maker) -> None:
    (tmp_path / "file").write_text("")
    assert remembered(tmp_path / "file", ProductPlan, "key", maker) == maker.plan
    assert maker.calls == 1


def test_concurrent_calls_get_the_same_value(tmp_path: Path, maker: Maker) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(remembered, tmp_path, ProductPlan, f"key{number % 3}", maker)
            for number in range(60)
        ]
    assert all(future.result() == maker.plan for future in futures)
