"""What surrounds the library: environment variables, installed packages, where gradlab came from.

Everything may import this module, kernels included, so it imports nothing but the standard library.
It is the first module of gradlab that runs, and refuses a package folder that another distribution
writes to as well.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# On package indexes the name `gradlab` belongs to another project, which installs a package of
# that name as well.
DISTRIBUTION = "gradlab-arrays"
STRANGER = "gradlab"


# Variables


def variable(name: str, default: str = "") -> str:
    """The value of an environment variable; one that is empty counts as unset."""
    return os.environ.get(name) or default


def flag(name: str) -> bool:
    """Whether a variable turns something on: set, and neither empty nor 0."""
    return variable(name, "0") != "0"


def home() -> Path | None:
    """The user's home folder; None where the system knows of none."""
    try:
        if variable("HOME") or os.name == "nt":
            return Path.home()
        import pwd  # Path.home() would take an empty HOME for the root folder

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (RuntimeError, KeyError):  # a user id without an entry
        return None


# What to install


def pip_install(extra: str, *packages: str, options: str = "") -> str:
    """The command that installs packages, in the versions that gradlab's own metadata asks for.

    It names the packages themselves rather than an extra of gradlab's: that works whether gradlab
    came from a checkout, a wheel or an index. ``extra`` is the extra that lists them (``"a,b"``:
    either of two), ``""`` for what gradlab always needs. Without ``packages`` it is all of them;
    where the metadata is missing, that takes a checkout.
    """
    listed = _requirements(extra)
    wanted = [listed.get(_normalized(name), name) for name in packages] or [*listed.values()]
    wanted = wanted or [f".[{extra}]"]
    quoted = [f'"{each}"' if re.search(r"[^\w.-]", each) else each for each in wanted]
    return " ".join(["pip install", *options.split(), *quoted])


def _requirements(extra: str) -> dict[str, str]:
    """Name and requirement of each package that an extra lists, as ``numba>=0.61``."""
    from importlib import metadata  # takes some milliseconds, and is for errors alone

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # frozen into a program, say
        return {}
    found = {}
    for line in lines:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        of = re.search(r"extra *== *[\"']([\w-]+)[\"']", marker)
        name = re.match(r"[\w.-]+", requirement)
        if name and (of[1] if of else "") in extra.split(","):
            found[_normalized(name[0])] = requirement
    return found


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Another project's files


def stranger(folder: Path) -> str:
    """The version of another project's `gradlab` that is installed into ``folder``; "" if none is.

    Only names are read: this runs whenever gradlab is imported.
    """
    try:
        names = os.listdir(folder)
    except OSError:  # imported from an archive
        return ""
    for name in names:
        # gradlab-0.2.2.dist-info, gradlab-0.2.2-py3.11.egg-info; our own are gradlab_arrays-….
        if name.startswith(f"{STRANGER}-") and name.endswith((".dist-info", ".egg-info")):
            return name.split("-")[1].removesuffix(".egg").removesuffix(".dist")
    return ""


def refuse_stranger(package: Path) -> None:
    """Raise ImportError if another distribution has written into the folder of our package."""
    version = stranger(package.parent)
    if version:
        raise ImportError(
            f"gradlab: the folder {package} holds files of two distributions, {DISTRIBUTION} (this "
            f"library) and {STRANGER} {version}, which overwrite each other; "
            f"run: pip uninstall -y {STRANGER}, then {_reinstall()}"
        )


def _reinstall() -> str:
    """The command that installs this distribution again, from where it came."""
    import json
    from importlib import metadata

    command = "pip install --force-reinstall --no-deps"
    try:
        origin = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        return f'{command} "{json.loads(origin or "")["url"]}"'
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return f"{command} with the wheel or the checkout that {DISTRIBUTION} came from"


refuse_stranger(Path(__file__).parent)
