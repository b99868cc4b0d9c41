#!/usr/bin/env python3
"""The house rules as a test: floors, purity of the cores, first comments, named files that exist.

Fails on: an include that points up the floors, a core that reads a clock, thread, socket or file, a
source without a first comment, a document that names a missing file, unfinished-work words.
Only reports (a reader decides): lines over 100 columns, headers over 200 lines, sources over 500.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODE = {".h", ".cc", ".cu", ".cuh"}

# Longest matching prefix decides the box; a box may include boxes in its list (and itself).
BOXES = {
    "shared": [],
    "config": ["shared"],
    "tokenizer": ["shared"],
    "kernels": ["shared"],
    "worker/core": ["shared"],
    "gateway/core": ["shared"],
    "worker": ["shared", "config", "tokenizer", "kernels", "worker/core"],
    "gateway": ["shared", "config", "tokenizer", "gateway/core"],
    "sim": ["shared", "config", "gateway/core", "worker/core"],
    "tests": None,  # tests may look at everything
}
PURE_FOLDER = "tokenizer/jinja/"  # held to what the cores are held to
# Floor 0 has shells of its own; a core may use only its values.
SHARED_SHELLS = {"byte_ring.h", "confinement.h", "control.h", "doorbell.h", "gguf_file.h", "journal.h",
                 "progress_page.h", "shm_region.h", "unique_fd.h"}
CORE_BANNED_INCLUDES = {"thread", "mutex", "shared_mutex", "condition_variable", "fstream", "iostream",
                        "random", "filesystem", "future", "unistd.h", "sys/socket.h", "sys/mman.h",
                        "ctime", "time.h", "cstdio", "stdio.h", "spdlog/spdlog.h", "sys/types.h"}
CORE_BANNED_CALLS = re.compile(
    r"\b(system_clock|steady_clock|high_resolution_clock|clock_gettime|gettimeofday|getenv|rand|"
    r"random_device|mt19937|std::thread|fopen|spdlog)\b|::now\(\)")
# The wall clock may jump: it is told to people, never reckoned with. Who reads it, and what for:
WALL_CLOCK = re.compile(r"\b(system_clock|CLOCK_REALTIME\w*|gettimeofday|TFD_TIMER_CANCEL_ON_SET)\b|\btime\(nullptr\)")
WALL_CLOCK_READERS = {
    "gateway/http/response_head.cc",       # the Date header
    "gateway/cli/admin_key_commands.cc",   # when an admin key was made
    "gateway/link/ring_decision_loop.cc",  # when a request was admitted, in the journal
    "gateway/store/usage_writer.cc",       # how old stored seconds and ids are, to drop them
    "gateway/role/gateway_role.cc",        # `created` of the models
    "shared/confinement.cc",               # names the call, does not make it
}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)
PATH_IN_DOC = re.compile(r"`((?:[a-z_]+/)+[A-Za-z0-9_.]+\.[a-z]+|[a-z_]+/[a-z_/]+)`")


def box_of(path):
    best = ""
    for box in BOXES:
        if path.startswith(box + "/") and len(box) > len(best):
            best = box
    return best


def tracked():
    """The files of the project; without git (an unpacked archive) all that no build made."""
    try:
        out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                             capture_output=True).stdout.decode()
        names = out.split("\0")
    except (OSError, subprocess.CalledProcessError):
        skipped = {".git", "build", "node_modules", "__pycache__"}
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")
                 if not skipped & set(p.relative_to(ROOT).parts)]
    return sorted(p for p in names if p and (ROOT / p).is_file())


def check_code(path, text, errors, reports):
    if not text.lstrip().startswith(("//", "/*", "#!", "#pragma once\n//")):
        errors.append(f"{path}:1: no first comment that says what the file is")
    if UNFINISHED.search(text):
        errors.append(f"{path}: unfinished-work word {UNFINISHED.search(text).group(0)}")
    box = box_of(path)
    is_core = box.endswith("/core") or path.startswith(PURE_FOLDER)
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        name = match.group(2)
        if match.group(1) == '"' and box and BOXES[box] is not None:
            other = box_of(name)
            if other and other != box and other not in BOXES[box]:
                errors.append(f"{path}:{line}: {box} may not include {name}")
            if is_core and other == "shared" and name.split("/")[-1] in SHARED_SHELLS:
                errors.append(f"{path}:{line}: a core may not include the shell {name}")
        if is_core and name in CORE_BANNED_INCLUDES:
            errors.append(f"{path}:{line}: a core may not include <{name}>")
    if is_core:
        for number, row in enumerate(text.splitlines(), 1):
            code = row.split("//")[0]
            if CORE_BANNED_CALLS.search(code):
                errors.append(f"{path}:{number}: a core reads clock, randomness, thread or file: {row.strip()}")
    if not path.startswith("tests/") and path not in WALL_CLOCK_READERS:
        for number, row in enumerate(text.splitlines(), 1):
            if WALL_CLOCK.search(row.split("//")[0]):
                errors.append(f"{path}:{number}: reads the wall clock: {row.strip()}")
    lines = text.splitlines()
    bound = 200 if path.endswith((".h", ".cuh")) else 500
    if len(lines) > bound:
        reports.append(f"{path}: {len(lines)} lines (over {bound})")
    long_lines = sum(len(row) > 100 for row in lines)
    if long_lines:
        reports.append(f"{path}: {long_lines} lines over 100 columns")


def check_document(path, text, files, folders, errors):
    for match in PATH_IN_DOC.finditer(text):
        name = match.group(1).rstrip("/")
        if name.startswith(("v1/", "admin/", "build/")) or "*" in name:
            continue
        here = str(pathlib.PurePosixPath(path).parent / name)
        if not any(n in files or n in folders for n in (name, here)):
            if name.split("/")[0] in folders:
                errors.append(f"{path}: names {name}, which does not exist")


def main():
    files = tracked()
    folders = {str(p) for f in files for p in pathlib.PurePosixPath(f).parents}
    errors, reports = [], []
    for path in files:
        suffix = pathlib.PurePosixPath(path).suffix
        if suffix in CODE:
            check_code(path, (ROOT / path).read_text(encoding="utf-8"), errors, reports)
        elif suffix == ".md":
            check_document(path, (ROOT / path).read_text(encoding="utf-8"), set(files), folders, errors)
        elif suffix in {".py", ".mjs", ".sh"} and UNFINISHED.search((ROOT / path).read_text()) \
                and path != "scripts/tidy.py":
            errors.append(f"{path}: unfinished-work word")
    for report in reports:
        print("report:", report)
    for error in errors:
        print("error:", error)
    print(f"tidy: {len(files)} files, {len(errors)} errors, {len(reports)} reports")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
