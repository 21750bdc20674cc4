"""Token-level scalar heads for the architectures that lack one in transformers; used by `loading.load_scorer`."""

from transformers import Gemma3PreTrainedModel, Gemma3TextConfig, Qwen2_5_VLPreTrainedModel, Qwen2_5_VLTextConfig
from transformers.modeling_layers import GenericForTokenClassification


class Gemma3TextForTokenClassification(GenericForTokenClassification, Gemma3PreTrainedModel):
    config: Gemma3TextConfig


class Qwen2_5_VLTextForTokenClassification(GenericForTokenClassification, Qwen2_5_VLPreTrainedModel):
    config: Qwen2_5_VLTextConfig


HEADS = {
    Gemma3TextConfig: Gemma3TextForTokenClassification,
    Qwen2_5_VLTextConfig: Qwen2_5_VLTextForTokenClassification,
}
