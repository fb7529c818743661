//! The families of models: which tensors each has, under which names, and the choices it made.

use crate::shape::Activation;

/// A family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma,
    Gemma2,
    Gemma3,
}

/// Whether a tensor belongs to a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
    Absent,
}

impl Family {
    /// By `model_type` of a `config.json`.
    pub(crate) fn of_hugging_face(model_type: &str) -> Option<Self> {
        Some(match model_type {
            "llama" => Self::Llama,
            "mistral" => Self::Mistral,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "qwen3_moe" => Self::Qwen3Moe,
            "gemma" => Self::Gemma,
            "gemma2" => Self::Gemma2,
            "gemma3_text" => Self::Gemma3,
            _ => return None,
        })
    }

    /// By `general.architecture` of a GGUF file, where Mistral is a `llama` too.
    pub(crate) fn of_gguf(architecture: &str) -> Option<Self> {
        Some(match architecture {
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "qwen3moe" => Self::Qwen3Moe,
            "gemma" => Self::Gemma,
            "gemma2" => Self::Gemma2,
            "gemma3" => Self::Gemma3,
            _ => return None,
        })
    }

    pub(crate) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3)
    }

    /// Biases of Q, K and V.
    pub(crate) fn input_bias(self) -> Presence {
        match self {
            Self::Qwen2 => Presence::Required,
            Self::Llama => Presence::Optional,
            _ => Presence::Absent,
        }
    }

    /// The bias of the attention's output.
    pub(crate) fn output_bias(self) -> Presence {
        if self == Self::Llama { Presence::Optional } else { Presence::Absent }
    }

    /// Norms of each head of Q and K.
    pub(crate) fn has_head_norms(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Qwen3Moe | Self::Gemma3)
    }

    /// Norms after the attention and after the feed-forward network, beside those before.
    pub(crate) fn has_outer_norms(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    pub(crate) fn activation(self) -> Activation {
        if self.is_gemma() { Activation::GeluTanh } else { Activation::Silu }
    }

    /// What Hugging Face's norms add to their stored weights. GGUF's converter has added it already.
    pub(crate) fn norm_offset(self) -> f32 {
        if self.is_gemma() { 1.0 } else { 0.0 }
    }

    pub(crate) fn embedding_scale(self, hidden: usize) -> f32 {
        if self.is_gemma() { (hidden as f32).sqrt() } else { 1.0 }
    }

    /// Whether the embedding is the output matrix too, where `config.json` does not say.
    pub(crate) fn tied_by_default(self) -> bool {
        self.is_gemma()
    }

    /// ggml rotates neighbouring numbers in this family, Hugging Face halves of a head: its converter interleaved
    /// the rows of Q and K.
    pub(crate) fn interleaved_in_gguf(self) -> bool {
        self == Self::Llama
    }

    /// Every how many layers one sees the whole context, where others see a window.
    pub(crate) fn full_attention_every(self) -> Option<usize> {
        match self {
            Self::Gemma2 => Some(2),
            Self::Gemma3 => Some(6),
            _ => None,
        }
    }
}

/// The names of tensors in one kind of file. Those of a layer follow `layer`, its number and a dot.
pub(crate) struct Names {
    pub(crate) embedding: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) output: &'static str,
    pub(crate) layer: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) q: &'static str,
    pub(crate) k: &'static str,
    pub(crate) v: &'static str,
    pub(crate) o: &'static str,
    pub(crate) q_norm: &'static str,
    pub(crate) k_norm: &'static str,
    pub(crate) attention_outer_norm: &'static str,
    pub(crate) feed_forward_norm: &'static str,
    pub(crate) feed_forward_outer_norm: &'static str,
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) router: &'static str,
}

/// Names as llama.cpp's converter writes them. Matrices and norms end in `.weight`, biases in `.bias`.
pub(crate) const GGUF: Names = Names {
    embedding: "token_embd",
    norm: "output_norm",
    output: "output",
    layer: "blk",
    attention_norm: "attn_norm",
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    o: "attn_output",
    q_norm: "attn_q_norm",
    k_norm: "attn_k_norm",
    attention_outer_norm: "post_attention_norm",
    feed_forward_norm: "ffn_norm",
    feed_forward_outer_norm: "post_ffw_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    router: "ffn_gate_inp",
};

const HUGGING_FACE: Names = Names {
    embedding: "model.embed_tokens",
    norm: "model.norm",
    output: "lm_head",
    layer: "model.layers",
    attention_norm: "input_layernorm",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    o: "self_attn.o_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    attention_outer_norm: "",
    feed_forward_norm: "post_attention_layernorm",
    feed_forward_outer_norm: "",
    gate: "gate_proj",
    up: "up_proj",
    down: "down_proj",
    router: "mlp.gate",
};

/// Names as transformers writes them. The same name means another norm where a family has four of them.
pub(crate) fn hugging_face_names(family: Family) -> Names {
    if family.has_outer_norms() {
        Names {
            attention_outer_norm: "post_attention_layernorm",
            feed_forward_norm: "pre_feedforward_layernorm",
            feed_forward_outer_norm: "post_feedforward_layernorm",
            ..HUGGING_FACE
        }
    } else {
        HUGGING_FACE
    }
}
