"""Pictures that stay files, decoded batch by batch, in worker processes if asked."""

import io
import os
import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ...optional import brought_by

_PICTURES = "train", "a data set of picture files"


class PicturesOnDisk:
    """One part of a data set of picture files.

    For training, a part of random area (8 % to 100 %) and shape (3:4 to 4:3) of each picture is
    resized to ``size`` x ``size``; for evaluation, the shorter side is resized to size * 256 / 224
    and the middle cut out: torchvision's transforms with their defaults.

    Parameters
    ----------
    root : folder
    names : array of bytes (n,)
        The files, relative to the root.
    y : array of whole numbers (n,)
        Their classes.
    size : int >= 1
        Height and width of the pictures as the net sees them.
    statistics : pair of sequences of three numbers
        Mean to subtract from the pixel values in [0, 1], and deviation to divide by.
    crop : bool
        Whether pictures are cropped at random when batches are drawn from a generator.
    flip : bool
        Whether these are also mirrored left to right by chance.
    workers : int >= 0
        Processes that read and decode; 0: this one does. The batches are the same.
    corrupt : "refuse" or "skip"
        A file that cannot be decoded stops the run, or is left out: the next file in order that
        can be decoded takes its place, with its own class, so that batches keep their sizes.
    device, dtype
        Of the batches.

    Attributes
    ----------
    skipped : set of str
        The files that were left out so far, among those that this process asked for.
    """

    def __init__(
        self, root, names, y, *, size, statistics, crop=False, flip=False, workers=0,
        corrupt="refuse", device="cpu", dtype=torch.float32,
    ):  # fmt: skip
        if corrupt not in ("refuse", "skip"):
            raise ValueError(f'corrupt must be "refuse" or "skip", got {corrupt!r}')
        self.y = torch.tensor(y, dtype=torch.int64, device=device)
        self.device, self.dtype, self.workers, self.corrupt = self.y.device, dtype, workers, corrupt
        self.mean, self.std = (
            torch.tensor(s, dtype=dtype, device=device)[:, None, None] for s in statistics
        )
        self.skipped = set()
        self._plain = _Decoder(root, names, y, size, _middle(size))
        self._random = _Decoder(root, names, y, size, _random_crop(size, flip)) if crop else None

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
        """One pass over the set, with the arguments and promises of
        :meth:`dslbi_torch.training.data.in_memory.PicturesInMemory.batches`.

        The order and one seed for each picture are drawn from the generator, so the number of
        workers makes no difference.

        Raises
        ------
        ValueError
            A file cannot be decoded and is not to be skipped.
        OSError
            A file cannot be read at all.
        """
        n = len(self)
        decoder, order, seeds = self._plain, torch.arange(n), torch.zeros(n, dtype=torch.int64)
        if generator is not None:
            decoder, order = self._random or self._plain, torch.randperm(n, generator=generator)
            seeds = torch.randint(2**63 - 1, (n,), generator=generator)
        keys = torch.stack([order, seeds], dim=1)
        loader = DataLoader(
            decoder,
            batch_sampler=(
                keys[k : min(k + batch_size, n)][rank::world].tolist()
                for k in range(start * batch_size, n, batch_size)
            ),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_outlive_signals,
            generator=torch.Generator(),  # else the global one loses a number
        )
        for pixels, y, broken, unreadable in loader:
            self._refuse(broken, unreadable)
            x = pixels.to(self.device, non_blocking=True).to(self.dtype)
            y = y.to(self.device, non_blocking=True)
            yield x.div_(255).sub_(self.mean).div_(self.std), y

    def _refuse(self, broken, unreadable):
        """Raise for files that could not be read, and for broken ones unless they are skipped."""
        for path, reason in unreadable.items():
            raise OSError(f"{path} cannot be read ({reason})")
        if broken and self.corrupt == "refuse":
            path, reason = next(iter(broken.items()))
            raise ValueError(
                f"{path} cannot be decoded ({reason}); mend or delete it, or pass --corrupt skip"
            )
        if len(self.skipped | broken.keys()) == len(self):
            raise ValueError(f"{next(iter(broken))} and all other pictures cannot be decoded")
        self.skipped |= broken.keys()


class _Decoder(Dataset):
    """Batches of unsigned bytes, by (index, seed): what workers hold of ``PicturesOnDisk``.

    The names are one array: a list of a million strings would be copied into every worker, page by
    page, as their reference counts change.
    """

    def __init__(self, root, names, y, size, transform):
        self.root, self.names, self.y = Path(root), names, np.asarray(y)
        self.size, self.transform = size, transform

    def __getitems__(self, keys):
        pixels = torch.empty(len(keys), 3, self.size, self.size, dtype=torch.uint8)
        y = torch.empty(len(keys), dtype=torch.int64)
        broken, unreadable = {}, {}
        for row, (index, seed) in enumerate(keys):
            for k in range(index, index + len(self.names)):
                k %= len(self.names)
                path = self.root / os.fsdecode(self.names[k])
                try:
                    content = path.read_bytes()
                except OSError as error:  # not the fault of the picture
                    unreadable[str(path)] = error.strerror
                    return pixels, y, broken, unreadable
                try:
                    picture = _decoded(content)
                except _Undecodable as error:
                    broken[str(path)] = str(error)
                    continue
                pixels[row], y[row] = self._transformed(picture, seed), int(self.y[k])
                break
        return pixels, y, broken, unreadable

    def _transformed(self, picture, seed):
        """The transforms draw from the CPU's global generator, which is left as it was."""
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs as well
        try:
            return self.transform(picture)
        finally:
            torch.set_rng_state(state)


class _Undecodable(Exception):
    """A file that is no picture; the message is the reason."""


def _decoded(content):
    """The picture of a file's bytes."""
    with brought_by(*_PICTURES):
        from PIL import Image
    # What Pillow raises for damaged files: SyntaxError is its own for PNG.
    damaged = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except (*damaged, Image.DecompressionBombError) as error:
        reason = str(error).split("<")[0].strip() or type(error).__name__
        raise _Undecodable(reason) from error


def _as_it_is(batch):
    return batch


def _outlive_signals(_worker):
    """Ctrl-C and SIGTERM often go to all processes of a job: a worker ends when the main one does,
    or says so, because that one needs its workers to finish the step before its checkpoint."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_by, args=(os.getppid(),), daemon=True).start()


def _end_by(parent):
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _random_crop(size, flip):
    with brought_by(*_PICTURES):  # here: it takes seconds that smaller sets need not pay
        from torchvision.transforms import v2

    mirror = [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([v2.RandomResizedCrop(size), *mirror, v2.PILToTensor()])


def _middle(size):
    with brought_by(*_PICTURES):
        from torchvision.transforms import v2

    return v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), v2.PILToTensor()])
