"""Study files of every kind of nonsense, the same for the same seed, beside a few good ones."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

GOOD = 10
_BODY = "task: image_classification\ndata: {source: /data/x.csv}\n"
_BOMB = b"a: &a [x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (one, one, b",".join([b"*%c" % before] * 8))
    for before, one in zip(b"abcdefgh", b"bcdefghi", strict=True)
)
_REPORTED = (
    b"name: 2024-13-45\n",
    b"name: seeds\nsearch: {seed: 0x_}\n",
    b"name: digits\nsearch: {seed: " + b"9" * 5000 + b"}\n",
    b"name: nested\ndata: " + b"[" * 3000 + b"]" * 3000 + b"\n",
    b"name: nobody\ntask: image_classification\ndata: {source: ~nobody/x}\n",
)
_NAMES = (
    "{{ conn.get('x').password }}", "{% for x in range(9) %}", "a b", "ü", "名", "😀", "-rf", ".",
    ".hidden", "a\nb", "a\tb", "\x1b[31m", "'", '"', "`id`", "$(id)", "search", "maintenance",
    "batch_predict", "predict_x", "automl_search", "A", "a", "a.b", "a..b", "%s", "x" * 240, "CON",
    "<script>", "&amp;", "null", "0", "a;b", "a|b", "a*b", "\\", "a\x7fb", "\u202e", "\udc80\udcff",
)  # fmt: skip


def good_name(number: int) -> str:
    """Return the name of the study in a good file."""
    return f"good-{number}"


def write_good_files(folder: Path) -> None:
    """Write ten whole study files, each with a schedule of its own."""
    for number in range(GOOD):
        (folder / f"b-{number}.yaml").write_text(
            f"name: {good_name(number)}\n{_BODY}schedule: '{number} 3 * * *'\n"
        )


def write_hostile_files(folder: Path, count: int, seed: int = 0) -> None:
    """Write `count` broken files; among them are fifos, links, devices, sockets and folders."""
    rng = random.Random(seed)  # noqa: S311 - nonsense, not secrets
    for number in range(count):
        if number < len(_REPORTED):
            (folder / f"reported-{number}.yaml").write_bytes(_REPORTED[number])
            continue
        if number - len(_REPORTED) < len(_NAMES):
            place = folder / f"{_NAMES[number - len(_REPORTED)]}.yaml"
        else:
            place = folder / f"{rng.choice('acz')}-{number}.{rng.choice(['yaml', 'yml'])}"
        kind = _SPECIAL.get(number % 97)
        if kind is None or len(place.name) > 90 or not place.name.isascii():
            place.write_bytes(_content(rng, number))
        else:
            kind(place)


def _content(rng: random.Random, number: int) -> bytes:
    return _KINDS[number % len(_KINDS)](rng)


def _collision(rng: random.Random) -> bytes:
    name = good_name(rng.randrange(GOOD))
    return f"name: {name}\n{_BODY}colour: red\n".encode()


def _shuffled(rng: random.Random) -> bytes:
    """Return a whole file with a part of its bytes changed, and a key that there is none."""
    text = bytearray(
        f"name: {good_name(0)}\n{_BODY}schedule: '0 3 * * *'\ntimezone: UTC\n"
        "search: {seed: 1, workers: 2, time_limit: 2h}\nfinal_fit: {from: 1}\n".encode()
    )
    for _ in range(rng.randrange(1, 12)):
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text) + b"\nno_such_key: 1\n"


def _scheduled(rng: random.Random) -> bytes:
    minute = rng.choice(["0", "61", "*/0", "*/" + "9" * 5000, "-1", "a", "5-1", "", "{{ x }}"])
    day = rng.choice(["*", "30", "31", "0", "L"])
    zone = rng.choice(["UTC", "Mars/Base", "../../etc/passwd", "", "Europe", "\\0", "Europe/Rome"])
    return (
        f"name: s-{rng.randrange(50)}\nschedule: '{minute} 1 {day} 2 *'\ntimezone: \"{zone}\"\n"
    ).encode()


def _limited(rng: random.Random) -> bytes:
    limit = rng.choice(["9999999999999h", "3000000h", "0s", "9" * 6000 + "s", "-1h", "1e9h"])
    return f"name: limited\n{_BODY}search: {{time_limit: {limit}}}\n".encode()


def _tagged(rng: random.Random) -> bytes:
    tag = rng.choice(["python/object/apply:os.system", "python/name:os.system", "set", "binary"])
    return f"name: tagged\ntask: !!{tag} [id]\n".encode()


def _templated(rng: random.Random) -> bytes:
    text = rng.choice(["{{ conn.get('x').password }}", "{% raw %}", "{{ 7 * 7 }}"])
    data = f"data: {{source: \"{text}\", label: '{text}'}}"
    return f"name: templated\ntask: image_classification\n{data}\nexport: {{sign: x}}\n".encode()


_KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda rng: rng.randbytes(rng.randrange(1, 4000)),
    _collision,
    lambda rng: b"",
    lambda rng: b"name: [unclosed\nschedule: 30 4 * * *\n",
    lambda rng: b"x" * (2**20 + rng.randrange(100)),
    lambda rng: b"{" * rng.randrange(1, 10**5),
    lambda rng: _BOMB,
    _shuffled,
    lambda rng: b"a: &a [*a]\nname: loop\n",
    _scheduled,
    lambda rng: "name: utf-16\n".encode("utf-16"),
    lambda rng: b"name: one\n---\nname: two\n",
    lambda rng: b"".join(b"key%d: 1\n" % n for n in range(rng.randrange(3000, 9000))),
    _limited,
    lambda rng: b"? [a]\n: b\n1: 2\nnull: 3\n",
    _tagged,
    lambda rng: b"\xef\xbb\xbfname: bom\ntask: 3\n",
    _templated,
    lambda rng: b"name: nul\x00\ntask: \x07\n",
    lambda rng: b"base: &b {name: merged}\n<<: *b\n",
    lambda rng: b"name: twice\nname: twice\n",
    lambda rng: b"- a\n- b\n",
    lambda rng: b"name: .inf\nsearch: {workers: .nan, seed: -.inf}\n",
    lambda rng: b'name: "\\ud800"\ntask: "\\0"\n',
    lambda rng: b"name: search\n" + _BODY.encode(),
    lambda rng: b"\t" * 1000 + b"name: tabs\n",
    lambda rng: b"%YAML 9.9\n---\nname: x\n",
)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _looping(path: Path) -> None:
    path.symlink_to(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _locked(path: Path) -> None:
    path.write_bytes(b"name: locked\n")
    path.chmod(0)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # an address of a socket is short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


_SPECIAL: dict[int, Callable[[Path], None]] = {
    50: _fifo, 51: Path.mkdir, 52: _dangling, 53: _looping, 54: _endless, 55: _locked, 56: _socket,
}  # fmt: skip
