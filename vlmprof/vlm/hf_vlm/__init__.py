"""VLMs of transformers, `hf:PATH-or-name`, timed as people download them.

catalog                what a configuration says of one, without torch
support                which of transformers' types run, and why others do not
own                    a photo of any size through a VLM's own processor
photo                  the model's inputs that the processor makes, and what can be read from them
processors             the processor beside a configuration, or its architecture's default
placeholder_tokenizer  the tokenizer of a configuration that comes without one
architectures          exceptions of single architectures
model                  the model and its forward pass
dry_run                the model without weights: tokens and stages of a photo before any run
parts                  encoder, connector and language model, and marks around them
inputs                 images in one piece, in the layout that each architecture takes
"""
