"""Build of the image without Docker, from Debian's own packages, and trial of all its services.

`python -m tests.image.main`, or `make image-test`. It takes root on Debian 12, with apt and the
network; what it builds lies in one folder, by default /var/tmp/automl-image, and is removed again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.image.commands import ImageTestError, expect, run, say, step

ROOT = Path(__file__).parents[2]
PACKAGES = ("buildah", "catatonit", "iproute2", "mmdebstrap", "podman", "runc")
PROGRAMS = ("buildah", "ip", "mmdebstrap", "podman", "runc", "unshare")
BASE, IMAGE = "localhost/automl-base:bookworm", "localhost/automl-airflow"
MOST_BYTES, MOST_COLD_S = 2_100_000_000, 360.0
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""


@dataclass(slots=True)
class Build:
    """A build of the image in a folder.

    Attributes:
        folder: where storage, settings and logs lie.
        target: stage of the Dockerfile.
        canary: a word of the build's secrets, which the image must not hold.
        times: seconds of each step.
    """

    folder: Path
    target: str
    canary: str = field(default_factory=lambda: f"canary-{secrets.token_hex(12)}")
    times: dict[str, float] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """Name of the image."""
        return f"{IMAGE}:{self.target}"

    def prepare(self) -> None:
        """Write the settings of buildah and podman, and the secrets of the build."""
        self.folder.mkdir(parents=True)
        (self.folder / "containers.conf").write_text(_CONTAINERS)
        (self.folder / "storage.conf").write_text(_STORAGE.format(folder=self.folder))
        os.environ["CONTAINERS_CONF"] = str(self.folder / "containers.conf")
        os.environ["CONTAINERS_STORAGE_CONF"] = str(self.folder / "storage.conf")
        authorities = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
        shutil.copy(authorities, self.folder / "ca.pem")
        lines = [f"# {self.canary}", "[global]", "cert = /run/secrets/ca.pem"]
        (self.folder / "pip.conf").write_text("\n".join(lines) + "\n")

    def remove(self) -> None:
        """Remove everything: storage of its own, which nothing else uses."""
        if "CONTAINERS_STORAGE_CONF" in os.environ:
            run(["podman", "rm", "--all", "--force", "--time", "1"], may_fail=True)
            run(["buildah", "rm", "--all"], may_fail=True)
            run(["podman", "image", "unmount", "--all", "--force"], may_fail=True)
            overlay = self.folder / "storage/overlay"  # the driver mounts it on itself
            run(["umount", "--lazy", str(overlay)], may_fail=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def base(self) -> None:
        """Make the base from Debian's packages, and import it."""
        tar = self.folder / "base.tar"
        kept_out = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("man", "doc")]
        hook = '--customize-hook=rm -f "$1/etc/resolv.conf"'  # it would be this machine's
        run(["mmdebstrap", "--variant=minbase", *kept_out, hook, "bookworm", tar])
        run(["podman", "import", "--change", 'CMD ["bash"]', tar, BASE])
        tar.unlink()

    def command(self, torch: str, tag: str) -> list[str]:
        """Return the command that builds the Dockerfile.

        Args:
            torch: options of pip that say where torch comes from; "" for the Dockerfile's own.
            tag: name of the image.
        """
        words = ["buildah", "bud", "--layers", "--isolation", "chroot", "--network", "host"]
        words += ["--pull-never", "--format", "docker", "--target", self.target]
        words += ["--build-arg", f"BASE={BASE}"]
        if torch:
            words += ["--build-arg", f"TORCH_{self.target.upper()}_FROM={torch}"]
        for name, file in (("pip", "pip.conf"), ("ca", "ca.pem")):
            words += ["--secret", f"id={name},src={self.folder / file}"]
        if wheels() is not None:
            words += ["--volume", f"{wheels()}:/mnt:ro"]
        return [*words, "-f", str(ROOT / "docker/Dockerfile"), "-t", tag, str(ROOT)]

    def build(self) -> None:
        """Build the target, with torch from the folder of wheels where there is one."""
        local = "--no-index --find-links=/mnt" if wheels() and self.target == "cpu" else ""
        run(self.command(local, self.image), log=self.folder / "build.txt", timeout_s=1800)

    def fail(self) -> None:
        """Show that a RUN that fails fails the build: torch comes from nowhere."""
        wrong = self.command("--no-index", f"{IMAGE}:wrong")
        done = run(wrong, log=self.folder / "wrong.txt", timeout_s=600, may_fail=True)
        expect(done.returncode != 0, "a RUN failed, and the build did not")
        expect("Cannot install torch" in done.stdout, done.stdout[-2000:])
        made = run(["podman", "image", "exists", f"{IMAGE}:wrong"], may_fail=True)
        expect(made.returncode != 0, "a build that failed has left an image")

    def examine(self) -> None:
        """Look at what the image says of itself, at its size, and for traces of secrets."""
        (image,) = json.loads(run(["podman", "image", "inspect", self.image]).stdout)
        config = image["Config"]
        expect(config["User"] == "50000:0", f"its user is {config['User']}")
        expect(config["Entrypoint"] == ["dumb-init", "--"], "another entry point")
        expect("automl-healthy" in json.dumps(image), "it has no health check")
        say(f"   size: {image['Size'] / 1e9:.2f} GB")
        if self.target == "cpu":
            expect(image["Size"] <= MOST_BYTES, f"it has more than {MOST_BYTES / 1e9} GB")
        history = run(["podman", "history", "--no-trunc", self.image]).stdout
        expect(self.canary not in history + json.dumps(image), "a secret is in the history")
        mount = run(["podman", "image", "mount", self.image]).stdout.strip()
        try:
            found = run(["grep", "-rlF", "--", self.canary, mount], may_fail=True).stdout
            expect(not found, f"a secret is in {found}")
            left = [each for each in Path(mount, "run/secrets").glob("*") if each.stat().st_size]
            expect(not left, f"{left} are in the image")
        finally:
            run(["podman", "image", "unmount", self.image])


def wheels() -> Path | None:
    """Return the folder of wheels that pip is told of, where torch's may be."""
    for place in os.environ.get("PIP_FIND_LINKS", "").split():
        if list(Path(place).glob("torch-*+cpu-*.whl")):
            return Path(place)
    return None


def require() -> None:
    """Install what is missing of the tools.

    Raises:
        ImageTestError: this machine cannot try it.
    """
    expect(os.geteuid() == 0, "It takes root: run it as root, on a machine that is yours.")
    if all(shutil.which(program) for program in PROGRAMS):
        return
    expect(shutil.which("apt-get"), f"It takes {', '.join(PROGRAMS)}, and there is no apt-get.")
    run(["apt-get", "update"])
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    run(install, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def trial(build: Build, *, serve: bool) -> None:
    """Run all steps."""
    times = build.times
    with step("tools", times):
        require()
    build.prepare()
    with step("base", times):
        build.base()
    with step("build", times):
        build.build()
    cold_s, used = sum(times.values()), resource.getrusage(resource.RUSAGE_CHILDREN)
    say(f"   cold: {cold_s:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of processors")
    with step("the image itself", times):
        build.examine()
    with step("a RUN that fails", times):
        build.fail()
    if serve:
        command = [sys.executable, "-m", "tests.image.services", str(build.folder / "services")]
        own_network = [shutil.which("unshare") or "unshare", "--net", "--"]
        done = subprocess.run([*own_network, *command, build.image], cwd=ROOT, check=False)
        expect(done.returncode == 0, "The services do not do what they should: see above.")
    if build.target == "cpu":
        expect(cold_s <= MOST_COLD_S, f"the cold build took {cold_s:.0f} s, not {MOST_COLD_S:.0f}")


def main(arguments: list[str]) -> int:
    """Build and try the image; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.image.main", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/automl-image"))  # noqa: S108
    parser.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--keep", action="store_true", help="leave the folder, for a look")
    options = parser.parse_args(arguments)
    began_s, build = time.monotonic(), Build(options.folder.resolve(), options.target)
    if build.folder.exists():
        say(f"error: {build.folder} exists: remove it, or name another one with --folder")
        return 2
    try:
        trial(build, serve=build.target == "cpu")
    except (ImageTestError, subprocess.TimeoutExpired) as error:
        say(f"error: {error}")
        return 1
    finally:
        if not options.keep and build.folder.exists():
            build.remove()
    say(f"image ok: {build.image} in {time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
