"""A grid of trainings as a user runs it: whole, again, refused, and with a point that fails."""

import pytest
from command import command

from atom_repro.datatypes import AtomError
from atom_repro.device.machine import this_machine
from atom_repro.records.record import load_records
from atom_repro.study.overrides import sweep_points

RATES = "grid.learning_rate=[1e-3,1e-4]"


def sweep(folder, *arguments):
    return command(
        "train.sweep", "scale=smoke", RATES, "grid.batch_size=[32]",
        "train.epochs=2", "train.threads=1", "train.validation_clips=4", "generation.beams=1",
        f"paths.work={folder}/work", f"paths.results={folder}/results", *arguments,
    )  # fmt: skip


def test_every_point_has_its_values_its_folder_and_all_overrides():
    points = sweep_points("sweep", [RATES, "grid.batch_size=[64]", "scale=smoke", "train.epochs=3"])
    first, second = points.values()
    assert list(points) == [
        f"learning_rate_{rate}-batch_size_64-seed_0" for rate in ("0.001", "0.0001")
    ]
    for stage, rate in ((first, "0.001"), (second, "0.0001")):
        assert stage.module == "train.finetune"
        assert set(stage.overrides) >= {
            "sweep=appendix_g", "train.validation_every=0", "scale=smoke", "train.epochs=3",
            "train.batch_size=64", f"train.learning_rate={rate}",
        }  # fmt: skip
    folders = [o for s in (first, second) for o in s.overrides if o.startswith("checkpoint.fol")]
    assert len(set(folders)) == 2
    # What the user says comes after what the sweep fixes.
    assert first.overrides.index("train.epochs=3") > first.overrides.index("train.epochs=12")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=1", "train.learning_rate is set by the sweep; set grid.learning_ra"),
        ("checkpoint.folder=x", "each point has a folder of its own"),
        ("grid.batch_size=[many]", "train.batch_size: value 'many'"),
        ("grid.seed=[]", "grid.seed is empty"),
        ("train.epochz=2", "neither the sweep nor train.finetune knows train.epochz; did you mean"),
    ],
)
def test_a_mistake_is_refused_before_any_point(override, said):
    narrow = [] if "seed" in override or "batch" in override else ["grid.batch_size=[32]"]
    with pytest.raises(AtomError) as caught:
        sweep_points("sweep", [override, *narrow])
    assert said in str(caught.value)


@pytest.mark.long
@pytest.mark.slow
def test_a_sweep_does_nothing_twice_and_a_failing_point_does_not_stop_it(tmp_path):
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 points done" in done.stdout
    records = load_records([tmp_path / "results/records" / this_machine().fingerprint])
    assert [r.config("train.learning_rate") for r in records] == [1e-3, 1e-4]
    for record in records:
        steps = [s["step"] for s in record.samples() if "validation_cider" in s]
        each = record.values["epoch_steps"]
        assert steps == [each, 2 * each]
    assert len({r.data["weights"] for r in records}) == 2
    # A smoke record fills no table.
    assert not list(tmp_path.glob("results/**/appendix_g.*"))

    # Again, beside batches of nothing: those points fail, and the finished ones are kept.
    done = sweep(tmp_path, "grid.batch_size=[0,32]")
    assert done.returncode == 1
    assert done.stdout.count("unchanged") == 2
    assert "2 of 4 points done" in done.stdout
    (line,) = [t for t in done.stderr.splitlines() if "points failed" in t]
    assert "learning_rate_0.001-batch_size_0-seed_0 (status 1)" in line
