"""GGUF files for llama.cpp and Ollama: converted and quantized by llama.cpp's own code, then checked."""
