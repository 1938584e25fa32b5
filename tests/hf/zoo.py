"""Which architectures the family table runs: tiny configurations, by transformers' own class names.

Every row is a few thousand random parameters, enough to have what sets its family apart: grouped
heads, norms on queries and keys, sliding or chunked layers, layers without positions, latent
attention, experts, learned sinks, soft caps, partly rotated heads, linear layers in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
HEAD = {"head_dim": 16}
SLIDING = {"sliding_window": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {
    "q_lora_rank": 32,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
GEMMA = {**HEAD, **SLIDING, "query_pre_attn_scalar": 16}
CONVOLUTION = ["conv", "full_attention"] * 2
HALF_SLIDING = ["sliding_attention", "full_attention"] * 2


def rope(kind: str, **more: Any) -> dict[str, Any]:
    """A RoPE scaling rule of transformers."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


@dataclass(frozen=True)
class Family:
    """One row.

    Attributes:
        classes: the stem of transformers' class names, or "Config Model" in full.
        config: what differs from `BASE`.
        settings: attention settings of this row beside the table's own.
        sharpness: factor on the weights of queries and keys.
        refused: part of the reason with which the model must be refused, or "".
        quick: whether the row is in the default test run.
        recent: older transformers cannot feed this family in parts, patched or not.
    """

    classes: str
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    sharpness: float = 6.0
    refused: str = ""
    quick: bool = False
    recent: bool = False

    @property
    def class_names(self) -> tuple[str, str]:
        """Names of the configuration and the model class."""
        if " " in self.classes:
            config, model = self.classes.split()
            return config, model
        return f"{self.classes}Config", f"{self.classes}ForCausalLM"


def quick(classes: str, config: Mapping[str, Any] | None = None, **settings: Any) -> Family:
    """A row of the default test run."""
    return Family(classes, config or {}, settings, quick=True)


DENSE = {
    "llama": quick("Llama"),
    "llama-llama3": Family(
        "Llama",
        rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=1024,
        ),
    ),
    "llama-yarn": quick("Llama", rope("yarn", factor=4.0, original_max_position_embeddings=1024)),
    "llama-linear": Family("Llama", rope("linear", factor=4.0)),
    "llama-dynamic": Family("Llama", rope("dynamic", factor=4.0)),
    "mistral": Family("Mistral", {"sliding_window": None}),
    "mistral-override": quick("Mistral", {"sliding_window": 4096}, native_window="override"),
    "ministral": Family(
        "Ministral", {**HEAD, **SLIDING, "layer_types": HALF_SLIDING, **rope("default")}
    ),
    "ministral3": Family("Ministral3"),
    "qwen2": Family("Qwen2"),
    "qwen3": quick("Qwen3", HEAD),
    "gemma": Family("Gemma", HEAD),
    "gemma2": quick("Gemma2", GEMMA),
    "gemma3": quick("Gemma3TextConfig Gemma3ForCausalLM", {**GEMMA, "num_hidden_layers": 6}),
    "vaultgemma": Family("VaultGemma", {**GEMMA, "layer_types": HALF_SLIDING}),
    "gemma3n": Family(
        "Gemma3nTextConfig Gemma3nForCausalLM",
        {
            **HEAD,
            **SLIDING,
            "vocab_size_per_layer_input": 128,
            "hidden_size_per_layer_input": 16,
            "num_hidden_layers": 5,
            "num_kv_shared_layers": 2,
            "laurel_rank": 8,
            "activation_sparsity_pattern": None,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention", *HALF_SLIDING[:2]],
        },
    ),
    "gemma4": Family(
        "Gemma4TextConfig Gemma4ForCausalLM",
        {
            **HEAD,
            **SLIDING,
            "global_head_dim": 32,
            "num_hidden_layers": 6,
            "vocab_size_per_layer_input": 128,
            "hidden_size_per_layer_input": 0,
        },
    ),
    "phi": quick("Phi"),
    "phi3": Family("Phi3"),
    "phi3-longrope": quick(
        "Phi3",
        {
            "original_max_position_embeddings": 1024,
            **rope(
                "longrope",
                short_factor=[1.1] * 8,
                long_factor=[2.0] * 8,
                original_max_position_embeddings=1024,
            ),
        },
    ),
    "glm": quick("Glm", HEAD),
    "glm4": Family("Glm4", HEAD),
    "olmo": Family("Olmo"),
    "olmo2": Family("Olmo2"),
    "olmo3": Family("Olmo3", SLIDING),
    "cohere": Family("Cohere"),
    "cohere2": Family("Cohere2", SLIDING),
    "granite": Family("Granite", sharpness=3.0),
    "granite_swa": Family("GraniteSWA", SLIDING, sharpness=3.0),
    "smollm3": quick("SmolLM3", {"use_sliding_window": False}),
    "stablelm": Family("StableLm"),
    "starcoder2": Family("Starcoder2", {"sliding_window": None}),
    "nemotron": Family("Nemotron"),
    "persimmon": Family("Persimmon"),
    "gpt_neox": Family("GPTNeoX"),
    "exaone4": Family("Exaone4", {**SLIDING, "sliding_window_pattern": 4}),
    "ernie4_5": Family("Ernie4_5", HEAD),
    "seed_oss": Family("SeedOss", HEAD),
    "helium": Family("Helium", HEAD),
    "apertus": Family("Apertus"),
    "arcee": Family("Arcee"),
    "bitnet": Family("BitNet"),
    "nanochat": Family("NanoChat"),
    "cwm": Family("Cwm", {**HEAD, **SLIDING, "layer_types": HALF_SLIDING}),
    "hyperclovax": Family("HyperCLOVAX", HEAD),
    "jais2": Family("Jais2", HEAD),
    "modernbert-decoder": Family("ModernBertDecoder", SLIDING, sharpness=12.0),
    "mellum": Family("Mellum", {**HEAD, **EXPERTS}),
}
EXPERT = {
    "mixtral": Family("Mixtral", LOCAL_EXPERTS),
    "qwen2_moe": Family("Qwen2Moe", {**EXPERTS, "shared_expert_intermediate_size": 32}),
    "qwen3_moe": Family("Qwen3Moe", {**EXPERTS, **HEAD}),
    "phimoe": Family("Phimoe", LOCAL_EXPERTS),
    "jetmoe": Family(
        "JetMoe",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 16},
        sharpness=25.0,
    ),
    "olmoe": Family("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "flex_olmo": Family("FlexOlmo", {"num_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": Family("GraniteMoe", LOCAL_EXPERTS, sharpness=3.0),
    "granitemoeshared": Family(
        "GraniteMoeShared", {**LOCAL_EXPERTS, "shared_intermediate_size": 32}, sharpness=3.0
    ),
    "glm4_moe": Family("Glm4Moe", {**HEAD, **ROUTED}),
    "dots1": Family("Dots1", {**ROUTED, **SLIDING}),
    "gpt_oss": quick("GptOss", {**HEAD, **SLIDING, **LOCAL_EXPERTS}),
    "llama4": quick(
        "Llama4TextConfig Llama4ForCausalLM",
        {**HEAD, "num_local_experts": 2, "attention_chunk_size": 64, "intermediate_size_mlp": 96},
    ),
    "minimax_m2": Family("MiniMaxM2", {**HEAD, **LOCAL_EXPERTS}),
    "afmoe": Family(
        "Afmoe",
        {**HEAD, **EXPERTS, **SLIDING, "num_dense_layers": 1, "num_shared_experts": 1},
    ),
    "exaone_moe": Family("ExaoneMoe", {**HEAD, **SLIDING, **EXPERTS, "num_shared_experts": 1}),
    "ernie4_5_moe": Family(
        "Ernie4_5_Moe", {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32}
    ),
    "cohere2_moe": Family("Cohere2Moe", {**SLIDING, **EXPERTS}),
    "solar_open": Family("SolarOpen", {**HEAD, **ROUTED}),
    "laguna": Family("Laguna", {**HEAD, **EXPERTS}),
    "mimo_v2_flash": Family("MiMoV2Flash", {**HEAD, **ROUTED}),
    "hy_v3": Family("HYV3", {**HEAD, **EXPERTS}),
}
LATENT_ATTENTION = {
    "minicpm3": Family("MiniCPM3", LATENT, sharpness=3.0),
    "deepseek_v2": Family("DeepseekV2", {**LATENT, **ROUTED, "topk_method": "greedy"}),
    "deepseek_v3": quick("DeepseekV3", {**LATENT, **ROUTED}),
    "glm4_moe_lite": Family("Glm4MoeLite", {**LATENT, **ROUTED}),
    "youtu": Family("Youtu", LATENT, sharpness=3.0),
    "axk1": Family("AXK1", {**LATENT, **ROUTED}),
}
HYBRID = {
    "qwen3_next": Family(
        "Qwen3Next", {**EXPERTS, **HEAD, **LINEAR, "shared_expert_intermediate_size": 32}
    ),
    "qwen3_5": Family("Qwen3_5TextConfig Qwen3_5ForCausalLM", {**HEAD, **LINEAR}),
    "olmo_hybrid": Family("OlmoHybrid", {**LINEAR, **HEAD}, recent=True),
    "lfm2": Family("Lfm2", {"layer_types": CONVOLUTION}, quick=True, recent=True),
    "lfm3": Family("Lfm3", {"layer_types": CONVOLUTION}, recent=True),
}
REFUSED = {
    "mistral-sliding": Family("Mistral", SLIDING, refused="sliding window of its own"),
    "kolibri1": Family("Kolibri1", SLIDING, refused="sliding window of its own"),
    "gpt2": Family(
        "GPT2Config GPT2LMHeadModel",
        {"n_embd": 64, "n_layer": 2, "n_head": 4},
        refused="no rotary position embedding",
        quick=True,
    ),
    "gptj": Family(
        "GPTJ",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
        refused="no rotary position embedding",
    ),
    "bloom": Family("Bloom", {"n_head": 4, "n_layer": 2}, refused="no rotary position embedding"),
    "mpt": Family(
        "Mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2}, refused="no rotary position embedding"
    ),
    "opt": Family(
        "OPT", {"ffn_dim": 96, "word_embed_proj_dim": 64}, refused="no rotary position embedding"
    ),
    "jamba": Family(
        "Jamba",
        {
            "num_experts": 2,
            "use_mamba_kernels": False,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
        },
        refused="no rotary position embedding",
    ),
    "falcon": Family(
        "Falcon",
        {"alibi": False, "new_decoder_architecture": False, "multi_query": True},
        refused="computes attention by itself",
        quick=True,
    ),
    "gpt_neox_japanese": Family("GPTNeoXJapanese", refused="computes attention by itself"),
    "hunyuan_dense": Family(
        "HunYuanDenseV1", HEAD, refused="norms or other operations", quick=True
    ),
    "hunyuan_moe": Family(
        "HunYuanMoEV1",
        {**HEAD, "num_experts": 4, "moe_topk": 2},
        refused="norms or other operations",
    ),
    "diffllama": Family("DiffLlama", refused="attention", quick=True),
    "hrm_text": Family("HrmText", HEAD, refused="more than once in one pass"),
    "doge": Family("Doge", HEAD, refused="a mask of its own"),
    "moshi": Family("Moshi", HEAD, refused="rotary modules"),
    "deepseek_v32": Family(
        "DeepseekV32", {**LATENT, **ROUTED}, refused="without an attention mask"
    ),
    "glm_moe_dsa": Family("GlmMoeDsa", {**LATENT, **ROUTED}, refused="without an attention mask"),
    "falcon_h1": Family("FalconH1", refused="another recurrent state"),
}
WORKING: dict[str, Family] = {**DENSE, **EXPERT, **LATENT_ATTENTION, **HYBRID}
