"""Memory of a tree of processes, whatever else runs on the machine."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+) *(.*)$")


def memory_mb(smaps: Sequence[str]) -> float:
    """The proportional set size that a tree would have if no other process on the machine used the same files.

    The kernel's own figure falls with every process that maps the same libraries, and here the load generator and
    servers of the same environment would.

    Args:
        smaps: text of `/proc/PID/smaps` of each process.

    Returns:
        MB of 10⁶ bytes.
    """
    anonymous_kib, files_kib = 0, Counter[str]()
    for text in smaps:
        of_process = Counter[str]()
        for file, kib in _mappings(text):
            # Of a file's pages those that were written to are the process's own.
            anonymous_kib += kib["Anonymous"] if file else kib["Pss"]
            of_process[file] += kib["Rss"] - kib["Anonymous"] if file else 0
        files_kib |= of_process  # the larger one of each file: processes of one tree share its pages
    return (anonymous_kib + files_kib.total()) * 1024 / 1e6


def _mappings(smaps: str) -> Iterator[tuple[str, Counter[str]]]:
    """Each mapping's file, "" for none, and what is said of it in KiB."""
    file, kib = "", Counter[str]()
    for line in smaps.splitlines():
        found = _MAPPING.match(line)
        if found:
            yield file, kib
            file, kib = (found[2] if found[1] != "0" else ""), Counter[str]()
        elif line.endswith(" kB"):
            name, _, value = line.partition(":")
            kib[name] = int(value.split()[0])
    yield file, kib
