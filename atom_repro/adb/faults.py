"""What goes wrong with a device, as errors with an outcome that a record keeps."""

from atom_repro.datatypes import AtomError


class DeviceError(AtomError):
    """A device did not do what it was asked to."""


class Disconnected(DeviceError):
    """The device is gone: a cable, a server, a battery."""

    outcome = "disconnected"


class Rebooted(DeviceError):
    """The device has started anew while it was working."""

    outcome = "rebooted"


class Unauthorised(DeviceError):
    """The device does not accept this computer's key."""

    outcome = "unauthorised"


class DiskFull(DeviceError):
    """The device has no space left."""

    outcome = "disk_full"


class TimedOut(DeviceError):
    """The work was not done in time, and was ended."""

    outcome = "timeout"


class Killed(DeviceError):
    """The work was killed, most likely for lack of memory."""

    outcome = "killed"


class Crashed(DeviceError):
    """The work ended by a signal of its own."""

    outcome = "crashed"


class Corrupted(DeviceError):
    """A file is not what was sent, or ends early."""

    outcome = "corrupted"


class WrongDevice(DeviceError):
    """None of the devices is the one that was asked for, or several could be."""

    outcome = "wrong_device"


class NotReady(DeviceError):
    """The device stayed too warm, or its battery too empty."""

    outcome = "not_ready"


class Busy(DeviceError):
    """Another run has the device."""

    outcome = "busy"
