//! Text generation on burn: GGUF and safetensors loading, tokenizer, chat template, Llama family.
