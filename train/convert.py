"""Turn released checkpoints into a checkpoint folder that every command reads.

Says of every key what became of it; a key that is not known, is missing or has another shape is
an error before anything is written.

    python -m train.convert model=mplug2plus sources.video=openai/clip-vit-large-patch14 \
        sources.text=meta-llama/Llama-3.2-1B target=.atom/released/clip-llama
    python -m train.convert model=mplug2plus sources.video=mPLUG2_MSRVTT_Caption.pth \
        sources.text=Llama-3.2-1B target=.atom/released/mplug2-llama
"""

from typing import Any

from atom_repro import config
from atom_repro.config import entry


@entry("convert")
def main(cfg: Any) -> None:
    from pathlib import Path

    from atom_repro.checkpoints.convert import convert

    places = config.to_dict(cfg.sources)
    report = convert(
        config.build(cfg.model),
        {role: places[role] for role in ("video", "text", "whole") if places[role]},
        Path(cfg.target) if cfg.target else None,
        tokenizer=places["tokenizer"],
        seed=cfg.seed,
        force=cfg.force,
    )
    print(report.summary())


if __name__ == "__main__":
    main()
