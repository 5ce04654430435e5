"""A stand-in for an Android device: the device side of adb, in this process, on loopback.

Any adb client connects to it (`adb connect 127.0.0.1:PORT`) and finds a device with a shell, file
transfer, properties, battery and thermal status. Commands run on this machine, below a folder of
the stand-in's own: paths in `MAPPED` are looked up there. Faults of real devices can be switched
on. It has a phone's interfaces and none of its speed, and its properties say so.
"""

import contextlib
import os
import queue
import secrets
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from atom_repro.adb import messages
from atom_repro.adb.messages import Message, shell_packet, sync_packet
from atom_repro.datatypes import AtomError
from atom_repro.device.architecture import LAUNCHER, Architecture

# What a device has at these places, the stand-in has below its folder.
MAPPED = (
    "/data",
    "/proc/sys/kernel/random/boot_id",
    "/sys/class/thermal",
    "/sys/class/power_supply",
    "/sys/bus/iio",
)
MARK = "ro.boot.atom_standin"  # the property that no phone has
_FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,sendrecv_v2"
_MARKED_PROCESS = "ATOM_STANDIN"
_NO_SPACE = b"No space left on device"


@dataclass
class Faults:
    """What goes wrong, from now on; `reset` ends it.

    Attributes:
        drop_after_received, drop_after_sent: close the connection after so many bytes of streams
            from or to the client, as a pulled cable does.
        deny_authorisation: never accept a client's key.
        free_bytes: that are left for pushed files, as on a full disk.
        corrupt: flip a byte of each pushed file whose path ends like this.
        truncate_pull: end each pulled file after so many bytes.
    """

    drop_after_received: int | None = None
    drop_after_sent: int | None = None
    deny_authorisation: bool = False
    free_bytes: int | None = None
    corrupt: str = ""
    truncate_pull: int | None = None

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]


class StandIn:
    """A device at `127.0.0.1:port`, from `start` to `stop`; use as a context manager.

    Args:
        root: its folder, created if it is missing.
        port: 0 for one that is free. adb itself looks at 5555 to 5585, which are refused.
        properties: beside, or instead of, its own.
        architecture: of the programs that the runner's bundle may bring; where it is not that of
            this machine they are emulated. None for this machine's.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        properties: Mapping[str, str] | None = None,
        architecture: Architecture | None = None,
    ) -> None:
        if 5555 <= port <= 5585:
            raise ValueError(f"port {port}: adb takes those from 5555 to 5585 for emulators")
        self.root, self.port = root.resolve(), port
        self.architecture = architecture or Architecture.of_this_machine()
        if missing := self.architecture.missing_emulator:
            raise AtomError(f"a stand-in with {self.architecture} cannot run here: {missing}")
        self.faults = Faults()
        self.properties = {
            "ro.product.name": "standin",
            "ro.product.model": "stand-in",
            "ro.product.device": "standin",
            "ro.product.manufacturer": "atom-repro",
            "ro.soc.model": "the processor of this computer",
            "ro.build.fingerprint": "atom-repro/standin",
            "ro.build.version.release": "none",
            "ro.product.cpu.abi": self.architecture.abi,
            MARK: "1",
            **(properties or {}),
        }
        self._identity = secrets.token_hex(8)  # marks its processes
        self._server: socket.socket | None = None
        self._transports: set[_Transport] = set()
        self._lock = threading.Lock()
        self._made: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """What `adb connect` takes."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "StandIn":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen for clients."""
        self._make_files()
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        self._thread(self._accept, self._server)

    def stop(self) -> None:
        """Drop all clients, end all processes, listen no more."""
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # closing alone does not wake `accept`
            server.close()
        self.disconnect()
        self.kill_processes()
        for thread in self._made:
            thread.join(5)

    def disconnect(self) -> None:
        """Drop all clients, as a pulled cable does; processes go on."""
        with self._lock:
            transports = list(self._transports)
        for transport in transports:
            transport.close()

    def reboot(self) -> None:
        """End all processes and drop all clients; the device comes back with another boot id."""
        self.kill_processes()
        self._write_boot_id()
        self.disconnect()

    def kill_processes(self, how: signal.Signals = signal.SIGKILL, name: str = "") -> int:
        """Send a signal to its processes, or to those whose command line has `name`, as the system
        does when memory runs out; returns how many there were."""
        number = 0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if name in " ".join(process.cmdline()):
                    process.send_signal(how)
                    number += 1
        return number

    def processes(self) -> Iterator[psutil.Process]:
        """What runs on the device: whatever its shells started, and whatever that started."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARKED_PROCESS) == self._identity:
                    yield process

    def set_state(self, name: str, text: str) -> None:
        """Set what `dumpsys <name>` prints."""
        (self.root / "state" / name).write_text(text, encoding="utf-8")

    def set_power(self, watts: float, *, rails: bool = False) -> None:
        """Have counters of energy tell a constant power: those of a battery of 4 V that is not
        charged, or those of two power rails, which count until the device is stopped."""
        if rails:
            self._thread(self._count_energy, watts, self._server)
            return
        battery = self.root / "sys/class/power_supply/battery"
        battery.mkdir(parents=True, exist_ok=True)
        for name, value in (
            ("status", "Discharging"),
            ("voltage_now", 4_000_000),
            ("current_now", round(-watts / 4.0 * 1e6)),
        ):
            (battery / name).write_text(f"{value}\n", encoding="utf-8")

    def _count_energy(self, watts: float, server: socket.socket) -> None:
        counter = self.root / "sys/bus/iio/devices/iio:device0/energy_value"
        counter.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        while self._server is server:
            passed = time.monotonic() - began
            half = round(passed * watts / 2 * 1e6)
            lines = "".join(
                f"CH{n}(T={passed * 1e3:.0f})[{name}], {half}\n"
                for n, name in enumerate(("S4M_VDD_CPUCL0", "S2M_VDD_CPUCL2"))
            )
            new = counter.with_name("new")
            new.write_text(f"t={passed * 1e3:.0f}\n{lines}", encoding="utf-8")
            new.replace(counter)
            time.sleep(0.02)

    def local(self, path: str | bytes) -> Path:
        """Where a path of the device lies on this machine."""
        text = os.fsdecode(path)
        normal = os.path.normpath(text)
        if any(normal == place or normal.startswith(f"{place}/") for place in MAPPED):
            return self.root / normal.lstrip("/")
        return Path(text)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its processes."""
        launcher: dict[str, str] = {}
        if not self.architecture.is_native:
            launcher[LAUNCHER] = _EMULATE
        return launcher | {
            "PATH": f"{self.root}/system/bin:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(self.root),
            "STANDIN_ROOT": str(self.root),
            _MARKED_PROCESS: self._identity,
        }

    def command(self, text: bytes) -> bytes:
        """A shell command with the device's paths below the stand-in's folder."""
        for place in MAPPED:
            text = text.replace(place.encode(), os.fsencode(self.root) + place.encode())
        return text

    def output(self, data: bytes) -> bytes:
        """Output of a command with the device's paths."""
        return data.replace(os.fsencode(self.root), b"")

    def _make_files(self) -> None:
        shutil.rmtree(self.root / "system", ignore_errors=True)  # of another architecture
        for folder in ("data/local/tmp", "system/bin", "state", "proc/sys/kernel/random",
                       "sys/class/thermal/thermal_zone0", "sys/class/power_supply"):  # fmt: skip
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self._write_boot_id()
        zone = self.root / "sys/class/thermal/thermal_zone0"
        (zone / "type").write_text("standin\n")
        (zone / "temp").write_text("30000\n")
        lines = (f"[{name}]: [{value}]\n" for name, value in self.properties.items())
        (self.root / "state/properties").write_text("".join(lines), encoding="utf-8")
        self.set_state(
            "battery",
            "Current Battery Service state:\n  AC powered: true\n  level: 100\n  scale: 100\n"
            "  voltage: 4000\n  temperature: 300\n",
        )
        self.set_state("thermalservice", "IsStatusOverride: false\nThermal Status: 0\n")
        tools = dict(_TOOLS)
        if not self.architecture.is_native:
            (self.root / "emulated").mkdir(exist_ok=True)
            tools |= {name: text.format(self.architecture) for name, text in _EMULATION.items()}
        for name, script in tools.items():
            path = self.root / "system/bin" / name
            path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            path.chmod(0o755)

    def _write_boot_id(self) -> None:
        path = self.root / "proc/sys/kernel/random/boot_id"
        path.write_text(f"{uuid.uuid4()}\n")

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            transport = _Transport(self, connection)
            with self._lock:
                self._transports.add(transport)
            self._thread(self._serve, transport)

    def _serve(self, transport: "_Transport") -> None:
        try:
            transport.serve()
        finally:
            transport.close()
            with self._lock:
                self._transports.discard(transport)

    def _thread(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._made.append(thread)
        thread.start()


# Programs that Android has and this machine has not, or with another output.
_TOOLS = {
    "getprop": """\
[ $# = 0 ] && exec cat "$STANDIN_ROOT/state/properties"
sed -n "s/^\\\\[$1\\\\]: \\\\[\\\\(.*\\\\)\\\\]$/\\\\1/p" "$STANDIN_ROOT/state/properties\"""",
    "dumpsys": """\
case "$1" in
    battery|thermalservice) exec cat "$STANDIN_ROOT/state/$1" ;;
    *) echo "Can't find service: $1" >&2; exit 1 ;;
esac""",
}
# What a device of another architecture has beside them. The system of its programs is an empty
# folder: they have nothing but what they bring.
_EMULATE = "emulate"
_EMULATION = {
    _EMULATE: 'exec {0.emulation} -L "$STANDIN_ROOT/emulated" "$@"',
    "uname": """\
[ "$1" = -m ] && {{ echo {0}; exit; }}
exec /bin/uname "$@\"""",
}


class _Transport:
    """The connection of one client: its streams, one thread each."""

    def __init__(self, device: StandIn, connection: socket.socket) -> None:
        self._device, self._connection = device, connection
        self._streams: dict[int, _Stream] = {}
        self._sending = threading.Lock()
        self._received = self._sent = 0
        self._last_id = 0
        self.max_data = messages.MAX_DATA

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        for stream in list(self._streams.values()):
            stream.end()

    def serve(self) -> None:
        """Answer messages until the client is gone."""
        accepted = False
        try:
            while True:
                message = messages.read_message(self._connection)
                if message.command == messages.CNXN:
                    self.max_data = min(message.arg1, messages.MAX_DATA)
                    accepted = not self._device.faults.deny_authorisation
                    self._greet() if accepted else self._ask_for_key()
                elif message.command == messages.AUTH and not accepted:
                    # The key is not checked: whoever reaches loopback may use it.
                    if message.arg0 == messages.AUTH_SIGNATURE:
                        self._ask_for_key()
                elif accepted:
                    self._dispatch(message)
        except OSError:
            return

    def _greet(self) -> None:
        properties = self._device.properties
        names = ("ro.product.name", "ro.product.model", "ro.product.device")
        shown = "".join(f"{name}={properties[name]};" for name in names)
        banner = f"device::{shown}features={_FEATURES}".encode()
        self.send(Message(messages.CNXN, messages.VERSION, messages.MAX_DATA, banner))

    def _ask_for_key(self) -> None:
        self.send(Message(messages.AUTH, messages.AUTH_TOKEN, 0, secrets.token_bytes(20)))

    def _dispatch(self, message: Message) -> None:
        if message.command == messages.OPEN:
            self._last_id += 1
            stream = _Stream(self, self._last_id, message.arg0)
            self._streams[stream.local] = stream
            self._device._thread(self._run, stream, message.data.rstrip(b"\0"))
            return
        opened = self._streams.get(message.arg1)
        if opened is None:
            if message.command != messages.CLSE:
                self.send(Message(messages.CLSE, 0, message.arg0))
        elif message.command == messages.WRTE:
            self._count(received=len(message.data))
            opened.received(message.data)
            self.send(Message(messages.OKAY, opened.local, opened.remote))
        elif message.command == messages.OKAY:
            opened.ready.set()
        elif message.command == messages.CLSE:
            opened.end()

    def _run(self, stream: "_Stream", service: bytes) -> None:
        """Serve a stream, and close it."""
        try:
            self.send(Message(messages.OKAY, stream.local, stream.remote))
            name, _, rest = service.partition(b":")
            if name == b"sync":
                _Sync(self._device, stream).serve()
            elif name == b"exec" or name.split(b",")[0] == b"shell":
                _shell(self._device, stream, rest, packets=b"v2" in name.split(b","))
            elif name == b"reboot":
                self._device.reboot()
        except (OSError, ConnectionError):
            pass
        finally:
            self._streams.pop(stream.local, None)
            with contextlib.suppress(OSError):
                self.send(Message(messages.CLSE, stream.local, stream.remote))

    def send(self, message: Message) -> None:
        if message.command == messages.WRTE:
            self._count(sent=len(message.data))
        with self._sending:
            self._connection.sendall(message.pack())

    def _count(self, *, received: int = 0, sent: int = 0) -> None:
        """Count bytes of streams, and drop the client where a fault says so."""
        faults = self._device.faults
        self._received += received
        self._sent += sent
        for limit, count in (
            (faults.drop_after_received, self._received),
            (faults.drop_after_sent, self._sent),
        ):
            if limit is not None and count > limit:
                self.close()
                raise ConnectionError("dropped")


class _Stream:
    """One stream of a transport: what a service reads and writes."""

    def __init__(self, transport: _Transport, local: int, remote: int) -> None:
        self._transport, self.local, self.remote = transport, local, remote
        self._arrived: queue.Queue[bytes] = queue.Queue()
        self._rest = b""
        self.ready = threading.Event()  # the client has taken the last message
        self.ready.set()
        self.ended = threading.Event()

    def received(self, data: bytes) -> None:
        if data:
            self._arrived.put(data)

    def end(self) -> None:
        self.ended.set()
        self._arrived.put(b"")
        self.ready.set()

    def read(self, most: int) -> bytes:
        """Some bytes, at most so many; none if the client has closed the stream."""
        if not self._rest:
            if self.ended.is_set() and self._arrived.empty():
                return b""
            self._rest = self._arrived.get()
        data, self._rest = self._rest[:most], self._rest[most:]
        return data

    def write(self, data: bytes) -> None:
        """Send bytes, one message in flight.

        Raises:
            ConnectionError: the client has closed the stream.
        """
        step = self._transport.max_data
        for start in range(0, len(data), step):
            self.ready.wait()
            if self.ended.is_set():
                raise ConnectionError("the stream is closed")
            self.ready.clear()
            part = data[start : start + step]
            self._transport.send(Message(messages.WRTE, self.local, self.remote, part))


def _shell(device: StandIn, stream: _Stream, text: bytes, *, packets: bool) -> None:
    """Run a command; a client that goes away sends it a hang-up, as on a device."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", device.command(text or b"exec sh")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if packets else subprocess.STDOUT,
        cwd=device.root,
        env=device.environment,
    )
    assert process.stdin and process.stdout
    outputs = [(messages.STDOUT, process.stdout)]
    if process.stderr:
        outputs.append((messages.STDERR, process.stderr))
    writers = [
        threading.Thread(target=_forward, args=(device, stream, kind, pipe, packets), daemon=True)
        for kind, pipe in outputs
    ]
    reader = threading.Thread(
        target=_feed, args=(stream, process, process.stdin, packets), daemon=True
    )
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    status = process.wait()
    if packets and not stream.ended.is_set():
        # A shell reports a signal as 128 and its number.
        code = status if status >= 0 else 128 - status
        stream.write(shell_packet(messages.EXIT, bytes([code & 0xFF])))


def _forward(device: StandIn, stream: _Stream, kind: int, pipe: IO[bytes], packets: bool) -> None:
    with pipe:
        while data := pipe.read1(messages.SYNC_DATA_MAX):  # type: ignore[attr-defined]
            shown = device.output(data)
            try:
                stream.write(shell_packet(kind, shown) if packets else shown)
            except (OSError, ConnectionError):
                return


def _feed(
    stream: _Stream, process: "subprocess.Popen[bytes]", pipe: IO[bytes], packets: bool
) -> None:
    """Give a process the client's input; hang up when the client is gone."""
    with contextlib.suppress(OSError, ConnectionError):
        while True:
            if packets:
                kind, data = messages.read_shell_packet(stream.read)
                if kind == messages.CLOSE_STDIN:
                    pipe.close()
                elif kind == messages.STDIN:
                    pipe.write(data)
                    pipe.flush()
            else:
                data = stream.read(messages.MAX_DATA)
                if not data:
                    break
                pipe.write(data)
                pipe.flush()
    if process.poll() is None:
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGHUP)
    with contextlib.suppress(OSError):
        pipe.close()


class _Sync:
    """File transfer."""

    def __init__(self, device: StandIn, stream: _Stream) -> None:
        self._device, self._stream = device, stream
        self._requests = {
            b"STAT": self._stat_1,
            b"LST2": self._stat_2,
            b"STA2": self._stat_2,
            b"LIST": self._list_1,
            b"LIS2": self._list_2,
            b"SEND": self._send_1,
            b"SND2": self._send_2,
            b"RECV": self._receive_1,
            b"RCV2": self._receive_2,
        }

    def serve(self) -> None:
        """Answer requests until the client quits."""
        while True:
            name, length = messages.read_sync_packet(self._stream.read)
            if name == b"QUIT":
                return
            path = messages.read_exactly(self._stream.read, length)
            answer = self._requests.get(name)
            if answer is None:
                self._fail(b"unknown request " + name)
                return
            answer(name, path)

    def _stat_1(self, name: bytes, path: bytes) -> None:
        try:
            found = self._device.local(path).lstat()
            fields = found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)
        except OSError:
            fields = 0, 0, 0
        self._stream.write(name + messages.STAT_1.pack(*fields))

    def _stat_2(self, name: bytes, path: bytes) -> None:
        local = self._device.local(path)
        try:
            found = local.lstat() if name == b"LST2" else local.stat()
        except OSError as error:
            self._stream.write(name + messages.STAT_2.pack(error.errno or 1, *[0] * 10))
        else:
            self._stream.write(name + _status_2(found))

    def _list_1(self, _: bytes, path: bytes) -> None:
        for entry, found in self._entries(path):
            fields = found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)
            packed = messages.STAT_1.pack(*fields) + struct.pack("<I", len(entry))
            self._stream.write(b"DENT" + packed + entry)
        self._stream.write(b"DONE" + bytes(16))

    def _list_2(self, _: bytes, path: bytes) -> None:
        for entry, found in self._entries(path):
            packed = _status_2(found) + struct.pack("<I", len(entry))
            self._stream.write(b"DNT2" + packed + entry)
        self._stream.write(b"DONE" + bytes(messages.STAT_2.size + 4))

    def _entries(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        folder = self._device.local(path)
        if folder.is_dir():
            for entry in folder.iterdir():
                yield os.fsencode(entry.name), entry.lstat()

    def _send_1(self, _: bytes, path_and_mode: bytes) -> None:
        path, _, mode = path_and_mode.rpartition(b",")
        self._store(path, int(mode))

    def _send_2(self, _: bytes, path: bytes) -> None:
        messages.read_exactly(self._stream.read, 4)  # the request's name again
        mode, flags = struct.unpack("<2I", messages.read_exactly(self._stream.read, 8))
        self._store(path, mode, supported=not flags)

    def _store(self, path: bytes, mode: int, *, supported: bool = True) -> None:
        """Write a pushed file. A failure is told after its data, which the client goes on sending
        meanwhile."""
        local, problem = self._device.local(path), b"" if supported else b"compression"
        with tempfile.TemporaryFile() as arrived:
            while True:
                name, number = messages.read_sync_packet(self._stream.read)
                if name == b"DONE":
                    break
                data = messages.read_exactly(self._stream.read, number)
                if not problem and self._fits(len(data)):
                    arrived.write(data)
                else:
                    problem = problem or _NO_SPACE
            if not problem:
                arrived.seek(0)
                problem = self._put(arrived, local, mode, modified=number)
        self._stream.write(
            sync_packet(b"FAIL", len(problem), problem) if problem else sync_packet(b"OKAY", 0)
        )

    def _fits(self, size: int) -> bool:
        faults = self._device.faults
        if faults.free_bytes is not None:
            faults.free_bytes -= size
        return faults.free_bytes is None or faults.free_bytes >= 0

    def _put(self, arrived: IO[bytes], local: Path, mode: int, *, modified: int) -> bytes:
        """Make a file or a link of what has arrived; returns what hindered it."""
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            if local.is_symlink():
                local.unlink()
            if stat.S_ISLNK(mode):
                local.symlink_to(os.fsdecode(arrived.read().rstrip(b"\0")))
                return b""
            with local.open("wb") as stream:
                shutil.copyfileobj(arrived, stream)
            if self._device.faults.corrupt and local.name.endswith(self._device.faults.corrupt):
                _flip_a_byte(local)
            local.chmod(stat.S_IMODE(mode) | 0o600)
            os.utime(local, (modified, modified))
        except OSError as error:
            return os.strerror(error.errno or 1).encode()
        return b""

    def _receive_1(self, _: bytes, path: bytes) -> None:
        self._fetch(path)

    def _receive_2(self, _: bytes, path: bytes) -> None:
        messages.read_exactly(self._stream.read, 8)  # the request's name again, and flags
        self._fetch(path)

    def _fetch(self, path: bytes) -> None:
        left = self._device.faults.truncate_pull
        try:
            with self._device.local(path).open("rb") as stream:
                while data := stream.read(messages.SYNC_DATA_MAX):
                    if left is not None:
                        data, left = data[:left], left - len(data[:left])
                    self._stream.write(sync_packet(b"DATA", len(data), data))
                    if left == 0:
                        break
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            self._fail(os.strerror(error.errno or 1).encode())
            return
        self._stream.write(sync_packet(b"DONE", 0))

    def _fail(self, why: bytes) -> None:
        self._stream.write(sync_packet(b"FAIL", len(why), why))


def _status_2(found: os.stat_result) -> bytes:
    return messages.STAT_2.pack(
        0, found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid,
        found.st_size, int(found.st_atime), int(found.st_mtime), int(found.st_ctime),
    )  # fmt: skip


def _flip_a_byte(path: Path) -> None:
    with path.open("r+b") as stream:
        middle = path.stat().st_size // 2
        stream.seek(middle)
        byte = stream.read(1)
        if byte:
            stream.seek(middle)
            stream.write(bytes([byte[0] ^ 0xFF]))
