"""What the stage `quantize` is made of: the texts it looks at, what it can't do, gptqmodel, the measuring."""
