"""Pictures in memory: batches and augmentation on the device that holds them."""

from collections.abc import Iterator

import torch


class PicturesInMemory:
    """One part of a data set that fits into memory: no worker processes, no copies for a step.

    Parameters
    ----------
    x : tensor (n, channels, height, width)
        The pictures as the net sees them.
    y : int64 tensor (n,)
        Their classes, on the same device.
    shift : int >= 0
        In training every picture is moved by up to this many pixels along each axis, all places
        equally likely. With 4 on pictures of 32x32 this is the usual "pad by 4, crop at random".
    flip : bool
        In training every other picture, by chance, is mirrored left to right.
    alternate : bool
        With ``flip``: not by chance. Half of the pictures are mirrored in the epochs 0, 2, ..., the
        others in 1, 3, ...: in two epochs each is seen both ways.
    black : sequence of one number for each channel
        What comes in at the edge of a moved picture; default 0.
    """

    skipped = frozenset()  # files that could not be read: none, see ``PicturesOnDisk``

    def __init__(self, x, y, shift=0, flip=False, alternate=False, black=None):
        self.x, self.y, self.shift, self.flip, self.alternate = x, y, shift, flip, alternate
        black = [0.0] * x.shape[1] if black is None else black
        self.black = torch.as_tensor(black, dtype=x.dtype, device=x.device)[:, None, None]

    def __len__(self) -> int:
        return len(self.y)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        *,
        epoch: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass over the set, as pairs of pictures and classes.

        Parameters
        ----------
        batch_size : int >= 1
            Pictures of a global batch; the last one may be smaller.
        generator : torch.Generator on the CPU, optional
            None: every picture in its order and as it is, for evaluation. Otherwise shuffled and
            augmented: all that is random is drawn when the first batch is asked for and depends on
            the generator's state alone, so this state and the number of the next batch say exactly
            what comes.
        epoch : int >= 0
            Number of this pass, for ``alternate``.
        start : int >= 0
            Number of global batches to leave out at the beginning.
        rank, world : int
            Of this process and of all: rows ``rank::world`` of every global batch, which may be
            none of a small last one. All processes need generators of one state.
        """
        n, device = len(self), self.x.device
        if generator is None:
            for k in range(start * batch_size, n, batch_size):
                rows = slice(k + rank, min(k + batch_size, n), world)
                yield self.x[rows], self.y[rows]
            return
        order = torch.randperm(n, generator=generator).to(device)
        if self.shift:
            places = torch.randint(2 * self.shift + 1, (n, 2), generator=generator).to(device)
        if self.flip:
            mirrored = self._mirrored(order, epoch, generator).to(device)[:, None, None, None]
        for k in range(start * batch_size, n, batch_size):
            rows = slice(k + rank, min(k + batch_size, n), world)
            x = self.x[order[rows]]
            if self.shift:
                x = _moved(x, places[rows], self.shift, self.black)
            if self.flip:
                x = torch.where(mirrored[rows], x.flip(3), x)
            yield x, self.y[order[rows]]

    def _mirrored(self, order, epoch, generator):
        """Which of the pictures in this order are mirrored."""
        if not self.alternate:
            return torch.randint(2, (len(order),), generator=generator).bool()
        sides = torch.randint(2, (len(order),), generator=torch.Generator().manual_seed(0))
        return (sides[order.cpu()] + epoch) % 2 == 1


def _moved(x, places, shift, black):
    """Each picture of ``x`` moved by ``shift - places`` (rows, columns): one gather of windows."""
    n, channels, height, width = x.shape
    padded = black.expand(n, channels, height + 2 * shift, width + 2 * shift).clone()
    padded[:, :, shift : shift + height, shift : shift + width] = x
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n, device=x.device), :, places[:, 0], places[:, 1]]
