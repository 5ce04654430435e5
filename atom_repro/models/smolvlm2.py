"""SmolVLM2: a SigLIP tower, pixel shuffle and one projection before a SmolLM2 (a Llama).

The encoder wraps transformers' vision tower and connector, cut where `get_image_features` ends;
the decoder is our `TextDecoder`. Every frame is one image, never split to sub-images, and the
prompt is the released chat template for several images. The released processor has a second
layout, for videos, with a sentence on the duration and a time before each frame; a prompt here
knows neither, so it is not used.

Source: `transformers.models.smolvlm`; released weights HuggingFaceTB/SmolVLM2-*-Video-Instruct.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.mplug2plus import packed_loss
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig
from atom_repro.models.vlm import VISUAL, Specials, Tokens

AROUND = "<fake_token_around_image>"
GLOBAL = "<global-img>"
# Mean and deviation 0.5 of pixels 0 to 1, which is what the released processor normalises by.
_HALF = 127.5


@dataclass(frozen=True, kw_only=True)
class SmolEncoderConfig:
    """The numbers of the tower and the connector. `shuffle` is the side of the square of patches
    that becomes one visual token (`scale_factor` of the released configuration)."""

    frames: int
    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    shuffle: int
    output_width: int
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise AtomError(
                f"model.encoder.width={self.width} is not a multiple of "
                f"model.encoder.heads={self.heads}"
            )
        if self.image_size % (self.patch_size * self.shuffle):
            raise AtomError(
                f"model.encoder.image_size={self.image_size} is not a multiple of patch_size * "
                f"shuffle = {self.patch_size * self.shuffle}; choose one that is"
            )

    @property
    def frame_tokens(self) -> int:
        """Visual tokens of one frame: 64 in the released sizes."""
        return (self.image_size // self.patch_size // self.shuffle) ** 2

    @property
    def visual_tokens(self) -> int:
        return self.frames * self.frame_tokens

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class SmolEncoder(nn.Module):
    """Frames (B, T, 3, H, W) uint8 to visual tokens (B, T*N, E), N tokens a frame.

    Frames come in the tower's size, so the processor's resizing has no place here; its rescaling
    and normalising are done here.
    """

    def __init__(self, config: SmolEncoderConfig) -> None:
        super().__init__()
        # Seconds to import, and a configuration alone does not need it.
        from transformers.models.smolvlm import modeling_smolvlm as released

        numbers = _released_config(config)
        self.config = config
        self.tied: dict[str, str] = {}
        self.vision_model = released.SmolVLMVisionTransformer(numbers.vision_config)
        self.connector = released.SmolVLMConnector(numbers)

    def file_state(self) -> dict[str, Tensor]:
        return dict(self.state_dict(keep_vars=True))

    def restore_constants(self) -> None:
        """Nothing: the tower works out its position ids in each call and has no buffers."""

    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        B, T, _, H, W = frames_BTCHW.shape
        size = self.config.image_size
        if (self.config.frames, size, size) != (T, H, W):
            raise AtomError(
                f"{T} frames of {H}x{W}; model.encoder.frames={self.config.frames} of "
                f"model.encoder.image_size={size} are expected"
            )
        # A norm's weight: no recipe quantises it, so its dtype is the one that is computed in.
        dtype = self.vision_model.post_layernorm.weight.dtype
        pixels = ((frames_BTCHW.flatten(0, 1).float() - _HALF) / _HALF).to(dtype)
        # `get_image_features` drops images that are 0 all over as padding. No byte is 127.5, so
        # no frame ever is one, and the tower can be called past that rule.
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        projected: Tensor = self.connector(seen)
        return projected.reshape(B, -1, projected.shape[-1])


def _released_config(config: SmolEncoderConfig) -> Any:
    from transformers import SmolVLMConfig

    vision = {
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "layer_norm_eps": config.norm_eps,
    }
    made: Any = SmolVLMConfig(
        vision_config=vision,
        # Only the width is read of it; one head divides any width.
        text_config={
            "model_type": "llama",
            "hidden_size": config.output_width,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
        },
        scale_factor=config.shuffle,
    )
    made.vision_config._attn_implementation = "sdpa"
    return made


@dataclass(frozen=True)
class SmolVLM2:
    """The architecture, not the weights.

    Clips may interleave on one decoder because `TextDecoder` counts positions from the cache that
    the caller owns. A decoder that keeps a clip's position offset on the module, as Qwen-VL's
    does with `rope_deltas`, gives one clip the positions of another when shared this way.
    """

    name: str
    encoder: SmolEncoderConfig
    decoder: TextDecoderConfig
    prompt: str
    writes_text = True

    @property
    def specials(self) -> Specials:
        return Specials(
            begin="<|im_start|>",
            end="<end_of_utterance>",
            pad="<|im_end|>",
            others=(AROUND, GLOBAL),
        )

    @property
    def components(self) -> Mapping[str, Sequence[str]]:
        return {
            "visual.tower": ("encoder.vision_model.*",),
            "visual.connector": ("encoder.connector.*",),
            "decoder": ("decoder.*",),
        }

    def make_encoder(self) -> SmolEncoder:
        return SmolEncoder(self.encoder)

    def make_decoder(self) -> TextDecoder:
        return TextDecoder(self.decoder)

    def prompt_ids(self, tokenizer: Tokens, text: str, *, visual: bool) -> list[int]:
        """A user's turn without a system message, and the assistant's name.

        What stands between two special tokens is encoded in one piece, as the released tokenizer
        does: "User: a" is not the tokens of "User: " and those of "a".
        """
        answer = [tokenizer.end_id, *tokenizer.encode("\nAssistant:")]
        if not visual:
            return [tokenizer.begin_id, *tokenizer.encode(f"User: {text}"), *answer]
        around, whole = tokenizer.special_id(AROUND), tokenizer.special_id(GLOBAL)
        frame = [around, whole, *[VISUAL] * self.encoder.frame_tokens, around]
        asked = tokenizer.encode(text) if text else []
        user = tokenizer.encode("User:")
        return [tokenizer.begin_id, *user, *frame * self.encoder.frames, *asked, *answer]

    def training_ids(self, tokenizer: Tokens, caption: str) -> list[int]:
        """What `caption_loss` takes for a caption: its ids, end-of-sequence included."""
        return [*tokenizer.encode(caption), tokenizer.end_id]

    def said(self, text: str) -> str:
        return text

    def caption_loss(
        self, decoder: TextDecoder, visual_BME: Tensor, captions_BRL: Tensor, tokenizer: Tokens
    ) -> Tensor:
        prefix = decoder.lay_out(visual_BME, self.prompt_ids(tokenizer, self.prompt, visual=True))
        return packed_loss(decoder, prefix, captions_BRL, pad_id=tokenizer.pad_id)


def build(
    *, name: str, prompt: str, encoder: Mapping[str, Any], decoder: Mapping[str, Any]
) -> SmolVLM2:
    """The model of a `conf/model` file.

    Args:
        prompt: the request for a caption, which stands after the frames.
        encoder: the numbers of `SmolEncoderConfig`, `output_width` taken from the decoder.
        decoder: the numbers of `TextDecoderConfig`.
    """
    text = TextDecoderConfig(**decoder)
    return SmolVLM2(name, SmolEncoderConfig(**encoder, output_width=text.width), text, prompt)


def released_key(key: str) -> tuple[str, str] | None:
    """Where a tensor of the released checkpoint belongs: (`encoder` or `decoder`, our name).

    None for a constant, which modules make themselves. A name of no part that we know is given
    to the decoder unchanged, which has no such weight: whoever loads it reports it by name.
    """
    if key.endswith((".position_ids", ".inv_freq")):
        return None
    for part in ("vision_model.", "connector."):
        if key.startswith(f"model.{part}"):
            return "encoder", key.removeprefix("model.")
    if key.startswith("model.text_model."):
        return "decoder", "model." + key.removeprefix("model.text_model.")
    return "decoder", key


def check_released(model: SmolVLM2, config: Mapping[str, Any]) -> None:
    """Hold the released `config.json` against the numbers of `model`.

    A key that the file leaves out has the value that transformers gives it.

    Raises:
        AtomError: another kind of model, or a number that is not the model's.
    """
    from transformers import SmolVLMConfig

    if config.get("model_type") != "smolvlm":
        raise AtomError(
            f"config.json says model_type={config.get('model_type')!r}, not 'smolvlm'; give a "
            f"SmolVLM2 checkpoint or choose another model than model={model.name}"
        )
    read: Any = SmolVLMConfig.from_dict(dict(config))
    vision, text = read.vision_config, read.text_config
    seen, spoken = model.encoder, model.decoder
    for key, theirs, ours in (
        ("vision_config.image_size", vision.image_size, seen.image_size),
        ("vision_config.patch_size", vision.patch_size, seen.patch_size),
        ("vision_config.hidden_size", vision.hidden_size, seen.width),
        ("vision_config.num_hidden_layers", vision.num_hidden_layers, seen.layers),
        ("vision_config.num_attention_heads", vision.num_attention_heads, seen.heads),
        ("vision_config.intermediate_size", vision.intermediate_size, seen.mlp_width),
        ("vision_config.layer_norm_eps", vision.layer_norm_eps, seen.norm_eps),
        ("vision_config.hidden_act", vision.hidden_act, "gelu_pytorch_tanh"),
        ("scale_factor", read.scale_factor, seen.shuffle),
        ("text_config.vocab_size", text.vocab_size, spoken.vocabulary),
        ("text_config.hidden_size", text.hidden_size, spoken.width),
        ("text_config.num_hidden_layers", text.num_hidden_layers, spoken.layers),
        ("text_config.num_attention_heads", text.num_attention_heads, spoken.heads),
        ("text_config.num_key_value_heads", text.num_key_value_heads, spoken.kv_heads),
        ("text_config.head_dim", text.head_dim, spoken.head_width),
        ("text_config.intermediate_size", text.intermediate_size, spoken.mlp_width),
        ("text_config.rms_norm_eps", text.rms_norm_eps, spoken.norm_eps),
        ("text_config.rope_theta", text.rope_parameters["rope_theta"], spoken.rope_theta),
        ("text_config.rope_type", text.rope_parameters["rope_type"], "default"),
        ("text_config.hidden_act", text.hidden_act, "silu"),
        ("text_config.attention_bias", text.attention_bias, False),
        ("text_config.mlp_bias", text.mlp_bias, False),
        ("tie_word_embeddings", read.tie_word_embeddings, spoken.tied),
    ):
        if theirs != ours:
            raise AtomError(
                f"config.json says {key}={theirs}, model={model.name} has {ours}; choose the "
                "model of that size or set the number in conf/model"
            )
