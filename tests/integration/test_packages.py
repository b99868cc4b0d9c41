"""The packages that scripts/install_packages names for running are the ones that the programs load
their libraries from: an image that has only these starts. Debian only."""
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

import sluice_process
from sluice_process import BIN, SOURCE

IS_SANITIZED = os.environ.get("SLUICE_SANITIZED") == "1"


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed_libraries(program):
    """What the program itself names; what those need is their packages' matter."""
    names = [line.split("[")[1].split("]")[0] for line in output("readelf", "-d", str(program)).splitlines()
             if "(NEEDED)" in line]
    paths = {line.split()[0]: line.split()[2] for line in output("ldd", str(program)).splitlines()
             if "=>" in line}
    return [paths[name] for name in names if name in paths]


def packages_of(paths):
    """Debian's database may know a library by its path before /usr was merged: all spellings are asked for."""
    spellings = set()
    for path in paths:
        for name in (path, os.path.realpath(path)):
            spellings |= {name, name.removeprefix("/usr"), "/usr" + name.removeprefix("/usr")}
    # Its exit status tells of the spellings that it does not know.
    found = subprocess.run(["dpkg", "-S", *sorted(spellings)], capture_output=True, text=True, check=False)
    return {line.split(":")[0] for line in found.stdout.splitlines()}


@unittest.skipUnless(shutil.which("dpkg") and shutil.which("readelf"), "not a Debian system")
@unittest.skipIf(IS_SANITIZED, "these builds load a sanitizer's library, too")
class RuntimePackages(unittest.TestCase):
    def test_they_are_what_the_programs_load(self):
        listed = set(output(str(SOURCE / "scripts" / "install_packages"), "list", "runtime").split())
        needed = packages_of({path for program in ("sluice", "sluice-worker")
                              for path in needed_libraries(BIN / program)})
        # Part of every system.
        needed -= {"libc6", "libgcc-s1", "libstdc++6"}
        self.assertEqual(needed, listed - {"curl"})

    def test_the_image_names_no_package_of_its_own(self):
        dockerfile = pathlib.Path(SOURCE, "Dockerfile").read_text()
        self.assertNotIn("apt-get", dockerfile)
        self.assertIn("install_packages runtime", dockerfile)


if __name__ == "__main__":
    sys.exit(sluice_process.run_main())
