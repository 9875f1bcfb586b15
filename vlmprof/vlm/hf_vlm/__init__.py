"""VLMs of transformers, `hf:PATH-or-name`, timed as they are distributed.

catalog                what a configuration says, without torch
support                which of transformers' types run, and why others do not
own                    a photo of any size through a VLM's own processor
photo                  the inputs that the processor makes, and their facts
processors             the processor beside a configuration, or its architecture's default
processor_files        what the files beside a configuration say of it
placeholder_tokenizer  the tokenizer of a configuration without one
architectures          what some architectures need beyond the general rules
model                  the model and its forward pass
dry_run                the model without weights: tokens and stages of a photo
parts                  encoder, connector and language model, and marks around them
inputs                 images in one piece, in the layout that each architecture takes
"""
