"""SmolVLM2: SigLIP vision tower, pixel shuffle, linear projection, and a SmolLM2 (Llama) decoder.

The encoder wraps transformers' vision tower and connector, up to the end of
`get_image_features`; the decoder is our `TextDecoder`. Every frame is one image, never split to
sub-images, and the prompt is the released chat template for several images. The released
processor has a second template, for videos, with a sentence on the duration and a timestamp
before each frame; a prompt here knows neither, so it is not used.

Source: `transformers.models.smolvlm`; released weights HuggingFaceTB/SmolVLM2-*-Video-Instruct.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from atom_repro.datatypes import AtomError
from atom_repro.models.mplug2plus import packed_loss
from atom_repro.models.text_decoder import TextDecoder, TextDecoderConfig
from atom_repro.models.text_decoder_export import TEXT_DECODER_EXPORT
from atom_repro.models.visual_tokens import VISUAL_PLACEHOLDER, VisualTokens
from atom_repro.models.vlm import SpecialTokens, TokenizerProtocol

IMAGE_BOUNDARY = "<fake_token_around_image>"
GLOBAL_IMAGE = "<global-img>"
# Mean and standard deviation of uint8 pixels (0.5 of pixels 0 to 1), as in the released processor.
_PIXEL_SCALE = 127.5


@dataclass(frozen=True, kw_only=True)
class SmolEncoderConfig:
    """Hyperparameters of vision tower and connector. `shuffle` is the side of the square of patches
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
    def frames_apart(self) -> bool:
        """True: every frame is an image of its own to tower and connector."""
        return True

    @property
    def visual_tokens(self) -> int:
        return self.frames * self.frame_tokens

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class SmolEncoder(nn.Module):
    """Frames (B, T, 3, H, W) uint8 to visual tokens, N per frame: M = T*N.

    Frames must have the tower's size, so the processor's resizing is left out; its rescaling and
    normalisation are done here.
    """

    def __init__(self, config: SmolEncoderConfig) -> None:
        super().__init__()
        # Seconds to import, and a configuration alone does not need it.
        from transformers.models.smolvlm import modeling_smolvlm as released

        released_config = _released_config(config)
        self.config = config
        self.tied: dict[str, str] = {}
        self.vision_model = released.SmolVLMVisionTransformer(released_config.vision_config)
        self.connector = released.SmolVLMConnector(released_config)

    def checkpoint_state_dict(self) -> dict[str, Tensor]:
        return dict(self.state_dict(keep_vars=True))

    def init_buffers(self) -> None:
        """Do nothing: the tower computes its position ids in each call and has no buffers."""

    def forward(self, frames_BTCHW: Tensor) -> VisualTokens:
        B, T, _, H, W = frames_BTCHW.shape
        size = self.config.image_size
        if (self.config.frames, size, size) != (T, H, W):
            raise AtomError(
                f"got {T} frames of {H}x{W}, expected model.encoder.frames={self.config.frames} "
                f"of model.encoder.image_size={size}"
            )
        # A norm's weight: no recipe quantises it, so its dtype is the compute dtype.
        dtype = self.vision_model.post_layernorm.weight.dtype
        pixels = ((frames_BTCHW.flatten(0, 1).float() - _PIXEL_SCALE) / _PIXEL_SCALE).to(dtype)
        # `get_image_features` drops images that are 0 all over as padding. No byte is 127.5, so
        # no frame is dropped, and the tower can be called directly.
        patches = self.vision_model(pixel_values=pixels).last_hidden_state
        projected: Tensor = self.connector(patches)
        frame_tokens = (projected.shape[1],) * T
        return VisualTokens(projected.reshape(B, -1, projected.shape[-1]), frame_tokens)


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
    released: Any = SmolVLMConfig(
        vision_config=vision,
        # Only the width is used; one head divides any width.
        text_config={
            "model_type": "llama",
            "hidden_size": config.output_width,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
        },
        scale_factor=config.shuffle,
    )
    released.vision_config._attn_implementation = "sdpa"
    return released


@dataclass(frozen=True)
class SmolVLM2:
    """Architecture of SmolVLM2, without weights.

    Clips may interleave on one decoder because `TextDecoder` counts positions from the cache that
    the caller owns. A decoder that keeps a clip's position offset on the module, as Qwen-VL's
    does with `rope_deltas`, gives one clip the positions of another when shared this way.
    """

    name: str
    encoder: SmolEncoderConfig
    decoder: TextDecoderConfig
    prompt: str
    writes_text = True
    unscored_ids = 0
    decoder_export = TEXT_DECODER_EXPORT

    @property
    def specials(self) -> SpecialTokens:
        return SpecialTokens(
            begin="<|im_start|>",
            end="<end_of_utterance>",
            pad="<|im_end|>",
            others=(IMAGE_BOUNDARY, GLOBAL_IMAGE),
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

    def prompt_ids(
        self, tokenizer: TokenizerProtocol, text: str, *, visual: VisualTokens | None
    ) -> list[int]:
        """A user turn without a system message, and the header of the assistant turn.

        The text between two special tokens is encoded in one piece, as the released tokenizer
        does: the tokens of "User: a" are not those of "User: " and "a".
        """
        assistant = [tokenizer.end_id, *tokenizer.encode("\nAssistant:")]
        if visual is None:
            return [tokenizer.begin_id, *tokenizer.encode(f"User: {text}"), *assistant]
        boundary = tokenizer.special_id(IMAGE_BOUNDARY)
        global_image = tokenizer.special_id(GLOBAL_IMAGE)
        if sum(visual.frame_tokens) != visual.count:
            raise AtomError(
                f"{sum(visual.frame_tokens)} of {visual.count} visual tokens belong to a frame: "
                "SmolVLM2 has no place for others in its prompt; a stage between encoder and "
                "decoder has to return frame_tokens"
            )
        frame_ids: list[int] = []
        for tokens in visual.frame_tokens:
            frame_ids += [boundary, global_image, *[VISUAL_PLACEHOLDER] * tokens, boundary]
        text_ids = tokenizer.encode(text) if text else []
        user = tokenizer.encode("User:")
        return [tokenizer.begin_id, *user, *frame_ids, *text_ids, *assistant]

    def training_ids(self, tokenizer: TokenizerProtocol, caption: str) -> list[int]:
        """Target ids of a caption for `caption_loss`, end-of-sequence included."""
        return [*tokenizer.encode(caption), tokenizer.end_id]

    def clean_text(self, text: str) -> str:
        return text

    def caption_loss(
        self,
        decoder: TextDecoder,
        visual: VisualTokens,
        captions_BRL: Tensor,
        tokenizer: TokenizerProtocol,
    ) -> Tensor:
        prompt_ids = self.prompt_ids(tokenizer, self.prompt, visual=visual)
        prefix = decoder.embed_prompt(visual, prompt_ids)
        return packed_loss(decoder, prefix, captions_BRL, pad_id=tokenizer.pad_id)


def build(
    *, name: str, prompt: str, encoder: Mapping[str, Any], decoder: Mapping[str, Any]
) -> SmolVLM2:
    """Build the model of a `conf/model` file.

    Args:
        prompt: the request for a caption, placed after the frames.
        encoder: fields of `SmolEncoderConfig`, `output_width` taken from the decoder.
        decoder: fields of `TextDecoderConfig`.
    """
    decoder_config = TextDecoderConfig(**decoder)
    encoder_config = SmolEncoderConfig(**encoder, output_width=decoder_config.width)
    return SmolVLM2(name, encoder_config, decoder_config, prompt)


def released_key(key: str) -> tuple[str, str] | None:
    """Map a key of the released checkpoint to (`encoder` or `decoder`, key in our module).

    None for a constant, which modules compute themselves. An unknown key is mapped to the decoder
    unchanged, which has no such weight, so that loading reports it by name.
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
    """Check the released `config.json` against the hyperparameters of `model`.

    A key that the file leaves out has the default of transformers.

    Raises:
        AtomError: another model type, or a value that differs from the model's.
    """
    from transformers import SmolVLMConfig

    if config.get("model_type") != "smolvlm":
        raise AtomError(
            f"config.json says model_type={config.get('model_type')!r}, not 'smolvlm'; give a "
            f"SmolVLM2 checkpoint or choose another model than model={model.name}"
        )
    released: Any = SmolVLMConfig.from_dict(dict(config))
    vision, text = released.vision_config, released.text_config
    encoder, decoder = model.encoder, model.decoder
    for key, released_value, expected in (
        ("vision_config.image_size", vision.image_size, encoder.image_size),
        ("vision_config.patch_size", vision.patch_size, encoder.patch_size),
        ("vision_config.hidden_size", vision.hidden_size, encoder.width),
        ("vision_config.num_hidden_layers", vision.num_hidden_layers, encoder.layers),
        ("vision_config.num_attention_heads", vision.num_attention_heads, encoder.heads),
        ("vision_config.intermediate_size", vision.intermediate_size, encoder.mlp_width),
        ("vision_config.layer_norm_eps", vision.layer_norm_eps, encoder.norm_eps),
        ("vision_config.hidden_act", vision.hidden_act, "gelu_pytorch_tanh"),
        ("scale_factor", released.scale_factor, encoder.shuffle),
        ("text_config.vocab_size", text.vocab_size, decoder.vocabulary),
        ("text_config.hidden_size", text.hidden_size, decoder.width),
        ("text_config.num_hidden_layers", text.num_hidden_layers, decoder.layers),
        ("text_config.num_attention_heads", text.num_attention_heads, decoder.heads),
        ("text_config.num_key_value_heads", text.num_key_value_heads, decoder.kv_heads),
        ("text_config.head_dim", text.head_dim, decoder.head_width),
        ("text_config.intermediate_size", text.intermediate_size, decoder.mlp_width),
        ("text_config.rms_norm_eps", text.rms_norm_eps, decoder.norm_eps),
        ("text_config.rope_theta", text.rope_parameters["rope_theta"], decoder.rope_theta),
        ("text_config.rope_type", text.rope_parameters["rope_type"], "default"),
        ("text_config.hidden_act", text.hidden_act, "silu"),
        ("text_config.attention_bias", text.attention_bias, False),
        ("text_config.mlp_bias", text.mlp_bias, False),
        ("tie_word_embeddings", released.tie_word_embeddings, decoder.tied),
    ):
        if released_value != expected:
            raise AtomError(
                f"config.json says {key}={released_value}, model={model.name} has {expected}; "
                "choose the model of that size or set the value in conf/model"
            )
