"""A fingerprint tells processors apart that share a name."""

import pytest

from atom_repro.datatypes import Machine
from atom_repro.device.machine import machine_from_cpuinfo, this_machine

ZEN2 = {"model name": "AMD EPYC", "cpu family": "23", "model": "49", "stepping": "0",
        "flags": "fpu sse2 avx2"}  # fmt: skip
ZEN4 = ZEN2 | {"cpu family": "25", "model": "17", "stepping": "1",
               "flags": "fpu avx2 avx512f avx512_vnni avx512_bf16"}  # fmt: skip
PHONE = [
    {"CPU implementer": "0x41", "CPU part": part, "CPU variant": "0x1", "CPU revision": "0",
     "Features": "fp asimd asimddp i8mm bf16"}
    for part in ("0xd46", "0xd46", "0xd4d")
]  # fmt: skip


def machine(*processors, cores=2, memory=24):
    return machine_from_cpuinfo(
        list(processors), cores=cores, memory_gib=memory, os_release="Test OS 1"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"cpu family": "25"},
        {"model": "50"},
        {"stepping": "1"},
        {"flags": "fpu sse2 avx2 avx512f"},
        {"flags": "fpu sse2 avx2 avx512f avx512_vnni"},
        {"flags": "fpu sse2 avx2 amx_tile amx_int8"},
    ],
)
def test_processors_of_one_name_have_two_fingerprints(changed):
    one, other = machine(ZEN2, ZEN2), machine(ZEN2 | changed, ZEN2 | changed)
    assert one.cpu == other.cpu
    assert one.fingerprint != other.fingerprint


def test_what_a_reboot_changes_is_not_in_it():
    assert machine(ZEN2 | {"cpu MHz": "2249.9", "flags": "avx2 fpu sse2 ibpb"}) == machine(ZEN2)
    assert machine(ZEN2).fingerprint != machine(ZEN2, cores=4).fingerprint
    assert machine(ZEN2).fingerprint != machine(ZEN2, memory=12).fingerprint


def test_it_is_said_in_words():
    assert str(machine(ZEN4, ZEN4)) == (
        "AMD EPYC (family 25, model 17, stepping 1), AVX2 AVX-512 AVX-512-VNNI AVX-512-BF16, "
        "2 cores, 24 GiB, Test OS 1"
    )


def test_a_phone_has_processors_of_several_kinds():
    phone = machine(*PHONE, cores=3, memory=8)
    assert (phone.family, phone.model, phone.stepping) == ("0x41", "0xd46 + 0xd4d", "0x1/0")
    assert phone.instructions == ("NEON", "DOTPROD", "I8MM", "BF16")


def test_this_machine_is_the_same_twice_and_survives_a_record():
    here = this_machine()
    assert here == this_machine()
    assert here.cores >= 1
    assert Machine.from_dict(here.to_dict()) == here
