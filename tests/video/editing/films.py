"""Small films with a clock in the picture, flashes and beeps, for tests of cutting."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from atom_repro.video.editing.edit_list import Box

TICKS_A_SECOND = 120  # the picture tells its time: eight columns, a bit of the tick each
DARK, BRIGHT = 40, 215


def film(
    path: Path,
    *,
    seconds: float = 2.0,
    fps: float = 25,
    size: tuple[int, int] = (96, 64),
    stamps_s: list[float] | None = None,
    clock: int = 1000,
    codec: str = "libx264",
    pixel_aspect: Fraction | None = None,
    rotation: int = 0,
    mark: bool = False,
    flash_s: tuple[float, float] | None = None,
    sound: dict | None = None,
    options: dict | None = None,
) -> Path:
    """Frame at t is tick 120 t in eight columns, dark for 0 and bright for 1, the highest first.

    `mark` makes it dark instead, with a bright square of half the height at the top left.

    `flash_s` makes frames in that stretch white (and the rest black). `sound` has `rate`,
    `layout`, `codec`, `from_s`, `beep_s` (tone in that stretch, else silence) or nothing of it:
    a tone throughout.
    """
    width, height = size
    times_s = stamps_s or [i / fps for i in range(round(seconds * fps))]
    with av.open(str(path), "w", options=options or {}) as out:
        video = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = video.time_base = Fraction(1, clock)
        video.codec_context.thread_count = 1
        video.codec_context.gop_size = 12
        if pixel_aspect:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        if codec == "libx264":
            video.options = {"crf": "8", "preset": "ultrafast", "bf": "2"}
        if rotation:
            video.set_display_rotation(rotation)
        audio = None
        if sound is not None:
            rate, layout = sound.get("rate", 48000), sound.get("layout", "stereo")
            audio = out.add_stream(sound.get("codec", "aac"), rate=rate, layout=layout)
        for time_s in times_s:
            frame = av.VideoFrame.from_ndarray(
                _picture(time_s, width, height, mark, flash_s), format="rgb24"
            )
            frame.pts, frame.time_base = round(time_s * clock), Fraction(1, clock)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            _write_sound(out, audio, seconds, **sound)
    return path


def _picture(time_s, width, height, mark, flash_s):
    picture = np.full((height, width, 3), DARK, np.uint8)
    if mark:
        picture[: height // 2, : height // 2] = BRIGHT
    elif flash_s is not None:
        picture[:] = BRIGHT if flash_s[0] <= time_s < flash_s[1] else DARK
    else:
        for bit in range(8):
            if round(time_s * TICKS_A_SECOND) >> (7 - bit) & 1:
                picture[:, width * bit // 8 : width * (bit + 1) // 8] = BRIGHT
    return picture


def _write_sound(
    out, audio, seconds, rate=48000, layout="stereo", codec="aac", from_s=0.0, beep_s=None
):
    times_s = np.arange(round(from_s * rate), round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * 1000 * times_s)
    if beep_s is not None:
        wave *= (times_s >= beep_s[0]) & (times_s < beep_s[1])
    channels = 1 if layout == "mono" else 2
    block = audio.codec_context.frame_size or 1024
    for at in range(0, len(wave), block):
        part = np.tile(wave[at : at + block].astype(np.float32), (channels, 1))
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(from_s * rate) + at
        out.mux(audio.encode(frame))
    out.mux(audio.encode(None))


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Every frame's grey levels (T, H, W), and the sound (2, samples) placed by its timestamps."""
    with av.open(str(path)) as container:
        levels = np.stack(
            [f.to_ndarray(format="rgb24").mean(-1) for f in container.decode(video=0)]
        )
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return levels, None
        blocks = list(container.decode(audio=0))
        first = round(float(blocks[0].pts * blocks[0].time_base) * blocks[0].sample_rate)
        wave = np.concatenate([b.to_ndarray() for b in blocks], axis=1)
    return levels, np.pad(wave, ((0, 0), (max(first, 0), 0)))


def times_in(levels: np.ndarray, box: Box) -> np.ndarray:
    """What time each picture tells, (T,) seconds."""
    inside = levels[:, box.y : box.y + box.height, box.x : box.x + box.width]
    columns = inside.mean(1)[:, box.width // 16 :: box.width // 8][:, :8]
    return (columns > (DARK + BRIGHT) / 2) @ (2.0 ** np.arange(7, -1, -1)) / TICKS_A_SECOND
