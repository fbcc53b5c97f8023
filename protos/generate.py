"""Generate the Python code of the protos, or check that what is committed is up to date (`--check`)."""

import argparse
import filecmp
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent


def generate(destination: Path) -> list[Path]:
    """Write `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` under `destination`; return their paths relative to it."""
    protos = sorted(ROOT.glob("loradeck/**/*.proto"))
    include = resources.files("grpc_tools") / "_proto"
    command = [
        "protoc",
        f"-I{ROOT}",
        f"-I{include}",
        f"--python_out={destination}",
        f"--pyi_out={destination}",
        f"--grpc_python_out={destination}",
        *[str(p) for p in protos],
    ]
    if protoc.main(command) != 0:
        raise SystemExit("protoc failed: see its message above")
    return sorted(p.relative_to(destination) for p in destination.glob("loradeck/**/*_pb2*.py*") if p.suffix != ".pyc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the committed code is stale")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        committed = sorted(
            p.relative_to(ROOT) for p in ROOT.glob("loradeck/**/*_pb2*.py*") if p.suffix in {".py", ".pyi"}
        )
        different = [
            str(p)
            for p in fresh
            if not (ROOT / p).exists() or not filecmp.cmp(ROOT / p, Path(folder) / p, shallow=False)
        ]
    leftover = [str(p) for p in committed if p not in fresh]
    if different or leftover:
        sys.exit(f"generated proto code is stale: {', '.join(different + leftover)}. Run `make protos` and commit.")


if __name__ == "__main__":
    main()
