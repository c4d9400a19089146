"""Where weights come from: GGUF and safetensors files, synthetic models, and the store that keeps files.

Nothing is imported here, so that listing the store does not load the array libraries:
`weights.gguf.open_gguf`, `weights.safetensors.open_safetensors`, `weights.config_file.ConfigFile`,
`weights.synthetic.synthetic_weight`.
"""
