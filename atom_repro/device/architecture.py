"""Architectures of processors that programs are built for, and how this machine runs each."""

import platform
import shutil
from enum import StrEnum

from atom_repro.datatypes import AtomError

# The variable that names what starts programs of another architecture, on a system that does not
# do it by itself.
LAUNCHER = "ATOM_LAUNCHER"


class Architecture(StrEnum):
    """An architecture by Linux's name for it (`uname -m`)."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @classmethod
    def of(cls, name: str) -> "Architecture":
        """The architecture of a name of Linux or Android.

        Raises:
            AtomError: another one.
        """
        for architecture in cls:
            if name in (architecture, architecture.abi):
                return architecture
        raise AtomError(
            f"no program can be built for a processor of the kind {name or 'unknown'}; "
            f"choose {' or '.join(cls)}"
        )

    @classmethod
    def of_this_machine(cls) -> "Architecture":
        """The architecture of this machine; raises AtomError as `of` does."""
        return cls.of(platform.machine())

    @property
    def abi(self) -> str:
        """Android's name for it (`ro.product.cpu.abi`)."""
        return {"x86_64": "x86_64", "aarch64": "arm64-v8a"}[self]

    @property
    def largest_page_bytes(self) -> int:
        """The largest page that its systems have; loadable segments are aligned to it."""
        return {"x86_64": 2**12, "aarch64": 2**16}[self]

    @property
    def is_native(self) -> bool:
        """Whether this machine's processor runs its programs."""
        return platform.machine() == self

    @property
    def emulator(self) -> str:
        """The program that runs its programs on another processor."""
        return f"qemu-{self}"

    @property
    def emulation(self) -> str:
        """The words that begin such a run: the emulator and its processor.

        arm64 is emulated without SVE and SME, which qemu's own choice has. With SME, int8 products
        come out otherwise than on any other processor: qemu 7.2 errs, or XNNPACK's kernels for it.
        """
        processor = {"x86_64": "max", "aarch64": "max,sve=off"}[self]
        return f"{self.emulator} -cpu {processor}"

    @property
    def missing_emulator(self) -> str | None:
        """What is missing to run its programs here, and how to get it; None if nothing is."""
        if self.is_native or shutil.which(self.emulator):
            return None
        return f"no {self.emulator}; `apt install qemu-user`"
