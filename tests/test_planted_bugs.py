"""Bugs that the tests once did not notice: each is planted in a copy, and a test has to fail.

A row that no longer fits the code says so; give it the place that the code has now.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("atom_repro", "conf", "train", "eval", "device_bench", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Bug:
    """In `file` the text `right` becomes `wrong`, and `caught_by` fails."""

    name: str
    file: str
    right: str
    wrong: str
    caught_by: str


PROVENANCE, STEP_MEMORY = "atom_repro/records/provenance.py", "atom_repro/training/step_memory.py"
RECORDS = "tests/records/test_record.py"
BUGS = (
    Bug("a tree is always clean", PROVENANCE, 'status == "" if commit else False', "True",
        f"{RECORDS}::test_a_tree_with_changes_or_unknown_files_is_not_clean"),
    Bug("files that git does not know are overlooked", PROVENANCE, "--untracked-files=normal",
        "--untracked-files=no",
        f"{RECORDS}::test_a_tree_with_changes_or_unknown_files_is_not_clean"),
    Bug("from package import module is no import", PROVENANCE,
        'yield from (f"{node.module}.{alias.name}" for alias in node.names)', "pass",
        f"{RECORDS}::test_code_that_is_imported_in_any_way_counts"),
    Bug("a contained span shortens the one around it", "atom_repro/runtime/timeline.py",
        "reached = max(reached, end)", "reached = end", "tests/runtime/test_timeline.py"),
    Bug("an abandoned producer goes on", "atom_repro/runtime/schedule.py",
        "            if handover.stop.is_set():\n                return\n", "",
        "tests/runtime/test_schedule.py::test_an_abandoned_iteration_makes_no_more_than_what_fits"),
    Bug("a module alone has the threads of two", "atom_repro/runtime/runtime.py",
        "self.arm.threads_beside if beside else self.arm.threads_alone",
        "self.arm.threads_beside", "tests/runtime/test_runtime.py::"
        "test_a_module_that_works_alone_has_the_threads_of_one_alone"),
    Bug("int8 bytes without scales", "atom_repro/quant/int8.py",
        "weight.numel() + 4 * weight.shape[0]", "weight.numel()",
        "tests/checkpoints/test_random_weights.py::"
        "test_a_decoder_step_reads_a_byte_a_weight_and_a_scale_a_row"),
    Bug("memory under FSDP is halved", STEP_MEMORY, "    return StepMemory(\n"
        "        parameters // processes,", "    peak //= 2\n    return StepMemory(\n"
        "        parameters // processes,", "tests/training/test_step_memory.py::"
        "test_a_share_of_the_parameters_is_no_share_of_the_activations"),
    Bug("only the first micro-batch counts", STEP_MEMORY, "micro_batches[:2]", "micro_batches[:1]",
        "tests/training/test_step_memory.py::test_every_micro_batch_counts"),
    Bug("the gallery's note prints queries", "atom_repro/report/tables/quality.py",
        "scores['index_size']", "scores['queries']",
        "tests/report/tables/test_quality_tables.py::"
        "test_a_gallery_is_counted_in_videos_and_n_in_queries"),
    Bug("a mean of the means of clusters", "atom_repro/metrics/bootstrap.py",
        "sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)",
        "(sums / counts)[chosen].mean(axis=1)", "tests/metrics/test_clustered.py"),
    Bug("BLEU takes the longer of two near references", "atom_repro/metrics/caption.py",
        "min((abs(each - length), each) for each in reference_lengths)[1]",
        "-min((abs(each - length), -each) for each in reference_lengths)[1]",
        "tests/metrics/test_caption.py::"
        "test_of_two_equally_near_references_the_shorter_is_the_closest"),
    Bug("an edited video of the same size is not read", "atom_repro/pipelines/clip_index.py",
        "stored.get(name, ())[:2] != states[name]", "stored.get(name, ())[:1] != states[name][:1]",
        "tests/pipelines/test_clip_index.py::"
        "test_a_video_that_was_edited_to_the_same_size_is_read_again"),
)  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code in which the tests that are to fail pass."""
    folder = tmp_path_factory.mktemp("copy")
    leave_out = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=leave_out)
        else:
            shutil.copy(source, target)
    done = run(folder, *dict.fromkeys(bug.caught_by for bug in BUGS))
    assert done.returncode == 0, done.stdout
    return folder


def run(folder, *tests):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_caught(copy, bug):
    path = copy / bug.file
    text = path.read_text()
    assert text.count(bug.right) == 1, f"{bug.file} has no place for this bug any more"
    try:
        path.write_text(text.replace(bug.right, bug.wrong))
        done = run(copy, bug.caught_by)
    finally:
        path.write_text(text)
    assert done.returncode == 1, done.stdout  # a test failed; 2 and more are other troubles
    assert " failed" in done.stdout
