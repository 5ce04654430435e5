"""The runner's bundle needs nothing of a system, and is checked before it counts."""

import re
import shutil
import subprocess

import pytest
from runner_jobs import ARM64, HERE, built, needs_tools

from atom_repro.datatypes import AtomError
from atom_repro.device.architecture import Architecture
from atom_repro.hosts import toolchain
from atom_repro.hosts.bundle import bundle_bytes, check_bundle, runner_bundle

pytest.importorskip("executorch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_tools()]
# Its text holds the address of a function that is elsewhere.
TEXT_RELOCATION = 'asm(".text\\n.balign 8\\n.quad puts");'


@pytest.fixture
def bundle(tmp_path_factory, tmp_path):
    """A copy."""
    return shutil.copytree(built(tmp_path_factory)[1], tmp_path / "bundle")


def library(folder, source, *options, architecture=HERE):
    """A library of a file's worth of C++."""
    (folder / "source.cpp").write_text(source)
    command = [toolchain.compiler(architecture), "-shared", "-o", folder / "libnew.so", *options]
    subprocess.run([*command, folder / "source.cpp"], check=True, capture_output=True)
    return folder / "libnew.so"


def test_a_bundle_is_made_once_and_its_size_is_said(tmp_path_factory, tmp_path, capfd):
    program, _ = built(tmp_path_factory)
    build = tmp_path / program.parent.name
    build.mkdir()
    shutil.copy(program, build)
    bundle = runner_bundle(tmp_path)
    assert bundle.parent == build
    said = capfd.readouterr().err
    megabytes = re.search(rf"runner for {HERE}: ([\d.]+) MB in (\d+) files", said)
    assert float(megabytes[1]) == round(bundle_bytes(bundle) / 1e6, 1) > 5
    assert int(megabytes[2]) == len(list(bundle.iterdir()))
    assert runner_bundle(tmp_path) == bundle
    assert capfd.readouterr().err == ""


def test_a_bundle_needs_nothing_of_the_system(bundle):
    names = {path.name for path in bundle.iterdir()}
    assert {"runner", "run.sh", "libexecutorch.so", "libc.so.6", "libstdc++.so.6"} <= names
    assert not {name for name in names if re.search("openvino|qnn|etdump", name)}
    # By the line of run.sh, without the system's shell.
    loader = bundle / next(name for name in names if name.startswith("ld-linux"))
    listed = subprocess.run(
        [loader, "--library-path", bundle, bundle / "runner"], capture_output=True, text=True,
        check=False, env={"LD_DEBUG": "libs"},
    )  # fmt: skip
    loaded = re.findall(r"calling init: (\S+)", listed.stderr)
    assert loaded
    assert all(path.startswith(f"{bundle}/") for path in loaded), loaded


def test_what_would_not_load_on_a_device_is_refused(bundle):
    check_bundle(bundle, HERE)
    other = next(one for one in Architecture if one is not HERE)
    with pytest.raises(AtomError, match=rf"^ld-linux\S+ is for .*, not for {other}; it cannot be"):
        check_bundle(bundle, other)
    library(bundle, TEXT_RELOCATION, "-Wl,-z,notext").rename(bundle / "liba.so")
    (bundle / "source.cpp").unlink()
    with pytest.raises(AtomError, match=r"^liba.so has text relocations"):
        check_bundle(bundle, HERE)
    (bundle / "liba.so").unlink()
    (bundle / "libm.so.6").unlink()
    with pytest.raises(AtomError, match=r"needs libm.so.6, which is not there"):
        check_bundle(bundle, HERE)
    (bundle / "libm.so.6").write_text("no library")
    with pytest.raises(AtomError, match=r"libm.so.6 is no program or library"):
        check_bundle(bundle, HERE)


@needs_tools(ARM64)
@pytest.mark.parametrize(("page", "accepted"), [(2**12, False), (2**14, False), (2**16, True)])
def test_segments_of_arm64_are_aligned_to_its_largest_pages(tmp_path, page, accepted):
    source = 'extern "C" int twice(int x) { return 2 * x; }'
    options = [f"-Wl,-z,max-page-size={page}", "-nostdlib"]
    library(tmp_path, source, *options, architecture=ARM64)
    (tmp_path / "source.cpp").unlink()
    if accepted:
        check_bundle(tmp_path, ARM64)
    else:
        message = rf"aligned to {page} bytes; aarch64 has pages of 65536"
        with pytest.raises(AtomError, match=message):
            check_bundle(tmp_path, ARM64)


def test_missing_tools_are_said_with_the_way_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain.sys, "executable", str(tmp_path / "python"))
    assert toolchain.missing_tools(HERE) == (
        "no cmake and no g++ and no readelf; `apt install cmake g++ binutils`"
    )
    other = next(one for one in Architecture if one is not HERE)
    package = {"aarch64": "g++-aarch64-linux-gnu", "x86_64": "g++-x86-64-linux-gnu"}[other]
    assert f"no {other}-linux-gnu-g++ and" in toolchain.missing_tools(other)
    assert package in toolchain.missing_tools(other)
    assert other.missing_emulator == f"no qemu-{other}; `apt install qemu-user`"
    (tmp_path / "cmake").touch(mode=0o755)  # of the environment
    assert toolchain.missing_tools(HERE).startswith("no g++ and")


def test_a_wheel_that_cannot_be_fetched_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    other = next(one for one in Architecture if one is not HERE)
    with pytest.raises(
        AtomError, match=rf"for {other} cannot be fetched \(.*\); connect"
    ) as caught:
        toolchain.executorch_package(other, tmp_path / "builds")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "builds").iterdir())


@pytest.mark.parametrize("name", ["armeabi-v7a", ""])
def test_another_processor_is_refused(name):
    with pytest.raises(AtomError, match=f"{name or 'unknown'}; choose x86_64 or aarch64"):
        Architecture.of(name)
    assert Architecture.of("arm64-v8a") is Architecture.of("aarch64") is ARM64
