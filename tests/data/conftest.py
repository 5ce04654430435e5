"""Generated data sets shared by the tests of the data."""

import numpy as np
import pytest

from atom_repro.data import toy


@pytest.fixture(scope="session")
def planned(tmp_path_factory) -> toy.ToyDataset:
    """Many clips whose files are blank: all that has no pixels is as in a real one."""
    patch = pytest.MonkeyPatch()

    def blank(path, *_: object, **__: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"blank")

    patch.setattr(toy, "write_video", blank)
    patch.setattr(toy, "render", lambda *_, **__: np.zeros((1, 2, 2, 3), np.uint8))
    dataset = toy.build(
        root=str(tmp_path_factory.mktemp("planned")),
        seed=3,
        train=1200,
        validation=100,
        test=200,
        held_out_share=0.12,
        long_videos=6,
        size=32,
        fps=3,
        clip_s=10.0,
    )
    dataset.prepare()
    patch.undo()
    return dataset
