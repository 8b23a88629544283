"""Pictures in files: which there are, what a batch of them holds, and what damaged ones do."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import vectors
from PIL import Image

from dslbi_torch.__main__ import main
from dslbi_torch.training.config import Config
from dslbi_torch.training.data import class_folders, datasets
from dslbi_torch.training.run.evaluate import evaluate
from dslbi_torch.training.run.set_up import set_up
from dslbi_torch.training.run.train import train

CLASSES = ("n00000001", "n00000002", "n00000003")
SIZE = 14  # for evaluation the shorter side is resized to 16 first


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The index of the class folders goes into a home of our own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def write_pictures(folder, count, seed=0):
    """``count`` pictures of 16x20 pixels for each class, in several formats."""
    for k, label in enumerate(CLASSES):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            noise = 255 * vectors.rng(100 * k + i + seed).random((16, 20, 3))
            suffix = ("png", "PNG", "bmp")[i % 3]
            Image.fromarray(noise.astype(np.uint8)).save(folder / label / f"{i}.{suffix}")


@pytest.fixture
def root(tmp_path):
    """Six training and two test pictures of each of three classes, as ImageNet is laid out."""
    write_pictures(tmp_path / "root" / "imagenet" / "train", 6)
    write_pictures(tmp_path / "root" / "imagenet" / "val", 2, seed=50)
    (tmp_path / "root" / "imagenet" / "train" / CLASSES[0] / "notes.txt").write_text("no picture")
    return tmp_path / "root"


def load(root, **options):
    return datasets.load("imagenet", root, image_size=SIZE, **options)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_same_batches(a, b):
    for (x, y), (other, z) in zip(a, b, strict=True):
        torch.testing.assert_close(x, other, rtol=0, atol=0)
        torch.testing.assert_close(y, z, rtol=0, atol=0)


def whole(part, **options):
    return torch.cat([x for x, _ in part.batches(4, **options)])


# Where the files are


def test_layouts(root, tmp_path):
    data = load(root)
    assert data.classes == CLASSES and data.shape == (3, SIZE, SIZE)
    assert (len(data.train), len(data.test)) == (18, 6)
    assert data.train.y.tolist() == 6 * [0] + 6 * [1] + 6 * [2]
    direct = load(root / "imagenet")
    torch.testing.assert_close(whole(direct.test), whole(data.test), rtol=0, atol=0)
    single = load(root / "imagenet" / "train")  # training and test alike
    assert (len(single.train), len(single.test)) == (18, 18)
    torch.testing.assert_close(whole(single.test), whole(data.train), rtol=0, atol=0)
    (tmp_path / "other").mkdir()
    shutil.move(root / "imagenet" / "val", tmp_path / "other" / "imagenet")
    assert len(load(tmp_path / "other").test) == 6


def test_a_folder_moved_with_its_times_is_not_taken_for_the_old_one(root):
    class_folders.index(root / "imagenet" / "train")
    moved = shutil.move(root / "imagenet" / "train", root / "train")
    shutil.move(root / "imagenet" / "val", root / "imagenet" / "train")
    first = class_folders.index(root / "imagenet" / "train")
    assert [len(files) for files in first.values()] == [2, 2, 2]
    assert [len(files) for files in class_folders.index(moved).values()] == [6, 6, 6]


def test_parts_of_the_training_set(root):
    data = load(root, holdout=5, train_size=9)
    assert (len(data.train), len(data.test)) == (9, 5)
    assert max(data.train.y.bincount()) - min(data.train.y.bincount()) <= 1
    everything = {tuple(x.flatten().tolist()) for x in whole(load(root).train)}
    kept, held = ({tuple(x.flatten().tolist()) for x in whole(p)} for p in (data.train, data.test))
    assert len(kept | held) == 14 and kept | held < everything


def bad_folder(change):
    """A test case: the name of what is done to the folder of data, and that."""
    return pytest.param(change, id=change.__name__)


def no_val(folder):
    shutil.rmtree(folder / "val")
    return FileNotFoundError, "imagenet must hold train and val, but has no val"


def pictures_without_classes(folder):
    shutil.rmtree(folder / "val")
    (folder / "val").mkdir()
    for i in range(3):
        (folder / "val" / f"{i}.JPEG").touch()
    return ValueError, "val must hold a folder of pictures for each class, got 3 files only"


def empty_class(folder):
    (folder / "train" / "n00000004").mkdir()
    return ValueError, r"train must hold pictures .*, got 1 without \(n00000004\)"


def class_of_other_files(folder):
    for file in (folder / "val" / CLASSES[1]).iterdir():
        file.rename(file.with_suffix(".mat"))
    return ValueError, r"val must hold pictures .*, got 1 without \(n00000002\)"


def class_missing_in_val(folder):
    shutil.rmtree(folder / "val" / CLASSES[2])
    return ValueError, r"the same classes, got 1 \(n00000003\) only in train, none only in val"


def class_missing_in_train(folder):
    shutil.rmtree(folder / "train" / CLASSES[0])
    return ValueError, r"the same classes, got none only in train, 1 \(n00000001\) only in val"


@pytest.mark.parametrize(
    "change",
    [
        bad_folder(no_val),
        bad_folder(pictures_without_classes),
        bad_folder(empty_class),
        bad_folder(class_of_other_files),
        bad_folder(class_missing_in_val),
        bad_folder(class_missing_in_train),
    ],
)
def test_bad_folders(root, change, capsys):
    error, message = change(root / "imagenet")
    with pytest.raises(error, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    words = ["train", "digits", "--dataset=imagenet", "--model=resnet20", f"--data={root}"]
    assert main([*words, f"--out={root / 'run'}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (root / "run").exists()


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("imagenet", {"n_classes": 1000}, "imagenet must have n_classes = 1000 classes, got 3"),
        ("imagenet", {"shift": 2}, "shift must be 0 for imagenet, got 2"),
        ("imagenet", {"flip": True, "alternate": True}, "alternate must be no for imagenet, got y"),
        ("imagenet", {"train_size": 19}, "at most the 18 training pictures of imagenet, got 19"),
        ("imagenet", {"holdout": 18}, "below the 18 training pictures of imagenet, got 18"),
        ("imagenet", {"corrupt": "mend"}, 'corrupt must be "refuse" or "skip", got \'mend\''),
        ("imagenette", {}, "imagenette must have n_classes = 10 classes, got 3"),
    ],
)
def test_impossible_options(root, name, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name, root / "imagenet", **options)


def test_too_few_files_for_the_batch(root, capsys):
    words = ["train", "digits", "--dataset=imagenet", "--model=resnet20", f"--data={root}"]
    assert main([*words, f"--out={root / 'run'}", "--batch-size=19"]) == 2
    assert "at most the 18 training pictures of imagenet, got 19" in capsys.readouterr().err
    assert not (root / "run").exists()


def test_imagenet_is_absent(tmp_path):
    with pytest.raises(FileNotFoundError, match="not found in .*imagenet or .* image-net.org"):
        load(tmp_path)
    (tmp_path / "holiday").mkdir()  # other folders make no data set
    with pytest.raises(FileNotFoundError, match="not found in .*imagenet or .* image-net.org"):
        load(tmp_path)


def test_imagenette_is_absent_and_no_network(tmp_path, monkeypatch):
    nowhere = {"320px": ("http://127.0.0.1:9/imagenette2-320.tgz", "")}
    monkeypatch.setattr("torchvision.datasets.Imagenette._ARCHIVES", nowhere)
    with pytest.raises(
        FileNotFoundError,
        match=r"download failed .*Imagenette\('ROOT', split='train', size='320px', download=True",
    ):
        datasets.load("imagenette", tmp_path)


# The index


def test_index_is_read_from_the_cache_until_a_folder_changes(root, home, monkeypatch):
    folder = root / "imagenet" / "train"
    first = class_folders.index(folder)
    assert list(first) == list(CLASSES)
    assert first[CLASSES[0]] == ["0.png", "1.PNG", "2.bmp", "3.png", "4.PNG", "5.bmp"]
    (cache,) = (home / ".cache" / "dslbi" / "index").glob("*")

    read, scanned = class_folders._files, []
    monkeypatch.setattr(class_folders, "_files", lambda f: scanned.append(f.name) or read(f))
    assert class_folders.index(folder) == first and not scanned

    def changed():
        """The index as it is now: read from the folders once, from the cache again."""
        scanned.clear()
        now = class_folders.index(folder)
        assert scanned and class_folders.index(folder) == now and len(scanned) == len(now)
        return now

    (folder / CLASSES[1] / "9.png").touch()
    assert "9.png" in changed()[CLASSES[1]]
    (folder / CLASSES[1] / "9.png").rename(folder / CLASSES[1] / "8.png")
    assert "8.png" in changed()[CLASSES[1]]
    (folder / CLASSES[1] / "8.png").unlink()
    assert changed() == first
    shutil.copytree(folder / CLASSES[0], folder / "n00000000")
    assert list(changed()) == ["n00000000", *CLASSES]
    shutil.rmtree(folder / "n00000000")
    assert changed() == first
    for text in ("", "[]", "{}", '{"folder": 3}', json.dumps({"folder": str(folder), "times": 0})):
        cache.write_text(text)
        assert changed() == first


def test_index_without_a_home_to_write(root, home):
    (home / ".cache").write_text("a file where a folder should be")
    assert list(class_folders.index(root / "imagenet" / "train")) == list(CLASSES)


# What a batch holds


def test_evaluation_takes_the_middle_of_every_picture_in_order(root):
    """The shorter side has 16 pixels already, so nothing is interpolated."""
    data = load(root, flip=True)
    expected, files = [], class_folders.index(root / "imagenet" / "val")
    for label, names in files.items():
        for name in names:
            with Image.open(root / "imagenet" / "val" / label / name) as picture:
                pixels = np.asarray(picture)[1:15, 3:17] / 255
            expected.append((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    expected = torch.tensor(np.stack(expected)).permute(0, 3, 1, 2)
    torch.testing.assert_close(whole(data.test), expected.float(), rtol=1e-5, atol=1e-6)
    doubles = load(root, dtype=torch.float64)
    torch.testing.assert_close(whole(doubles.test), expected)
    plain = whole(load(root, normalize=False).test)
    assert 0 <= plain.min() < 0.01 and 0.99 < plain.max() <= 1


def test_training_equals_a_loop_over_the_files(root):
    """Order and seeds from the generator, and torchvision's transforms under each seed."""
    from torchvision.transforms import v2

    data = load(root, flip=True, normalize=False, dtype=torch.float64)
    g = generator(3)
    order = torch.randperm(18, generator=g).tolist()
    seeds = torch.randint(2**63 - 1, (18,), generator=g).tolist()
    transform = v2.Compose(
        [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    )
    files = [
        root / "imagenet" / "train" / label / name
        for label, names in class_folders.index(root / "imagenet" / "train").items()
        for name in names
    ]
    expected = []
    for k, seed in zip(order, seeds, strict=True):
        torch.manual_seed(seed)
        with Image.open(files[k]) as picture:
            expected.append(transform(picture.convert("RGB")) / torch.tensor(255.0).double())
    batches = list(data.train.batches(5, generator(3)))
    assert [len(y) for _, y in batches] == [5, 5, 5, 3]
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), torch.stack(expected))
    assert torch.cat([y for _, y in batches]).tolist() == [k // 6 for k in order]


def test_pictures_are_mirrored_only_if_asked(root):
    """A picture that is bright on the left stays so, whatever is cropped, unless it is mirrored."""
    for file in (root / "imagenet" / "train").glob("*/*"):
        if file.suffix != ".txt":
            slope = np.linspace(255, 0, 64)[None, :, None] * np.ones((64, 1, 3))
            Image.fromarray(slope.astype(np.uint8)).save(file)
    for flip in (False, True):
        x = whole(load(root, flip=flip).train, generator=generator())
        left_is_brighter = x[..., :3].mean((1, 2, 3)) > x[..., -3:].mean((1, 2, 3))
        assert left_is_brighter.all().item() is not flip and left_is_brighter.any()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.parametrize("seed", [None, 4])
def test_workers_start_and_processes_change_no_picture(root, seed):
    data, two = load(root, flip=True), load(root, flip=True, workers=2)

    def batches(part=data.train, **options):
        return list(part.batches(5, None if seed is None else generator(seed), **options))

    state = torch.get_rng_state()
    one = batches()
    assert_same_batches(batches(two.train), one)
    assert_same_batches(batches(two.train, start=2, rank=1, world=2), [
        (x[1::2], y[1::2]) for x, y in one[2:]
    ])  # fmt: skip
    for start in (1, 3, 4, 7):
        assert_same_batches(batches(start=start), one[start:])
    for rank in range(4):  # the last batch has three pictures: none for the last process
        mine = batches(rank=rank, world=4)
        assert_same_batches(mine, [(x[rank::4], y[rank::4]) for x, y in one])
    assert mine[-1][0].shape == (0, 3, SIZE, SIZE)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


def test_the_state_before_an_epoch_says_what_comes(root):
    part, g = load(root).train, generator(7)
    batches = part.batches(5, g)
    torch.testing.assert_close(g.get_state(), generator(7).get_state())
    next(batches)
    after = g.get_state()
    list(batches)
    torch.testing.assert_close(g.get_state(), after)
    second = list(part.batches(5, g))
    h = generator()
    h.set_state(after)
    assert_same_batches(part.batches(5, h), second)
    assert not torch.equal(second[0][0], next(part.batches(5, generator(7)))[0])


def test_a_net_learns_from_files(root, tmp_path):
    config = Config(
        dataset="imagenet", model="resnet20", data=str(root), image_size=16, epochs=2,
        batch_size=6, lr=0.01, flip=True, threads=1, out=str(tmp_path / "run"),
    )  # fmt: skip
    run = train(config, progress=False)
    assert run.model(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_an_evaluation_of_three_models_decodes_every_picture_once(root, tmp_path, monkeypatch):
    config = Config(
        dataset="imagenet", model="resnet20", data=str(root), image_size=16, batch_size=6,
        threads=1, out=str(tmp_path / "run"),
    )  # fmt: skip
    run, opened = set_up(config), []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    assert list(evaluate(run)) == ["dense", "sparse", "gamma"]
    assert len(opened) == len(run.data.test)


# Damaged files


def damage(root):
    """Damage four of the eighteen training pictures, each in its way; returns their indices."""
    folder = root / "imagenet" / "train"
    (folder / CLASSES[0] / "1.PNG").write_bytes(b"")
    (folder / CLASSES[0] / "2.bmp").write_bytes(b"this is no picture")
    png = folder / CLASSES[1] / "3.png"
    png.write_bytes(png.read_bytes()[:-200])
    picture = Image.open(folder / CLASSES[2] / "5.bmp")
    picture.resize((200, 200)).save(folder / CLASSES[2] / "5.jpg", quality=95)
    jpeg = (folder / CLASSES[2] / "5.bmp").with_suffix(".jpg")
    (folder / CLASSES[2] / "5.bmp").unlink()
    jpeg.write_bytes(jpeg.read_bytes()[:5000])
    return [1, 2, 9, 17]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_refused_with_its_path(root, workers):
    damage(root)
    with pytest.raises(ValueError, match=r"n00000001/1.PNG cannot be decoded \(cannot id") as error:
        list(load(root, workers=workers).train.batches(4))
    assert "\n" not in str(error.value) and "--corrupt skip" in str(error.value)
    with pytest.raises(ValueError, match=r"n00000003/5.jpg cannot be decoded \(.*truncated"):
        list(load(root, workers=workers).train.batches(4, start=4))
    with pytest.raises(ValueError, match=r"n00000002/3.png cannot be decoded"):
        list(load(root, workers=workers).train.batches(1, start=9))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_replaced_by_the_next_good_one(root, workers):
    before = load(root).train
    x, y = whole(before), before.y
    damaged = damage(root)
    part = load(root, workers=workers, corrupt="skip").train
    batches = list(part.batches(4))
    assert [len(y) for _, y in batches] == [4, 4, 4, 4, 2]
    instead = list(range(18))
    for k, good in zip(damaged, (3, 3, 10, 0), strict=True):
        instead[k] = good
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), x[instead], rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([y for _, y in batches]), y[instead], rtol=0, atol=0)
    names = {path.rsplit("train/")[1] for path in part.skipped}
    assert names == {f"{CLASSES[0]}/1.PNG", f"{CLASSES[0]}/2.bmp", f"{CLASSES[1]}/3.png",
                     f"{CLASSES[2]}/5.jpg"}  # fmt: skip
    # Drawn at random, the replacement is cropped as the damaged one would have been.
    again = load(root, corrupt="skip").train
    assert_same_batches(again.batches(4, generator(1)), list(part.batches(4, generator(1))))
    assert again.skipped == part.skipped


def test_a_run_counts_what_it_skips(root, tmp_path, capsys):
    words = ["train", "digits", "--dataset=imagenet", "--model=resnet20", f"--data={root}"]
    words += [f"--out={tmp_path / 'run'}", "--image-size=16", "--batch-size=8", "--epochs=1"]
    damage(root)
    assert main(words) == 2
    assert "cannot be decoded" in capsys.readouterr().err
    assert main([*words, "--corrupt=skip"]) == 0
    rows = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["skipped"] for row in rows] == [0, 4]
    assert "damaged files skipped: 4" in "".join(capsys.readouterr())


def test_nothing_but_damaged_pictures(root):
    for file in (root / "imagenet" / "val").glob("*/*"):
        file.write_bytes(b"this is no picture")
    part = load(root, corrupt="skip").test
    with pytest.raises(ValueError, match="0.png and all other pictures cannot be decoded"):
        list(part.batches(2))


@pytest.mark.parametrize("corrupt", ["refuse", "skip"])
def test_a_file_that_cannot_be_read_is_not_a_damaged_picture(root, corrupt):
    part = load(root, corrupt=corrupt).train
    (root / "imagenet" / "train" / CLASSES[1] / "0.png").unlink()
    with pytest.raises(OSError, match="n00000002/0.png cannot be read .No such file") as error:
        list(part.batches(6))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_finish_their_work_when_all_processes_are_signalled(root):
    part = load(root, workers=2).train
    expected = list(load(root).train.batches(1, generator()))
    seen = []
    for batch in part.batches(1, generator()):
        seen.append(batch)
        if len(seen) == 2:
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            pids = [str(worker.pid) for worker in workers]
            subprocess.run(["kill", "-TERM", *pids], check=True)  # not from their parent
            subprocess.run(["kill", "-INT", *pids], check=True)
    assert_same_batches(seen, expected)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_end_with_the_process_that_asked_for_them(root, tmp_path):
    """Also when it leaves in the middle of an epoch, its batches still at hand."""
    script = f"""
import multiprocessing, sys
from dslbi_torch.training.data import datasets as data
part = data.load("imagenet", {str(root)!r}, image_size=14, workers=2).train
batches = part.batches(2)
next(batches)
print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
sys.exit(3)
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (3, "")
    workers = done.stdout.split()
    assert len(workers) == 2
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


# The real ones


@pytest.mark.data
def test_real_imagenette(data_root):
    data = datasets.load("imagenette", data_root, flip=True, image_size=64)
    assert len(data.classes) == 10 and data.shape == (3, 64, 64)
    assert len(set(data.train.y.bincount().tolist())) == 1  # as many of each
    x, y = next(data.train.batches(32, generator()))
    assert x.shape == (32, 3, 64, 64) and len(set(y.tolist())) > 5
    assert not data.train.skipped


@pytest.mark.data
def test_customary_statistics_on_one_picture_of_each_class_of_imagenet(data_root):
    """1,000 pictures tell a mean of deviation about 0.15 to some 0.005; the middle of a picture
    is a little less varied than the whole."""
    sample = data_root / "imagenet-sample"
    data = datasets.load("imagenet", sample, image_size=112, n_classes=1000, normalize=False)
    assert len(data.train) == len(data.test) == 1000
    assert data.test.y.tolist() == list(range(1000))
    x = torch.cat([x for x, _ in data.test.batches(100)])
    mean, std = datasets.DATASETS["imagenet"][1:3]
    assert x.mean((0, 2, 3)).tolist() == pytest.approx(mean, abs=0.01)
    assert x.std((2, 3)).mean(0).tolist() == pytest.approx(std, abs=0.01)
