"""Machines for tests: two processors of one name, and one of before its family was recorded."""

from dataclasses import replace

from atom_repro.datatypes import Machine

OLD = Machine("cafe00000000", "Test CPU", 2, 24, "Test OS 1")
FIRST = replace(
    OLD,
    fingerprint="cafe00000001",
    family="23",
    model="49",
    stepping="0",
    instructions=("AVX2",),
)
SECOND = replace(FIRST, fingerprint="cafe00000002", family="25", instructions=("AVX2", "AVX-512"))
