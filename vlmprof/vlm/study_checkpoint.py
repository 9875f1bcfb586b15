"""The study's released checkpoints: a trained connector and LLM for a backbone that was frozen.

Layout as in raykuo18/vlm-ssm-vision-encoders (arXiv 2603.19209): `latest-checkpoint.pt` holds
`{"model": {"projector": …, "llm_backbone": …}}`; the backbone's own weights are its authors'.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmprof.backbones import checkpoints
from vlmprof.errors import UserError

EMBEDDINGS = "model.embed_tokens.weight"


def load_study_checkpoint(path: str, connector: nn.Module, llm: PreTrainedModel) -> None:
    """Load both parts strictly. The LLM's vocabulary grows to the checkpoint's, which was padded.

    Raises `UserError` in one line when the file cannot be read or does not fit.
    """
    content = checkpoints.read_content(path)
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping) or not {"projector", "llm_backbone"} <= model.keys():
        raise UserError(
            f"weights: {path} is no checkpoint of the study: no model.projector and model.llm_backbone"
        )
    projector = checkpoints.unwrap(model["projector"])
    language = checkpoints.strip_prefix(checkpoints.unwrap(model["llm_backbone"]), ("llm.",))
    checkpoints.load(connector, _connector_names(projector), path)
    rows = language[EMBEDDINGS].shape[0] if EMBEDDINGS in language else 0
    embeddings = llm.get_input_embeddings().weight
    assert isinstance(embeddings, Tensor)
    if rows > embeddings.shape[0]:
        llm.resize_token_embeddings(rows, mean_resizing=False)
    checkpoints.load(llm, language, path, unused=(r".*rotary_emb\.inv_freq",))


def _connector_names(projector: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The study calls its connector `projector`, and its layers as ours; a linear one has no number."""
    stripped = checkpoints.strip_prefix(projector, ("projector.",))
    return {name if name[0].isdigit() else f"0.{name}": tensor for name, tensor in stripped.items()}
