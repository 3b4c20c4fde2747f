"""Weights out of a seed, the tensors that released files carry and nobody runs, and planted outliers."""

import zlib

import torch


def initialise(model, seed: int, outliers: bool = False) -> None:
    """Weights whose activations have the scale of trained ones: attention is not uniform, biases are not zero.

    Every tensor depends on its name and the seed alone.
    """
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(values(name, tensor.shape, seed))
            if outliers:
                plant(name, tensor, seed)


def generator(name: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))


def normal(name: str, shape, seed: int) -> torch.Tensor:
    """Standard normal numbers; the only source of randomness here."""
    return torch.randn(shape, generator=generator(name, seed))


def values(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    noise = normal(name, shape, seed)
    if name == "temp":
        return torch.tensor(0.07)
    if name.endswith("logit_scale"):
        return torch.tensor(4.6)
    if is_norm(name):
        return noise * 0.1 + 1 if name.endswith("weight") else noise * 0.02
    if "embeddings.weight" in name or "token_embedding.weight" in name:
        return noise * 1.5 / shape[-1] ** 0.5
    if "embed" in name or "cls_token" in name:
        return noise * 0.2
    if len(shape) == 1:
        return noise * 0.02
    gain = 1.3 if any(part in name for part in ("qkv", "in_proj", "query", "key")) else 1.0
    return noise * gain / shape[1:].numel() ** 0.5


def is_norm(name: str) -> bool:
    return any(part in name for part in ("norm", "Norm", "ln_")) and not name.endswith("position_ids")


def plant(name: str, tensor: torch.Tensor, seed: int) -> None:
    """Makes a few channels eight times as large, where trained transformers have such channels:
    in the LayerNorm before or after a feed-forward part, and in its output."""
    in_norm = name.endswith((".norm2.weight", ".ln_2.weight", ".output.LayerNorm.weight"))
    in_output = name.endswith((".mlp.fc2.weight", ".mlp.c_proj.weight", ".output.dense.weight"))
    if in_norm or (in_output and "attention.output" not in name):
        count = max(1, len(tensor) // 128)
        tensor[torch.randperm(len(tensor), generator=generator(name + "/outliers", seed))[:count]] *= 8


def used_state(model) -> dict[str, torch.Tensor]:
    """The model's own tensors, each with a storage of its own although some are tied."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}


def released_state(model, seed: int) -> dict[str, torch.Tensor]:
    """The state with everything that a released file of this architecture carries beside it."""
    config, state = model.config, used_state(model)
    if config.family == "mplug":
        state |= {name: values(name, torch.Size(shape), seed) for name, shape in clip_text_tensors(config)}
    if config.momentum:
        state |= momentum_twins(config, state, seed)
    if config.architecture in ("albef-pretrain", "albef-retrieval", "mplug-retrieval"):
        for name in ("image_queue", "text_queue"):
            state[name] = torch.nn.functional.normalize(normal(name, (config.embed_dim, config.queue), seed), dim=0)
        state["queue_ptr"] = torch.zeros(1, dtype=torch.int64)
        if config.architecture != "albef-pretrain":
            state["idx_queue"] = torch.full((1, config.queue), -100)
    return state


def momentum_twins(config, state: dict, seed: int) -> dict:
    """`X_m.…` for every module of which the training kept a moving average."""
    without = {"temp", "itm_head"}
    twins = {}
    for name, tensor in state.items():
        module, _, rest = name.partition(".")
        if rest and module not in without:
            noise = values(f"{module}_m.{rest}", tensor.shape, seed) if tensor.is_floating_point() else 0
            twins[f"{module}_m.{rest}"] = (tensor + 0.01 * noise).to(tensor.dtype)
    return twins


def clip_text_tensors(config) -> list[tuple[str, tuple[int, ...]]]:
    clip = config.clip_text
    width, inner = clip.width, 4 * clip.width
    tensors = [
        ("positional_embedding", (clip.context, width)), ("text_projection", (width, width)), ("logit_scale", ()),
        ("visual.proj", (config.vision_width, width)), ("token_embedding.weight", (clip.vocabulary, width)),
        ("ln_final.weight", (width,)), ("ln_final.bias", (width,)),
    ]
    for index in range(clip.layers):
        block = f"transformer.resblocks.{index}"
        tensors += [
            (f"{block}.attn.in_proj_weight", (3 * width, width)), (f"{block}.attn.in_proj_bias", (3 * width,)),
            (f"{block}.attn.out_proj.weight", (width, width)), (f"{block}.attn.out_proj.bias", (width,)),
            (f"{block}.ln_1.weight", (width,)), (f"{block}.ln_1.bias", (width,)),
            (f"{block}.mlp.c_fc.weight", (inner, width)), (f"{block}.mlp.c_fc.bias", (inner,)),
            (f"{block}.mlp.c_proj.weight", (width, inner)), (f"{block}.mlp.c_proj.bias", (width,)),
            (f"{block}.ln_2.weight", (width,)), (f"{block}.ln_2.bias", (width,)),
        ]
    return [("visual_encoder." + name, shape) for name, shape in tensors]
