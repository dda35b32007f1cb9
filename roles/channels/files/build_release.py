"""Pack a release: the application, the kit's library, and the list of Python packages.

Run on the controller. What the application is made of and which packages it needs is found by
looking; options override it. The archive is the same bytes for the same content, whenever and
wherever it is packed, and its name is a hash of them. With --release an archive that has been
packed before is read instead.

Prints JSON: the release's id, archive, environment (the name of the virtual environment that its
packages make, so that releases which need the same ones share it), requirements, kit (the version
of the library), and application, settings_module, root, server, static and celery (see
packing/project.py), and python (the full version of the one that it brings; empty for the hosts').
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from packing import PackError, archive, build, faults, kit, project, python, source, tree
from packing.requirements import Answer, Question, Requirements
from packing.uv import Target, Uv


def pack(arguments: argparse.Namespace) -> dict[str, object]:
    """Pack what the command line names."""
    output = arguments.output.resolve()
    uv = Uv(arguments.uv)
    excludes = [*source.EXCLUDES, *(each for each in arguments.exclude.split(",") if each)]
    includes = json.loads(arguments.includes)
    top = source.directory(arguments.application, output)
    entries = tree.entries(top, excludes, () if json.loads(arguments.build) else includes)
    found = project.discover(
        *(top, [entry.name for entry in entries if not entry.link]),
        *(arguments.root, arguments.settings_module, arguments.asgi),
    )
    targets = [Target(**each) for each in json.loads(arguments.targets)]
    brought = ""
    if arguments.python:
        for machine in sorted({target.machine for target in targets}):
            brought = python.bring(uv, arguments.python, machine, output)
        targets = [Target(brought, each) for each in sorted({each.machine for each in targets})]
    question = Question(
        top=top,
        root=found.root,
        named=arguments.requirements,
        server=arguments.server,
        extras=json.loads(arguments.extras),
        targets=targets,
        preferred=arguments.lock,
        project_needed=not found.importable,
        overlay=arguments.overlay == "yes",
    )
    former = output / f"{arguments.former}.tar.gz"
    answer = Requirements(uv, output, arguments.refresh == "yes", former).answer(question)
    if refused := faults.refusals(
        answer.versions(targets), arguments.server, json.loads(arguments.allow), answer.file
    ):
        raise PackError("\n".join(refused))
    if commands := json.loads(arguments.build):
        made = build.built(commands, entries, includes, answer, targets[0], uv, output)
        entries = sorted(
            {entry.name: entry for entry in [*entries, *made]}.values(), key=lambda each: each.name
        )
    packages = kit.site_packages(uv, arguments.lock, output)
    content = written(entries, found, answer, brought, arguments, packages)
    return archive.describe(*archive.keep(content, output))


def written(
    entries: list[tree.Entry],
    found: project.Project,
    answer: Answer,
    brought: str,
    arguments: argparse.Namespace,
    packages: Path,
) -> bytes:
    """Return the archive."""
    version = (arguments.kit / "VERSION").read_text().strip()
    told = asdict(found)
    described = {
        **{name: told[name] for name in ("application", "settings_module", "root")},
        **{name: told[name] for name in ("static", "celery")},
        "inputs": answer.inputs,
        "kit": version,
        "python": brought,
        "server": arguments.server,
    }
    packed = archive.Archive()
    packed.add(archive.DESCRIPTION, (json.dumps(described, indent=1) + "\n").encode())
    packed.add(archive.REQUIREMENTS, answer.text.encode())
    for wheel in sorted(answer.wheels, key=lambda path: path.name):
        packed.add(f"wheels/{wheel.name}", wheel.read_bytes())
    if not found.manage:
        text = archive.MANAGE.format(settings=found.settings_module)
        packed.add(str(Path("app", found.root, "manage.py")), text.encode(), executable=True)
    for entry in entries:
        packed.add_entry("app", entry)
    packed.add_directory("kit/channels_kit", arguments.kit / "channels_kit")
    packed.add_directory("kit/site-packages", packages)
    return packed.content()


def main() -> int:
    """Pack or read what the command line names."""
    parser = argparse.ArgumentParser(description="Pack a release of the application.")
    parser.add_argument("--application", type=Path, help="a directory, a wheel or an sdist")
    parser.add_argument("--kit", type=Path, help="the directory of VERSION and channels_kit/")
    parser.add_argument("--lock", type=Path, help="the kit's uv.lock")
    parser.add_argument("--release", help="one that is packed; no application and no kit is read")
    parser.add_argument("--uv", type=Path)
    parser.add_argument("--server", choices=sorted(faults.SERVERS), default="uvicorn")
    parser.add_argument("--targets", default="[]", help='JSON: [{"python": ..., "machine": ...}]')
    parser.add_argument("--python", default="", help="one that uv brings; else the hosts' own")
    parser.add_argument("--root", default="", help="the directory of manage.py")
    parser.add_argument("--settings-module", default="")
    parser.add_argument("--asgi", default="", help="module:attribute")
    parser.add_argument("--requirements", default="", help="the file that lists the packages")
    parser.add_argument("--extras", default="[]", help="JSON: extras or groups of the application")
    parser.add_argument("--build", default="[]", help="JSON: commands")
    parser.add_argument(
        "--includes", default="[]", help="JSON: paths, packed though Git ignores them"
    )
    parser.add_argument("--allow", default="[]", help="JSON: known faults")
    parser.add_argument("--overlay", default="", help="yes: with the settings of the cluster")
    parser.add_argument("--refresh", default="", help="yes: resolve anew what is not locked")
    parser.add_argument("--former", default="", help="the release that runs; its packages are kept")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--exclude", default="", help="names or patterns, separated by commas")
    arguments = parser.parse_args()
    if arguments.release:
        path = arguments.output.resolve() / f"{arguments.release}.tar.gz"
        print(json.dumps(archive.describe(arguments.release, path)))
        return 0
    try:
        print(json.dumps(pack(arguments)))
    except PackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
