"""One input run once through a causal language model, its layers then callable one by one on changed residual streams.

What lies below a change is not computed again, and many changes to one input go through a layer as one batch. Works
with any Hugging Face decoder: each layer is called as the model itself called it, and the head is the model's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmn_utils.neurons import Positions, hooked, last_logits, mlp_layers, silenced

_ADDS_MLP: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()
"""What was found of each model (`Replay.adds_mlp`): its architecture, which does not change."""


class Replay:
    """A forward pass that can be taken up again before or after any layer. No gradients.

    Raises:
        ValueError: the embeddings are not those of one input, float [1, position, d_model].
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, embeddings: Tensor, *, positions: Positions = None) -> None:
        """`positions`: where units are ablated (None: everywhere)."""
        if embeddings.ndim != 3 or len(embeddings) != 1:
            raise ValueError(
                f"expected the embeddings of one input, [1, position, d_model], found {[*embeddings.shape]}"
            )
        self.model, self.positions, self._embeddings = model, positions, embeddings
        self.mlps = mlp_layers(model)
        self.inputs: list[Tensor] = []
        """Residual stream before each layer, float [1, position, d_model]."""
        self.outputs: list[Tensor] = []
        """Residual stream after each layer."""
        self.activations: list[Tensor] = []
        """float [1, position, unit] of each layer."""
        self._calls: list[tuple[tuple, dict[str, Any], bool]] = []
        self.logits = self._first_pass(embeddings)
        """What the model itself predicts, float [token]."""
        if model not in _ADDS_MLP:
            _ADDS_MLP[model] = self._adds_mlp()
        self.adds_mlp = _ADDS_MLP[model]
        """Whether a layer's output is a sum that the MLP's output enters as it is (not so with a norm after it)."""

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.mlps)

    @torch.no_grad()
    def layer(self, layer: int, hidden: Tensor, mask: Tensor | None = None, *, last_only: bool = False) -> Tensor:
        """Residual stream [row, position, d_model] after a layer, from that before it, with the units of `mask`
        [row, unit] ablated.

        `last_only`: only the last position has to be right, as after the last layer; the MLP then skips the others.
        """
        args, kwargs, _ = self._calls[layer]
        with self._ablated(layer, mask), self._narrowed(layer, last_only):
            out = self.mlps[layer].block(hidden, *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out

    @torch.no_grad()
    def after_ablation(self, layer: int, mask: Tensor) -> Tensor:
        """Residual stream [row, position, d_model] after a layer whose input is the original's, with the units of
        `mask` [row, unit] ablated: what they wrote is taken away."""
        if not self.adds_mlp:
            return self.layer(layer, self.inputs[layer].expand(len(mask), -1, -1), mask)
        units = mask.any(0).nonzero()[:, 0]
        written = self.activations[layer][..., units] - silenced(
            self.activations[layer][..., units].expand(len(mask), -1, -1), mask[:, units], positions=self.positions
        )
        return self.outputs[layer] - written @ self.mlps[layer].directions[units]

    @torch.no_grad()
    def head(self, hidden: Tensor) -> Tensor:
        """Logits [row, token] from the last layer's residual stream at the last position, [row, d_model]."""
        with self._bypassed(hidden[:, None]):
            return last_logits(self.model, self._embeddings[:, :1].expand(len(hidden), -1, -1))

    def _first_pass(self, embeddings: Tensor) -> Tensor:
        def keep(_block: nn.Module, args: tuple, kwargs: dict[str, Any], out: Any) -> None:
            self.inputs.append(args[0] if args else kwargs["hidden_states"])
            self.outputs.append(out[0] if isinstance(out, tuple) else out)
            rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            self._calls.append((args[1:], rest, isinstance(out, tuple)))

        handles = [mlp.block.register_forward_hook(keep, with_kwargs=True) for mlp in self.mlps]
        try:
            with hooked(self.model, lambda _layer, a, _start: self.activations.append(a), layers=self.mlps):
                return last_logits(self.model, embeddings)[0]
        finally:
            for handle in handles:
                handle.remove()

    def _adds_mlp(self) -> bool:
        """Compare the first layer without any of its neurons with its output less what they wrote."""
        everything = torch.ones(1, self.mlps[0].n_units, dtype=torch.bool, device=self.activations[0].device)
        self.adds_mlp = True
        quick = self.after_ablation(0, everything)
        change = (self.layer(0, self.inputs[0], everything) - quick).abs().max()
        return bool(change <= 1e-2 * (self.outputs[0] - quick).abs().max())

    @contextmanager
    def _ablated(self, layer: int, mask: Tensor | None) -> Iterator[None]:
        if mask is None or not mask.any():
            yield
            return

        def silence(_layer: int, values: Tensor, start: int) -> Tensor:
            return silenced(values, mask, start=start, positions=self.positions)

        with hooked(self.model, silence, layers=[self.mlps[layer]]):
            yield

    @contextmanager
    def _narrowed(self, layer: int, last_only: bool) -> Iterator[None]:
        """The MLP sees the last position only; what it adds is broadcast to the others, where it is wrong."""
        mlp = self.mlps[layer]
        module = self.model.get_submodule(mlp.name)
        if not last_only or module is mlp.block:
            yield
            return
        handle = module.register_forward_pre_hook(lambda _mlp, args: (args[0][:, -1:], *args[1:]) if args else None)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _bypassed(self, hidden: Tensor) -> Iterator[None]:
        """While it lasts, every layer gives back `hidden` in the form that the model expects of it."""
        blocks = [(mlp.block, call[2]) for mlp, call in zip(self.mlps, self._calls, strict=True)]
        before = [block.__dict__.get("forward") for block, _ in blocks]
        try:
            for block, is_tuple in blocks:
                answer = (hidden, None) if is_tuple else hidden
                block.forward = lambda *_args, answer=answer, **_kwargs: answer
            yield
        finally:
            for (block, _), forward in zip(blocks, before, strict=True):
                if forward is None:
                    del block.forward
                else:
                    block.forward = forward
