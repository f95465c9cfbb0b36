"""The tools that macOS brings, as far as this machine has them.

OLD_BASH and OLD_MAKE name a bash 3.2 and a make 3.81. Without them this machine's are used, and
only tests/unit/test_portable.py finds what older ones lack.
"""

import os
import shutil
import sys
from pathlib import Path

# What the scripts may call; the path of macOS has neither flock, sha256sum, timeout nor setsid.
TOOLS = (
    *("awk", "basename", "cat", "chmod", "cp", "cut", "date", "dirname", "docker", "env", "find"),
    *("git", "grep", "head", "id", "ls", "mkdir", "mktemp", "mv", "openssl", "readlink", "rm"),
    *("sed", "sh", "sleep", "sort", "stat", "tail", "tr", "uname", "wc", "xargs"),
)
# Of the others, the options that are GNU's alone.
WRAPPER = r"""#!/bin/sh
for word; do
  case "{name} $word" in
    *' --'?* | 'date -d'* | 'grep -P'* | 'readlink -'[efm]* | 'sed -'[irsz]* | 'stat -c'* | \
    'xargs -r'*)
      echo "{name}: BSD's has no $word" >&2
      exit 64 ;;
  esac
done
exec {path} "$@"
"""
OTHER = {"docker", "env", "git", "openssl", "sh"}


def python() -> str:
    """Python 3.9; empty where none is installed."""
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"))
    return str(pyenv[0]) if pyenv else shutil.which("python3.9") or ""


def alone(folder: Path) -> tuple[str, ...]:
    """What to put before a command that is to have these tools alone, which are in folder/bin."""
    tools = folder / "bin"
    tools.mkdir()
    for name in TOOLS:
        path = shutil.which(name)
        if name in OTHER:
            (tools / name).symlink_to(path)
        else:
            (tools / name).write_text(WRAPPER.format(name=name, path=path))
            (tools / name).chmod(0o755)
    (tools / "python3").symlink_to(python() or sys.executable)
    bash = os.environ.get("OLD_BASH") or shutil.which("bash")
    (tools / "bash").symlink_to(bash)
    make = os.environ.get("OLD_MAKE") or shutil.which("make")
    (tools / "make").write_text(f'#!/bin/sh\nexec {make} SHELL={bash} "$@"\n')
    (tools / "make").chmod(0o755)
    return ("env", f"PATH={tools}")
