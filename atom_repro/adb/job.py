"""Work on a device that outlives its shell: started, watched, ended, and never lost silently.

A job runs in a process group of its own, because a shell whose adb client goes away gets a hang-up
and its children none. It has ended well when its folder holds its exit status; a device that came
back with another boot id has lost it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from atom_repro.adb.connection import Connection, quoted
from atom_repro.adb.faults import Busy, Crashed, Disconnected, Killed, Rebooted, TimedOut

_SIGNAL = 128  # a shell's exit status of a command that a signal ended is this and its number
_KILL = 9
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TERMINATION_S = 2.0


@dataclass(frozen=True)
class Job:
    """A running or ended job of a folder on a device.

    Attributes:
        folder: that holds `pid`, `boot`, `status`, `stdout` and `stderr`.
        boot_id: of the device when it was started.
    """

    connection: Connection
    folder: str
    boot_id: str

    @classmethod
    def start(
        cls,
        connection: Connection,
        folder: str,
        command: str,
        *,
        environment: Mapping[str, str] | None = None,
        back_within_s: float = 30.0,
    ) -> "Job":
        """Start a command of the device's shell in a folder, which must not have a job running.

        Args:
            command: whose words are quoted.
            back_within_s: how long a device may be gone while it is started; whether it was is
                asked then.

        Raises:
            Busy: the folder's job is running.
            Rebooted: the device was started anew meanwhile; Disconnected: it stayed away.
        """
        connection.ask(f"mkdir -p {quoted(folder)}")
        job = cls(connection, folder, connection.boot_id())
        if job.alive():
            raise Busy(
                f"{connection.serial} has another run in {folder}; wait for it, or end it with "
                f"`kill -- -$(cat {folder}/pid)` on the device"
            )
        exports = "".join(
            f"export {name}={quoted(value)}; " for name, value in (environment or {}).items()
        )
        # The group's number is written by its leader, before anything else of it runs.
        inner = (
            f"cd {quoted(folder)} && cat {_BOOT_ID} > boot && echo $$ > pid && "
            f"{{ ( {exports}{command} ) > stdout 2> stderr; "
            "echo $? > status.new; mv status.new status; }"
        )
        begun = (
            "tries=0; while [ ! -f pid ] && [ $tries -lt 100 ]; do "
            "sleep 0.05; tries=$((tries + 1)); done; [ -f pid ]"
        )
        begin = f"{{ setsid sh -c {quoted(inner)} < /dev/null > /dev/null 2>&1 & }}; {begun}"
        cleared = f"cd {quoted(folder)} && rm -f pid status stdout stderr"
        connection.ask(cleared)
        try:
            connection.ask(f"cd {quoted(folder)} && {begin}")
        except Disconnected:
            connection.check(wait_s=back_within_s)
            if connection.boot_id() != job.boot_id:
                raise job._rebooted() from None
            # What was started outlives its connection, and leaves its number first of all.
            if connection.shell(f"cd {quoted(folder)} && {{ {begun}; }}").status:
                connection.ask(f"{cleared} && {begin}")
        return job

    def alive(self) -> bool:
        """Whether a process of its group runs."""
        # After a start of the device its number may be that of another group.
        test = (
            f"cd {quoted(self.folder)} && [ -f pid ] && cmp -s boot {_BOOT_ID} && "
            'kill -s 0 -- "-$(cat pid)" 2> /dev/null'
        )
        return self.connection.shell(test).status == 0

    def status(self) -> int | None:
        """Its exit status; None while it has none."""
        output = self.connection.shell(f"cat {quoted(self.folder + '/status')} 2> /dev/null")
        return int(output.text) if output.status == 0 and output.text else None

    def wait(
        self,
        *,
        timeout_s: float,
        every_s: float = 0.5,
        back_within_s: float = 30.0,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait for its end.

        Args:
            every_s: between two looks.
            back_within_s: how long a device may be gone; a cable that is plugged in again, and an
                adb server that is started anew, cost nothing.
            watch: called at each look; what it raises ends the job.

        Raises:
            TimedOut: it took longer, and was ended.
            Rebooted, Killed, Crashed: as they say; Disconnected: the device stayed away.
        """
        deadline = time.monotonic() + timeout_s
        status: int | None = None
        try:
            while True:
                try:
                    status = self._ended()
                    if status is not None:
                        break
                    watch()
                except Disconnected:
                    self.connection.check(wait_s=back_within_s)
                if time.monotonic() > deadline:
                    raise TimedOut(
                        f"{self.connection.serial}: the run did not end within {timeout_s:.0f} s, "
                        "and was ended"
                    )
                time.sleep(every_s)
        except BaseException as error:
            if not isinstance(error, Disconnected | Rebooted | Killed):
                self.stop()
            raise
        if status:
            self._raise(status)

    def stop(self) -> None:
        """End it, with everything that it has started."""
        group = f'"-$(cat {quoted(self.folder + "/pid")})"'
        self.connection.shell(
            f"kill -s TERM -- {group} 2> /dev/null; sleep {_TERMINATION_S}; "
            f"kill -s KILL -- {group} 2> /dev/null"
        )

    def _ended(self) -> int | None:
        """Its exit status, None while it runs."""
        if self.connection.boot_id() != self.boot_id:
            raise self._rebooted()
        status = self.status()
        if status is None and not self.alive():
            # The end may have come between the two questions.
            status = self.status()
            if status is None:
                raise Killed(
                    f"{self.connection.serial} killed the run and its shell, most likely for lack "
                    "of memory; close other programs, or choose a smaller model"
                )
        return status

    def _rebooted(self) -> Rebooted:
        return Rebooted(f"{self.connection.serial} started anew during the run; run it again")

    def _raise(self, status: int) -> None:
        log = self.connection.shell(f"tail -c 400 {quoted(self.folder + '/stderr')}").text
        last = " ".join(log.split())[-300:]
        serial = self.connection.serial
        if status == _SIGNAL + _KILL:
            raise Killed(
                f"{serial} killed the run, most likely for lack of memory; close other programs, "
                "or choose a smaller model"
            )
        if status > _SIGNAL:
            raise Crashed(f"{serial}: the run was ended by signal {status - _SIGNAL}: {last}")
        raise Crashed(f"{serial}: the run ended with status {status}: {last}")
