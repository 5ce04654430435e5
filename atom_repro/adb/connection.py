"""Connection to a device over adb: commands with their own exit status, checked file transfer.

adb's exit codes are not trusted: version 29 returns 0 when a device dies in the middle of a
command, and the first shell protocol always does. A command has ended when its output ends with a
number that was drawn for it, and the exit status that the device's shell wrote beside it.
"""

import hashlib
import secrets
import shlex
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from atom_repro.adb import messages
from atom_repro.adb.faults import (
    Corrupted,
    DeviceError,
    Disconnected,
    DiskFull,
    TimedOut,
    Unauthorised,
)
from atom_repro.records.atomic import atomic_write

PART_BYTES = 64 * 2**20
_SPARE_BYTES = 32 * 2**20  # left free beside a pushed file
_ANSWER_S = 30.0
_BACK_S = 5.0  # for a device to be found by an adb server that has just started
_LINE_MAX = 3000  # adb of old devices takes 4096 bytes with all that is put around it
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Output:
    """What a command left: its exit status as the device's shell has it, and its output."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """The output without its last line break."""
        return self.stdout.decode("utf-8", "replace").removesuffix("\n")


@dataclass(frozen=True)
class Connection:
    """A device by its serial, through an adb server.

    Attributes:
        client: `adbutils.AdbClient`.
    """

    client: Any
    serial: str

    @classmethod
    def open(cls, serial: str, *, wait_s: float = 5.0) -> "Connection":
        """Connect to adb's server, started if there is none, and check the device's state.

        The server is the one that adb itself would use (ANDROID_ADB_SERVER_PORT, else 5037).

        Args:
            serial: as `adb devices` has it; `host:port` is connected to first.
            wait_s: for the device to become ready.

        Raises:
            DeviceError: no such device, or it is offline, or does not accept this computer.
        """
        from adbutils import AdbClient

        connection = cls(AdbClient(), serial)
        connection.check(wait_s)
        return connection

    def check(self, wait_s: float = 0.0) -> None:
        """Check that the device answers, waiting so long for it to come back.

        Raises:
            DeviceError: it does not.
        """
        deadline = time.monotonic() + wait_s
        while True:
            states, why = dict[str, str](), ""
            try:
                states = self._states()
                if ":" in self.serial and self.serial not in states:
                    with _named_errors(self.serial):
                        self.client.connect(self.serial, timeout=_ANSWER_S)
                    states = self._states()
            except Disconnected as error:  # the server is gone, and starts anew at the next try
                why = f" ({error})"
            state = states.get(self.serial, "")
            if state == "device":
                return
            if state == "unauthorized":
                raise Unauthorised(
                    f"{self.serial} does not accept this computer; unlock it and allow USB "
                    "debugging in the dialogue that it shows"
                )
            if time.monotonic() >= deadline:
                raise Disconnected(
                    f"{self.serial} is {state or 'not there'}; adb sees "
                    f"{', '.join(states) or 'none'}{why}. Check its cable and that USB debugging "
                    "is on"
                )
            time.sleep(0.2)

    def close(self) -> None:
        """Have adb forget a device that it reached by an address."""
        if ":" in self.serial:
            with _named_errors(self.serial):
                self.client.disconnect(self.serial)

    def _states(self) -> dict[str, str]:
        with _named_errors(self.serial):
            return {one.serial: one.state for one in self.client.list()}

    def shell(self, command: str, *, timeout_s: float = _ANSWER_S) -> Output:
        """Run a line of the device's shell.

        Args:
            command: whose parts are quoted; see `quoted`.

        Raises:
            Disconnected: the device went away before the command ended.
            TimedOut: it took longer.
        """
        nonce = secrets.token_hex(12)
        line = f"( {command}\n); printf '\\n{nonce} %d\\n' $?"
        stdout, stderr = bytearray(), bytearray()
        with _named_errors(self.serial), self._stream(f"shell,v2,raw:{line}", timeout_s) as stream:
            deadline = time.monotonic() + timeout_s
            try:
                while True:
                    stream.settimeout(max(0.01, deadline - time.monotonic()))
                    kind, data = messages.read_shell_packet(stream.recv)
                    if kind == messages.STDOUT:
                        stdout += data
                    elif kind == messages.STDERR:
                        stderr += data
                    elif kind == messages.EXIT:
                        break
            except TimeoutError as error:
                raise TimedOut(
                    f"{self.serial}: no end after {timeout_s:.0f} s: {command[:80]}"
                ) from error
            except ConnectionError:
                pass  # whether it ended well is decided by what it wrote last
        head, _, tail = bytes(stdout).rpartition(f"\n{nonce} ".encode())
        if not tail.strip().isdigit():
            raise Disconnected(f"{self.serial} went away during: {command[:80]}")
        return Output(int(tail), head, bytes(stderr))

    def ask(self, command: str, *, timeout_s: float = _ANSWER_S) -> str:
        """The output of a command that must succeed.

        Raises:
            DeviceError: it did not, with what it wrote.
        """
        output = self.shell(command, timeout_s=timeout_s)
        if output.status:
            reason = output.stderr.decode("utf-8", "replace").strip() or output.text
            if "No space left" in reason:
                raise DiskFull(f"{self.serial}: {reason[:200]}; free some and run it again")
            raise DeviceError(
                f"{self.serial}: `{command[:80]}` ended with {output.status}: {reason[:200]}"
            )
        return output.text

    def texts(self, commands: Sequence[str], *, timeout_s: float = _ANSWER_S) -> list[str]:
        """What each of several commands writes, in few calls; whether one fails does not matter.

        Raises:
            Disconnected: the device went away before they ended.
            TimedOut: those of one call took longer.
        """
        mark, texts, line = secrets.token_hex(12), list[str](), ""
        for command in (*commands, ""):
            if line and (not command or len(line) + len(command) > _LINE_MAX):
                texts += self.shell(line, timeout_s=timeout_s).text.split(mark)[:-1]
                line = ""
            line += f"{{ {command}; }} 2> /dev/null; echo {mark}; " if command else ""
        return [text.strip("\n") for text in texts]

    def boot_id(self) -> str:
        """A value that changes with every start of the device."""
        return self.ask("cat /proc/sys/kernel/random/boot_id")

    def free_bytes(self, folder: str) -> int:
        """Free space where a folder of the device lies."""
        line = self.ask(f"df -k {quoted(folder)}").splitlines()[-1]
        return int(line.split()[3]) * 1024

    def push_missing(
        self,
        files: Sequence[tuple[Path, str]],
        progress: Progress = lambda _: None,
        *,
        sent: dict[str, tuple[str, str]],
    ) -> None:
        """`push` those of several files that the device does not have as they are here.

        Args:
            files: each with its path on the device.
            sent: what earlier calls found there, filled in here; a file of several GB that has not
                changed since is not read again, on either side.

        Raises:
            as `push`.
        """
        remotes = [remote for _, remote in files]
        states = dict(
            zip(remotes, self.texts([f"stat -c '%s %i %Y %Z' {quoted(r)}" for r in remotes]),
                strict=True)
        )  # fmt: skip
        unread = [r for r in remotes if states[r] and sent.get(r, ("",))[0] != states[r]]
        hashes = self.texts([f"sha256sum < {quoted(r)}" for r in unread], timeout_s=600)
        sent |= {r: (states[r], h.split()[0]) for r, h in zip(unread, hashes, strict=True) if h}
        for local, remote in files:
            there = sent.get(remote, ("", ""))
            if states[remote] and there == (states[remote], _hashes(local)[0]):
                progress(local.stat().st_size)
            else:
                self.push(local, remote, progress)

    def push(self, local: Path, remote: str, progress: Progress = lambda _: None) -> None:
        """Send a file in parts, so that a broken push goes on where it stopped, and check it.

        Parts lie beside the file under the hashes of their contents until it is complete. A file
        that is there already, with this content, is left alone.

        Raises:
            DiskFull: before anything is sent, or when the device says so.
            Corrupted: the device has something else than was sent.
            Disconnected: the device went away.
        """
        whole, parts = _hashes(local)
        if self._hash_of(remote) == whole:
            progress(local.stat().st_size)
            return
        folder = f"{remote}.parts"
        self.ask(f"mkdir -p {quoted(folder)}")
        there = self._sizes(folder)
        missing = sum(size for name, size in parts if there.get(name) != size)
        free = self.free_bytes(folder)
        # The parts and the file that they are joined to exist at the same time.
        needed = missing + local.stat().st_size + _SPARE_BYTES
        if free < needed:
            raise DiskFull(
                f"{self.serial} has {free / 1e6:.0f} MB free, and {local.name} needs "
                f"{needed / 1e6:.0f}; free some on the device and run it again"
            )
        with local.open("rb") as stream:
            for name, size in parts:
                content = stream.read(size)
                if there.get(name) != size:
                    self._send(content, f"{folder}/{name}")
                progress(size)
        paths = " ".join(quoted(f"{folder}/{name}") for name, _ in parts)
        new = quoted(f"{remote}.new")
        self.ask(f"cat {paths} > {new}" if parts else f": > {new}", timeout_s=600)
        if self._hash_of(f"{remote}.new") != whole:
            self.shell(f"rm -rf {new} {quoted(folder)}")
            raise Corrupted(f"{self.serial}: {remote} is not what was sent; run it again")
        self.ask(f"mv -f {new} {quoted(remote)} && rm -rf {quoted(folder)}")

    def pull(self, remote: str, local: Path) -> None:
        """Fetch a file whole, or not at all.

        Raises:
            Corrupted: what came is not what the device has.
            Disconnected: the device went away, or has no such file.
        """
        expected = self._hash_of(remote)
        if expected is None:
            raise DeviceError(f"{self.serial} has no {remote}")
        with atomic_write(local) as new:
            digest = hashlib.sha256()
            with new.open("wb") as stream:
                for data in self._contents(remote):
                    digest.update(data)
                    stream.write(data)
            if digest.hexdigest() != expected:
                raise Corrupted(f"{self.serial}: {remote} came incomplete; run it again")

    def remove(self, folder: str) -> None:
        """Remove a folder of the device."""
        self.ask(f"rm -rf {quoted(folder)}", timeout_s=600)

    def _hash_of(self, path: str) -> str | None:
        """The SHA-256 of a file; None if it does not exist."""
        output = self.shell(f"[ -f {quoted(path)} ] && sha256sum < {quoted(path)}", timeout_s=600)
        return output.text.split()[0] if output.status == 0 and output.text else None

    def _sizes(self, folder: str) -> dict[str, int]:
        """Sizes of the files of a folder, by name."""
        listed = self.ask(f"cd {quoted(folder)} && wc -c * 2>/dev/null || true")
        pairs = (line.split(maxsplit=1) for line in listed.splitlines())
        return {name: int(size) for size, name in pairs if name != "total"}

    def _send(self, content: bytes, remote: str) -> None:
        name = f"{remote},{stat.S_IFREG | 0o644}".encode()
        with _named_errors(self.serial), self._stream("sync:", _ANSWER_S) as stream:
            stream.sendall(messages.sync_packet(b"SEND", len(name), name))
            for start in range(0, len(content), messages.SYNC_DATA_MAX):
                part = content[start : start + messages.SYNC_DATA_MAX]
                stream.sendall(messages.sync_packet(b"DATA", len(part), part))
            stream.sendall(messages.sync_packet(b"DONE", int(time.time())))  # noqa: TID251
            self._expect_okay(stream, remote)

    def _contents(self, remote: str) -> Iterator[bytes]:
        name = remote.encode()
        with _named_errors(self.serial), self._stream("sync:", _ANSWER_S) as stream:
            stream.sendall(messages.sync_packet(b"RECV", len(name), name))
            while True:
                kind, size = messages.read_sync_packet(stream.recv)
                if kind == b"DONE":
                    return
                data = messages.read_exactly(stream.recv, size)
                if kind == b"FAIL":
                    raise DeviceError(f"{self.serial}: {remote}: {data.decode('utf-8', 'replace')}")
                yield data

    def _expect_okay(self, stream: socket.socket, remote: str) -> None:
        kind, size = messages.read_sync_packet(stream.recv)
        if kind == b"OKAY":
            return
        reason = messages.read_exactly(stream.recv, size).decode("utf-8", "replace")
        if "No space" in reason:
            raise DiskFull(f"{self.serial}: {remote}: {reason}; free some and run it again")
        raise DeviceError(f"{self.serial}: {remote}: {reason}")

    @contextmanager
    def _stream(self, service: str, timeout_s: float) -> Iterator[socket.socket]:
        """A stream to a service of the device.

        Until the service is asked for nothing has begun, so that an adb server that is started
        anew, and has to find the device first, costs a moment and no command.
        """
        with self._transport(timeout_s) as transport:
            _request(transport, service)
            yield transport.conn

    def _transport(self, timeout_s: float) -> Any:
        """`adbutils.AdbConnection` to the device, whose server may be starting."""
        from adbutils.errors import AdbError

        try:
            return self._opened(timeout_s)
        except TimeoutError:
            raise
        except (AdbError, OSError, EOFError):
            self.check(_BACK_S)
            return self._opened(timeout_s)

    def _opened(self, timeout_s: float) -> Any:
        transport = self.client.make_connection(timeout=timeout_s)
        try:
            _request(transport, f"host:transport:{self.serial}")
        except BaseException:
            transport.close()
            raise
        return transport


def _request(transport: Any, request: str) -> None:
    """Ask adb's server for something, over `adbutils.AdbConnection`."""
    name = request.encode()
    transport.conn.sendall(b"%04x" % len(name) + name)
    transport.check_okay()


def serials() -> list[str]:
    """Devices that adb's server sees and that accept this computer."""
    return [serial for serial, state in device_states().items() if state == "device"]


def device_states() -> dict[str, str]:
    """States, as adb calls them, of the devices that its server sees, by serial."""
    from adbutils import AdbClient

    with _named_errors("adb"):
        return {one.serial: one.state for one in AdbClient().list()}


def quoted(*words: str) -> str:
    """Words as the device's shell reads them back: no character of theirs means anything to it."""
    return " ".join(shlex.quote(word) for word in words)


@contextmanager
def _named_errors(serial: str) -> Iterator[None]:
    """Errors of adb and of the sockets to it as those of the device."""
    from adbutils.errors import AdbError

    try:
        yield
    except TimeoutError as error:
        raise TimedOut(f"{serial}: adb gives no answer") from error
    except (AdbError, OSError, EOFError) as error:
        text = " ".join(str(error).split())[:200]
        if "unauthorized" in text:
            raise Unauthorised(f"{serial} does not accept this computer ({text})") from error
        raise Disconnected(f"{serial} does not answer ({text}); check its cable") from error


def _hashes(path: Path) -> tuple[str, Sequence[tuple[str, int]]]:
    """The SHA-256 of a file, and of each part with its size."""
    state = path.stat()
    return _hashes_as_it_was(path, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=256)
def _hashes_as_it_was(path: Path, *_: int) -> tuple[str, Sequence[tuple[str, int]]]:
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as stream:
        while content := stream.read(PART_BYTES):
            whole.update(content)
            parts.append((hashlib.sha256(content).hexdigest(), len(content)))
    return whole.hexdigest(), parts
