"""Messages of the adb protocol: transport, shell and sync, as both sides exchange them.

Source: protocol.txt, shell_service.h and SYNC.TXT of Android's packages/modules/adb.
"""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

# Transport messages: a header of six little-endian words, then `data`.
CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(name, "little")
    for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
AUTH_TOKEN, AUTH_SIGNATURE, AUTH_PUBLIC_KEY = 1, 2, 3
VERSION = 0x01000001  # from this version on, nobody computes checksums
MAX_DATA = 2**20
_HEADER = struct.Struct("<6I")

# Packets inside a shell,v2 stream: an id, a length, then bytes.
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN, WINDOW_SIZE = range(6)
_SHELL_PACKET = struct.Struct("<BI")

# Of sync: file status, versions 1 and 2.
STAT_1 = struct.Struct("<3I")  # mode, size, mtime
STAT_2 = struct.Struct("<IQQIIIIQqqq")  # error, dev, ino, mode, nlink, uid, gid, size, a/m/ctime
SYNC_DATA_MAX = 64 * 1024


@dataclass(frozen=True)
class Message:
    """A transport message; what `arg0` and `arg1` mean depends on the command."""

    command: int
    arg0: int
    arg1: int
    data: bytes = b""

    def pack(self) -> bytes:
        header = (self.command, self.arg0, self.arg1, len(self.data), 0, self.command ^ 0xFFFFFFFF)
        return _HEADER.pack(*header) + self.data


def read_message(connection: socket.socket) -> Message:
    """The next message of a connection.

    Raises:
        ConnectionError: the other side is gone, or does not speak adb.
    """
    fields = _HEADER.unpack(read_exactly(connection.recv, _HEADER.size))
    command, arg0, arg1, length, _, magic = fields
    if magic != command ^ 0xFFFFFFFF or length > MAX_DATA:
        raise ConnectionError("not an adb message")
    return Message(command, arg0, arg1, read_exactly(connection.recv, length))


def read_exactly(receive: Callable[[int], bytes], size: int) -> bytes:
    """So many bytes of a stream.

    Raises:
        ConnectionError: it ends before.
    """
    parts, missing = [], size
    while missing:
        part = receive(min(missing, MAX_DATA))
        if not part:
            raise ConnectionError(f"the stream ended {missing} bytes early")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def shell_packet(kind: int, data: bytes) -> bytes:
    """A packet of a shell,v2 stream."""
    return _SHELL_PACKET.pack(kind, len(data)) + data


def read_shell_packet(receive: Callable[[int], bytes]) -> tuple[int, bytes]:
    """The kind and content of the next packet of a shell,v2 stream."""
    kind, length = _SHELL_PACKET.unpack(read_exactly(receive, _SHELL_PACKET.size))
    return kind, read_exactly(receive, length)


def sync_packet(name: bytes, value: int, data: bytes = b"") -> bytes:
    """A packet of a sync stream: four letters, a number, often the length of what follows."""
    return name + struct.pack("<I", value) + data


def read_sync_packet(receive: Callable[[int], bytes]) -> tuple[bytes, int]:
    """The letters and the number of the next packet of a sync stream."""
    header = read_exactly(receive, 8)
    return header[:4], int.from_bytes(header[4:], "little")
