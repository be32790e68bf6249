#!/usr/bin/env python3
"""Records what other readers read of the tars in a folder: record.py FOLDER GO > CORPUS.txt

GO is a Go binary built of reading.go. GNU tar, bsdtar and Python's tarfile are those of the machine. The tars are plain.
`record.py FOLDER --bsdtar < OLD > NEW` adds what bsdtar reads to a file that was recorded without it.
"""
import hashlib
import os
import posixpath
import re
import subprocess
import sys
import tarfile
import tempfile

HASHED = 16 << 20


def text(raw):
    if len(raw) > 4096:
        return f"({len(raw)}-bytes)"
    return "".join(chr(c) if 0x20 < c < 0x7F and c != 0x5C else f"\\x{c:02x}" for c in raw)


def place(raw):
    """A name as a place in an image; one that leaves the root keeps its `..` in front."""
    clean = posixpath.normpath(raw)
    outside = clean == b".." or clean.startswith(b"../")
    return text(clean) if outside else "/" + text(b"" if clean == b"." else clean.lstrip(b"/"))


def unescape(quoted):
    """What GNU tar's quoting style `escape` stands for."""
    plain = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
    return re.sub(
        rb"\\([0-7]{3}|.)",
        lambda m: bytes([int(m[1], 8)]) if len(m[1]) == 3 else plain.get(m[1], m[1]),
        quoted,
    )


def gnu(path):
    env = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    listing = subprocess.run(
        ["tar", "-tvf", path, "--numeric-owner", "--full-time", "--quoting-style=escape"],
        capture_output=True, env=env,
    )
    line = re.compile(rb"(.)\S{9}\+? +\S+/\S+ +(\S+) \S+ [0-9:.]+ +(.*)")
    kinds = {b"-": "file", b"C": "file", b"d": "dir", b"D": "dir", b"l": "symlink", b"h": "link",
             b"c": "char", b"b": "block", b"p": "fifo"}
    entries = []
    for row in listing.stdout.splitlines():
        kind, size, rest = line.fullmatch(row).groups()
        word = kinds.get(kind, f"type-{kind.decode()}")
        if word == "symlink":
            name, target = rest.split(b" -> ", 1)
            entries.append([word, place(unescape(name)), text(unescape(target))])
        elif word == "link":
            name, target = rest.split(b" link to ", 1)
            entries.append([word, place(unescape(name)), place(unescape(target))])
        elif word in ("char", "block"):
            entries.append([word, place(unescape(rest)), size.decode().replace(",", ":")])
        elif word == "file" and rest.endswith(b"/"):
            entries.append(["dir", place(unescape(rest))])
        elif word == "file":
            entries.append([word, place(unescape(rest)), size.decode(), "-"])
        else:
            entries.append([word, place(unescape(rest))])
    files = [entry for entry in entries if entry[0] == "file"]
    if all(int(entry[2]) <= HASHED for entry in files):
        with tempfile.TemporaryDirectory() as scratch:
            sums = subprocess.run(
                ["tar", "-xf", path, "--to-command=sha256sum"], capture_output=True, env=env, cwd=scratch
            ).stdout.split()[::2]
        if len(sums) == len(files):
            for entry, sum in zip(files, sums):
                entry[3] = sum.decode()[:16]
        else:
            # Sparse files are not given to commands.
            for entry in files:
                extracted(path, entry, [other for other in entries if other[1] == entry[1]], env)
    out = [" ".join(entry) for entry in entries]
    if listing.returncode:
        said = [row for row in listing.stderr.decode(errors="replace").splitlines() if "Exiting with" not in row]
        said = said or listing.stderr.decode(errors="replace").splitlines()
        out.append("error " + said[0].removeprefix("tar: "))
    return out


def extracted(path, entry, same, env):
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["tar", "-xf", path, "--no-same-owner"], capture_output=True, env=env, cwd=scratch)
        at = scratch + entry[1]
        if len(same) == 1 and os.path.isfile(at) and os.path.getsize(at) == int(entry[2]):
            entry[3] = hashlib.sha256(open(at, "rb").read()).hexdigest()[:16]


def python(path):
    out = []
    raw = lambda name: name.encode("utf-8", "surrogateescape")
    try:
        with tarfile.open(path, "r:") as tar:
            for m in tar:
                at = place(raw(m.name))
                if m.isreg():
                    sum = "-"
                    if m.size <= HASHED:
                        sum = hashlib.sha256(tar.extractfile(m).read()).hexdigest()[:16]
                    out.append(f"file {at} {m.size} {sum}")
                elif m.islnk():
                    out.append(f"link {at} {place(raw(m.linkname))}")
                elif m.issym():
                    out.append(f"symlink {at} {text(raw(m.linkname))}")
                elif m.ischr() or m.isblk():
                    out.append(f"{'char' if m.ischr() else 'block'} {at} {m.devmajor}:{m.devminor}")
                elif m.isdir() or m.type == b"D":
                    out.append(f"dir {at}")
                elif m.isfifo():
                    out.append(f"fifo {at}")
                else:
                    out.append(f"type-{m.type.decode('latin1')} {at}")
    except Exception as e:
        out.append(f"error {' '.join(str(e).split()) or type(e).__name__}")
    return out


def bsdtar(path):
    env = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    listing = subprocess.run(["bsdtar", "-tvf", path, "--numeric-owner"], capture_output=True, env=env)
    line = re.compile(rb"(.)\S{9}\S* +\d+ +\S+ +\S+ +(\d+(?:, *\d+)?) +\S+ +\d+ +[0-9:]+ (.*)")
    kinds = {b"-": "file", b"d": "dir", b"l": "symlink", b"h": "link", b"c": "char", b"b": "block", b"p": "fifo",
             b"s": "socket"}
    entries = []
    for row in listing.stdout.splitlines():
        kind, size, rest = line.fullmatch(row).groups()
        word = kinds.get(kind, f"type-{kind.decode()}")
        if word == "symlink":
            name, target = rest.split(b" -> ", 1)
            entries.append([word, place(unescape(name)), text(unescape(target))])
        elif b" link to " in rest and kind in b"-h":
            name, target = rest.split(b" link to ", 1)
            entries.append(["link", place(unescape(name)), place(unescape(target))])
        elif word in ("char", "block"):
            entries.append([word, place(unescape(rest)), size.decode().replace(",", ":").replace(" ", "")])
        elif word == "file":
            entries.append([word, place(unescape(rest)), size.decode(), "-"])
        else:
            entries.append([word, place(unescape(rest))])
    files = [entry for entry in entries if entry[0] == "file"]
    if all(int(entry[2]) <= HASHED for entry in files):
        with tempfile.TemporaryDirectory() as scratch:
            extract = ["bsdtar", "-xf", path, "--no-same-owner"]
            subprocess.run(extract, capture_output=True, env=env, cwd=scratch)
            for entry in files:
                at = scratch + entry[1]
                same = [other for other in entries if other[1] == entry[1]]
                if len(same) == 1 and os.path.isfile(at) and os.path.getsize(at) == int(entry[2]):
                    entry[3] = hashlib.sha256(open(at, "rb").read()).hexdigest()[:16]
    out = [" ".join(entry) for entry in entries]
    if listing.returncode:
        said = listing.stderr.decode(errors="replace").splitlines()
        out.append("error " + said[0].removeprefix("bsdtar: ").removeprefix("Error opening archive: "))
    return out


def add_bsdtar(folder):
    """Adds bsdtar to the readers of an equal reading, or its own reading behind the others."""
    head = lambda row: row.rsplit(" ", 1)[0] if row.startswith("file ") else row
    equal = lambda one, other: len(one) == len(other) and all(
        a == b or (a.endswith(" -") or b.endswith(" -")) and head(a) == head(b) for a, b in zip(one, other)
    )
    for section in sys.stdin.read().split("\n== ")[1:]:
        name, *rows = section.rstrip("\n").split("\n")
        readings = []
        for row in rows:
            if row.startswith("-- "):
                readings.append((row, []))
            else:
                readings[-1][1].append(row)
        ours = bsdtar(os.path.join(folder, name + ".tar"))
        at = next((at for at, (_, reading) in enumerate(readings) if equal(reading, ours)), None)
        if at is None:
            readings.append(("-- bsdtar", ours))
        else:
            readings[at] = (readings[at][0] + " bsdtar", readings[at][1])
        print(f"\n== {name}")
        for readers, reading in readings:
            print(readers, *reading, sep="\n")


def main():
    folder, program = sys.argv[1:]
    if program == "--bsdtar":
        add_bsdtar(folder)
        return
    paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    said = subprocess.run([program, *paths], capture_output=True, check=True).stdout.decode()
    go = {}
    for row in said.splitlines():
        if row.startswith("@ "):
            go[row[2:]] = into = []
        else:
            into.append(row)
    for path in paths:
        name = os.path.basename(path)
        readings = {}
        for reader, reading in (("go", go[name]), ("gnu", gnu(path)), ("python", python(path)), ("bsdtar", bsdtar(path))):
            readings.setdefault(tuple(reading), []).append(reader)
        print(f"\n== {name.removesuffix('.tar')}")
        for reading, readers in readings.items():
            print("--", *readers)
            for row in reading:
                print(row)


main()
