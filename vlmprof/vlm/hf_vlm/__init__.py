"""VLMs of transformers, `hf:PATH-or-name`, timed as people download them.

catalog   what a configuration says of one, without torch
inputs    images in the layout that each architecture takes
model     the model, its inputs, and the hooks that mark its stages
"""
