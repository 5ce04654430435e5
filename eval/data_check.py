"""Check annotation files, videos and published counts of every data set (make data-check).

Says where to get what is missing. Nothing is downloaded, nothing is recorded.

    python -m eval.data_check
    ATOM_DATA=/path/to/data python -m eval.data_check decode=true    # reads frames of every video
"""

from typing import Any

from atom_repro import config
from atom_repro.config import entry
from atom_repro.datatypes import AtomError


@entry("data_check")
def main(cfg: Any) -> None:
    datasets = {node_name: config.build(node) for node_name, node in cfg.datasets.items()}
    protocols = [config.build(node) for node in cfg.protocols.values()]
    broken = 0
    for dataset in datasets.values():
        print(f"\n{dataset.name}")
        for source in getattr(dataset, "files", ()):
            _show_file(source, dataset.annotations)
        if dataset.name == "stsb":
            broken += _show_pairs(dataset)
            continue
        for protocol in (p for p in protocols if p.dataset == dataset.name):
            broken += _show_protocol(protocol, dataset)
        _show_leaks(dataset)
        _show_videos(dataset, [p for p in protocols if p.dataset == dataset.name], cfg.decode)
    if broken:
        raise AtomError(f"{broken} of the counts above are not the published ones")


def _show_file(source: Any, folder: Any) -> None:
    from atom_repro.records.provenance import file_hash

    path = source.find(folder)
    if path is None:
        print(f"  missing  {folder / source.names[0]}: {source.needed_for}; {source.download_from}")
        return
    if not source.sha256:
        origin = "no checksum to compare with"
    elif file_hash(path) in source.sha256:
        origin = "the copy that the counts were checked on"
    else:
        origin = "another copy than the counts were checked on"
    print(f"  there    {path}: {path.stat().st_size / 1e6:.1f} MB, {origin}")


def _show_protocol(protocol: Any, dataset: Any) -> int:
    """Prints whether the counts hold; 1 if the files are there and the counts are not."""
    try:
        clips = protocol.select(dataset)
    except AtomError as error:
        there = not str(error).count(": not there")
        print(f"  {'broken ' if there else 'missing'}  {protocol.name}: {error}")
        return int(there)
    captions = sum(len(c.references) for c in clips)
    queries = sum(len(c.queries) for c in clips)
    print(
        f"  holds    {protocol.name}: {len(clips):,} videos, {captions:,} captions, "
        f"{queries:,} queries"
    )
    return 0


def _show_pairs(stsb: Any) -> int:
    from atom_repro.data.stsb import PROTOCOL

    try:
        print(f"  holds    {PROTOCOL}: {len(stsb.pairs('test')):,} pairs")
    except AtomError as error:
        there = ": not there" not in str(error)
        print(f"  {'broken ' if there else 'missing'}  {PROTOCOL}: {error}")
        return int(there)
    return 0


def _show_leaks(dataset: Any) -> None:
    """Test clips that a training list holds, or whose recording it shares."""
    from atom_repro.data.annotations import count_leaks

    for training in (s for s in dataset.splits if s.startswith("train") and "paragraph" not in s):
        for test in (s for s in dataset.splits if s.startswith("test") and "paragraph" not in s):
            try:
                same, shared = count_leaks(dataset.clips(training), dataset.clips(test))
            except AtomError:
                continue  # a file of these splits is missing, reported above
            if same or shared:
                print(f"  leak     {training} holds {same:,} clips of {test}, "
                      f"and shares the recording of {shared:,} others")  # fmt: skip


def _show_videos(dataset: Any, protocols: list[Any], decode: bool) -> None:
    from tqdm import tqdm

    from atom_repro.video.sampling import check_clips

    folder = dataset.videos.folder
    print(f"  videos   {folder}: {len(dataset.videos):,} files; from {dataset.videos_source}")
    for split in dict.fromkeys(p.split for p in protocols):
        try:
            clips = dataset.clips(split)
        except AtomError:
            continue  # its annotation file is missing, reported above
        if decode:
            progress = tqdm(clips, desc=split, unit="video", mininterval=1)
            counts = [check_clips([clip], "count").counts for clip in progress]
            totals = {s: sum(c[s] for c in counts) for s in counts[0]}
        else:
            existing = sum(c.path.is_file() for c in clips)
            totals = {"there": existing, "missing": len(clips) - existing}
        print(f"           {split}: " + ", ".join(f"{n:,} {s}" for s, n in totals.items()))


if __name__ == "__main__":
    main()
