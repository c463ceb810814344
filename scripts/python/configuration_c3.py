"""configuration_c3.py: config.json of a C3 model, for transformers. train_c3 puts it into every checkpoint."""
import transformers
from transformers import Qwen2Config

if int(transformers.__version__.split(".")[0]) < 5:
    raise ImportError(f"configuration_c3.py: transformers {transformers.__version__} is too old: expected 5.0 or newer "
                      "(hint: pip install -U transformers)")


class C3Config(Qwen2Config):
    """The decoder's Qwen2 keys, and what the cascade adds. The encoder has a config.json of its own, in llm1/."""
    model_type = "C3"

    latent_token_len: int = 32  # N
    contexts_compression_llm_hidden_size: int = 1536  # D of the encoder
    im_start_token: int = 151857  # <img>
    im_end_token: int = 151858  # </img>
    im_patch_token: int = 151859  # <imgpad>
    use_im_start_end: bool = True
    c3_template: str = "c3"  # the words around the latents; "bare": none
    c3_window: int | None = None  # tokens that the encoder reads at a time; None: all
    c3_trained_tokens: list[int] | None = None  # least and most tokens of the pages it was trained on
    c3_trained_latents: list[int] | None = None  # numbers of latents it was trained with; None: N alone

    @property
    def base_vocab(self):
        """Ranks of the vocabulary; <|endoftext|>, <|im_start|>, <|im_end|> have the ids that follow."""
        return 151643 if self.im_start_token == 151857 else self.im_start_token - 3
