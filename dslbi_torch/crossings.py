"""The sparse model as it was when the path crossed a density, kept while the training goes on."""

from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .arguments import shown
from .bits import pack_bits, unpack_bits
from .sharding import whole
from .state import rests
from .units import Family, families, named, scores, selected, unit_sizes
from .wrapped import unwraps


class Crossings:
    """Keep the sparse model of the first step at which a path has each of some densities.

    A path that begins at zero crosses a density from below, one that begins at Gamma = W from
    above. Of the split tensors the weights on the support and the support itself are kept (of a
    density d the part d of the weights, and a bit of each), of all others the whole tensor: so
    the memory is bounded by the densities that are asked for.

    Parameters
    ----------
    optimizer : DessiLBI or Split
    densities : iterable of float in (0, 1)
        Shares of the split tensors' entries.
    model : Module, optional
        Its buffers (running means and variances) are kept too.
    host : bool
        Whether what is kept moves to the host, or stays where the weights are.
    """

    @unwraps
    def __init__(
        self,
        optimizer: Optimizer,
        densities: Iterable[float],
        *,
        model: nn.Module | None = None,
        host: bool = True,
    ):
        try:
            densities = list(densities)
        except TypeError:
            raise ValueError(
                f"the densities to keep must be several numbers, got {shown(densities)}"
            ) from None
        for density in densities:
            if not (isinstance(density, Real) and 0 < density < 1):
                raise ValueError(f"a density to keep must be in (0, 1), got {shown(density)}")
        self.optimizer, self.model, self.host = optimizer, model, host
        self.densities = sorted(set(densities))
        self.kept: dict[float, dict] = {}
        self.first: float | None = None  # where the path began: 0, or 1
        self.farthest: float | None = None  # the density farthest from there
        self.look(families(optimizer), 0, 0.0)

    @torch.no_grad()
    def look(self, found: list[Family], step: int, time: float) -> None:
        """Keep the model of now, whose families are given, where the path has come to a density
        that is still to come."""
        left = [density for density in self.densities if density not in self.kept]
        if not left or rests(found[0].group):
            return
        reached = self._density(found)
        if self.first is None:
            self.first, self.farthest = float(reached > 0.5), reached
        falls = self.first == 1
        self.farthest = (min if falls else max)(self.farthest, reached)
        crossed = [d for d in left if (reached <= d if falls else reached >= d)]
        if crossed:
            model = {"step": step, "time": time, "density": reached, **self._model(found)}
            self.kept |= dict.fromkeys(crossed, model)

    def _density(self, found):
        count = size = 0
        for family in found:
            lists = zip(scores(family), unit_sizes(family), strict=True)
            for score, entries in lists:
                count = count + whole(score > family.group["lam"]).count_nonzero() * entries
            size += sum(W.numel() for W in family.Ws)
        return int(count) / size

    def _model(self, found):
        values, support = {}, {}
        for family in found:
            rows = zip(family.names, family.Ws, selected(family), strict=True)
            for name, W, chosen in rows:
                W, mask = whole(W.detach()), whole(chosen).expand(W.shape)
                values[name], support[name] = self._own(W[mask]), self._own(pack_bits(mask))
        rest = {name: W for name, W in _parameters(self.optimizer).items() if name not in values}
        return {
            "values": values,
            "support": support,
            "rest": {name: self._own(whole(W.detach())) for name, W in rest.items()},
            "buffers": {name: self._own(x) for name, x in self._buffers().items()},
        }

    def _buffers(self):
        return {} if self.model is None else dict(self.model.named_buffers())

    def _own(self, x):
        return x.to("cpu" if self.host else x.device, copy=True)

    def model_at(self, density: float) -> dict:
        """Return what was kept at a density: ``step, time, density`` and the tensors; ValueError
        for one that was not asked for, or was never reached."""
        if density not in self.densities:
            known = ", ".join(f"{d:g}" for d in self.densities) or "none"
            raise ValueError(f"density must be one of those to keep, {known}, got {density}")
        if density not in self.kept:
            far = "nothing" if self.farthest is None else f"{self.farthest:.4g}"
            raise ValueError(f"the path must reach the density {density:g} to keep it, got {far}")
        return self.kept[density]

    def masks_at(self, density: float) -> dict[str, Tensor]:
        """Return the support of every split tensor when the path crossed a density."""
        shapes = {n: W.shape for n, W in _parameters(self.optimizer).items()}
        support = self.model_at(density)["support"]
        return {name: unpack_bits(bits, shapes[name]) for name, bits in support.items()}

    def write_(self, density: float) -> None:
        """Give the optimizer's tensors, and the model's buffers, the values that they had then."""
        kept, params, buffers = self.model_at(density), _parameters(self.optimizer), self._buffers()
        for name, mask in self.masks_at(density).items():
            W = params[name].detach()
            W.zero_()
            W[mask.to(W.device)] = kept["values"][name].to(W.device)
        for name, value in kept["rest"].items():
            params[name].detach().copy_(value)
        for name, value in kept["buffers"].items():
            buffers[name].copy_(value)

    def tensors(self) -> list[Tensor]:
        """Return what :meth:`write_` writes to."""
        return [*_parameters(self.optimizer).values(), *self._buffers().values()]

    def state_dict(self) -> dict:
        """What was kept, as tensors and plain numbers."""
        kept = {density: dict(model) for density, model in self.kept.items()}
        return {
            "densities": list(self.densities),
            "first": self.first,
            "farthest": self.farthest,
            "kept": kept,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on keeping; it must be for the same densities, and the same buffers."""
        if state["densities"] != self.densities:
            raise ValueError(
                f"the densities to keep must be {self.densities} as here, got {state['densities']}"
            )
        own = list(self._buffers())
        for model in state["kept"].values():
            if list(model["buffers"]) != own:
                raise ValueError(
                    f"the buffers to keep must be {own} as of the model here, got "
                    f"{list(model['buffers'])}"
                )
        self.first, self.farthest = state["first"], state["farthest"]
        self.kept = {density: dict(model) for density, model in state["kept"].items()}


def _parameters(optimizer):
    return dict(pair for pairs in named(optimizer.param_groups) for pair in pairs)
