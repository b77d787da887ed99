"""Check what wheels say of themselves.

    python .ci/check_wheels.py WHEEL...

All have one version. Each holds its licence. None brings an ONNX Runtime unasked: onnxruntime and
onnxruntime-gpu break each other if both are installed.
"""

import re
import sys
import zipfile
from email.message import Message
from email.parser import Parser


def main(paths: list[str]) -> int:
    """Print what is wrong; 1 if anything is."""
    wrong, versions = [], {}
    for path in paths:
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
            (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
            about = Parser().parsestr(wheel.read(metadata).decode())
        versions[about["Name"]] = about["Version"]
        wrong += [f"{path}: {text}" for text in _faults(about, names)]
    if len(set(versions.values())) != 1:
        wrong.append(f"versions differ: {versions}")
    print("\n".join(wrong or [f"wheels: {versions}"]))
    return bool(wrong)


def _faults(about: Message, names: list[str]) -> list[str]:
    faults = []
    if not any(".dist-info/licenses/" in name for name in names):
        faults.append("no licence file")
    if strays := sorted({n.split("/")[0] for n in names} & {"tests", "docs", "benchmarks"}):
        faults.append(f"installs folders of the repository: {', '.join(strays)}")
    for requirement in about.get_all("Requires-Dist", []):
        needed, _, condition = requirement.partition(";")
        if "extra ==" not in condition and re.match(r"onnxruntime|attpc-filter *\[", needed):
            faults.append(f"needs {needed.strip()}: leave the choice to the extras cpu and gpu")
    return faults


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
