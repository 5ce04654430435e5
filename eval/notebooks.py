"""Run the notebooks and keep executed copies (make notebooks).

The committed notebooks hold no output; what they show comes from the records that are there.

    python -m eval.notebooks
"""

import os
from pathlib import Path
from typing import Any

from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("notebooks")
def main(cfg: Any) -> None:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    os.environ["ATOM_RESULTS"] = str(Path(cfg.paths.results).resolve())
    destination = Path(cfg.paths.work) / "notebooks"
    destination.mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(cfg.folder).glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=300, kernel_name="python3")
        try:
            client.execute()
        except CellExecutionError as error:
            raise AtomError(f"{path}: {error.ename}: {error.evalue}") from error
        nbformat.write(notebook, destination / path.name)
        print(f"notebooks: {destination / path.name}")


if __name__ == "__main__":
    main()
