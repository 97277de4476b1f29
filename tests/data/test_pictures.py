"""Images as data: what is decoded and how, what is named and left out, what is refused."""

import gzip
import io
import random
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt.data import pictures
from fedbbpt.data._pixels import Unreadable, decode
from fedbbpt.data.load import load
from fedbbpt.data.pictures import load_folder, load_listed, picture
from fedbbpt.errors import DataError, MissingExtra
from fedbbpt.types import Picture

Image = pytest.importorskip("PIL.Image")
from PIL import ImageOps  # noqa: E402 - after the skip

RUST = (200, 100, 50)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(colour=RUST, size=(8, 6), mode="RGB"):
    return Image.new(mode, size, colour)


def scene(width=40, height=24):
    """Smooth, with no symmetry."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(5 * x + 2 * y), np.cos(4 * y), x * y]
    return Image.fromarray(np.stack([127 + 120 * w for w in waves], -1).astype(np.uint8))


def files(folder, contents):
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def packed(path, contents, mode="w"):
    with tarfile.open(path, mode) as whole:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            whole.addfile(member, io.BytesIO(data))
    return path


def seen(table):
    """All of a table that can be compared."""
    assert all(isinstance(one, Picture) for one in table.inputs)
    return [one.key for one in table.inputs], table.labels, table.sites, table.skipped


def refused(path, *parts, call=load_folder, **options):
    with pytest.raises(DataError) as caught:
        call(path, **options)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message, message
    assert "\n" not in message and ". " not in message and message[-1] != ".", message


# --- one image -----------------------------------------------------------------------------------

CMYK = (55, 155, 205, 0)
HALF = Image.new("RGBA", (8, 6), (*RUST, 128))
DEEP = Image.fromarray(np.full((6, 8), 100 * 257, np.uint16))
LOOKS = {
    "png": (encoded(plain()), RUST, 0),
    "jpeg": (encoded(plain(), "JPEG"), RUST, 3),
    "gif": (encoded(plain(), "GIF"), RUST, 0),
    "bmp": (encoded(plain(), "BMP"), RUST, 0),
    "webp": (encoded(plain(), "WEBP", lossless=True), RUST, 0),
    "palette": (encoded(plain().quantize(4)), RUST, 0),
    "grey": (encoded(plain(77, mode="L")), (77, 77, 77), 0),
    "black and white": (encoded(plain(1, mode="1")), (255, 255, 255), 0),
    "grey jpeg": (encoded(plain(77, mode="L"), "JPEG"), (77, 77, 77), 2),
    "16-bit grey": (encoded(DEEP), (100, 100, 100), 0),
    "16-bit grey tiff": (encoded(DEEP, "TIFF"), (100, 100, 100), 0),
    "float tiff": (encoded(plain(0.2, mode="F"), "TIFF"), (51, 51, 51), 0),
    "cmyk jpeg": (encoded(plain(CMYK, mode="CMYK"), "JPEG"), RUST, 4),
    "half transparent": (encoded(HALF), (227, 177, 152), 1),
    "grey, transparent": (encoded(plain((0, 0), mode="LA")), (255, 255, 255), 0),
    "transparent index": (encoded(plain().quantize(4), transparency=0), (255, 255, 255), 0),
    "transparent colour": (encoded(plain(), transparency=RUST), (255, 255, 255), 0),
    "animated": (
        encoded(plain(), "GIF", save_all=True, append_images=[plain("blue")]),
        RUST,
        0,
    ),
    "1 x 1": (encoded(plain(size=(1, 1))), RUST, 0),
}


@pytest.mark.parametrize("case", LOOKS)
def test_every_kind_of_image_becomes_red_green_and_blue(case):
    data, colour, near = LOOKS[case]
    pixels = decode(data, 512)
    assert pixels.shape == ((1, 1, 3) if case == "1 x 1" else (6, 8, 3))
    assert pixels.dtype == np.uint8 and not pixels.flags.writeable
    assert np.abs(pixels.astype(int) - colour).max() <= near, pixels[0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_camera_that_was_held_askew(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decode(data, 0), upright)
    assert decode(data, 0).shape == ((40, 24, 3) if orientation > 4 else (24, 40, 3))


def test_broken_metadata_beside_whole_pixels():
    data = encoded(scene(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert np.array_equal(decode(data, 0), np.asarray(scene()))


def test_large_images_are_shrunk_when_they_are_read():
    large = scene(1600, 1000)
    for kind, near in (("PNG", 0), ("JPEG", 6)):  # of JPEG less than all is decoded
        data = encoded(large, kind)
        assert decode(data, 0).shape == (1000, 1600, 3)
        shrunk = decode(data, 200)
        exact = np.asarray(large.resize((320, 200), Image.Resampling.BICUBIC))
        assert shrunk.shape == (200, 320, 3)
        assert np.abs(shrunk.astype(int) - exact).max() <= near
        assert decode(data, 1000).shape == decode(data, 2000).shape == (1000, 1600, 3)
    assert decode(encoded(scene(3, 900)), 2).shape == (600, 2, 3)


JPEG, PNG = encoded(scene(200, 100), "JPEG"), encoded(scene())
BROKEN = {
    "empty": (b"", "empty file"),
    "text": (b"a cat, in words", "not an image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "half a png": (PNG[: len(PNG) // 2], "truncated"),
    "the begin of a jpeg": (JPEG[:20], "damaged"),
    "scrambled png": (PNG[:60] + bytes(len(PNG) - 60), "damaged"),
    "deeper than 16 bits": (
        encoded(Image.fromarray(np.full((6, 8), 70000, np.int32)), "TIFF"),
        "more than 16 bits",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_whole_image(case):
    data, reason = BROKEN[case]
    with pytest.raises(Unreadable, match=reason) as caught:
        decode(data, 512)
    assert ": " not in str(caught.value)


@pytest.mark.parametrize("limit", [150, 400])  # Pillow warns of the second and stops at the first
def test_a_picture_as_large_as_a_bomb(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(Unreadable, match=f"more than {limit} pixels"):
        decode(encoded(scene(30, 20)), 512)


SAMPLES = [encoded(scene(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]


@given(st.sampled_from(SAMPLES), st.randoms(use_true_random=False), st.integers(0, 12))
@settings(max_examples=150)
def test_damage_is_an_image_or_a_reason(data, chance, flips):
    data = bytearray(data)
    for _ in range(flips):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if not flips:
        data = data[: chance.randrange(len(data))]
    try:
        pixels = decode(bytes(data), 16)
    except Unreadable as reason:
        assert str(reason) and ": " not in str(reason) and "\n" not in str(reason)
    else:
        assert pixels.shape[2] == 3 and min(pixels.shape[:2]) <= 16


def test_without_pillow(monkeypatch, tmp_path):
    folder = files(tmp_path, {"a/1.png": PNG})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fedbbpt\[vision\]'"):
        load_folder(folder)
    assert picture(np.zeros((3, 2, 3), np.uint8)).pixels.shape == (3, 2, 3)


# --- an image in any form ------------------------------------------------------------------------


def test_one_picture_in_many_forms(tmp_path):
    path = files(tmp_path, {"a.png": PNG}) / "a.png"
    array = np.asarray(scene())
    forms = [array, array / 255, (array / 255).astype(np.float32), scene(), path]
    forms += [np.dstack([array, np.full(array.shape[:2], 255, np.uint8)]), scene().convert("RGBA")]
    assert {picture(form).key for form in forms} == {Picture(array).key}
    assert picture(path).name == str(path) and picture(array, "x").name == "x"
    same = picture(array)
    assert picture(same) is same
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for form in (grey, grey[..., None], Image.fromarray(grey)):
        assert np.array_equal(picture(form).pixels, np.stack([grey] * 3, -1))
    assert np.array_equal(picture(np.zeros((2, 3, 4))).pixels, np.full((2, 3, 3), 255))
    assert picture(np.zeros((900, 700, 3), np.uint8)).pixels.shape == (658, 512, 3)
    assert picture(np.zeros((900, 700, 3), np.uint8), pixels=0).pixels.shape == (900, 700, 3)


def test_a_picture_does_not_change_with_its_array():
    array = np.zeros((2, 3, 3), np.uint8)
    made = picture(array)
    array[:] = 9
    assert not made.pixels.any()


ODD = {
    "five channels": (np.zeros((4, 4, 5), np.uint8), "(4, 4, 5)"),
    "channels first": (np.zeros((3, 4, 4, 1), np.uint8), "channels last"),
    "a line": (np.zeros(4, np.uint8), "(4,)"),
    "nothing": (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3)"),
    "16 bits": (np.zeros((4, 4, 3), np.uint16), "uint16"),
    "booleans": (np.zeros((4, 4), bool), "bool"),
    "not a number": (np.full((4, 4, 3), np.nan), "NaN"),
    "beyond one": (np.full((4, 4, 3), 255.0), "from 255 to 255"),
    "below zero": (np.full((4, 4, 3), -0.5), "from -0.5 to -0.5"),
    "a list": ([[1, 2]], "of type list"),
    "no file": (Path("nowhere.png"), "does not exist"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_picture(case):
    value, part = ODD[case]
    with pytest.raises(DataError) as caught:
        picture(value, "the third")
    assert part in str(caught.value) and "the third" in str(caught.value)


# --- folders, archives and tables ----------------------------------------------------------------


def small(number, kind="PNG"):
    return encoded(scene(12 + number, 9), kind)


GOOD = {
    "cat/b.png": small(1),
    "cat/a.jpg": small(2, "JPEG"),
    "dog/10.png": small(3),
    "dog/9.gif": small(4, "GIF"),
}
BAD = {
    "cat/c.jpg": JPEG[: len(JPEG) // 2],
    "cat/d.png": b"",
    "dog/list.txt": b"not one",
    "README": b"about",
}
HIDDEN = {"cat/.DS_Store": b"x", "dog/._9.gif": b"x", ".git/a": b"x", "dog/Thumbs.db": b"x"}
NAMES = ("cat/a.jpg", "cat/b.png", "dog/10.png", "dog/9.gif")
SKIPPED = (
    "README: in no class folder",
    "cat/c.jpg: truncated",
    "cat/d.png: empty file",
    "dog/list.txt: not an image",
)


@pytest.fixture(params=["folder", "tar", "tar.gz", "tgz", "folder in a tar"])
def source(request, tmp_path):
    """Makes one of them of names and contents, in a random order."""

    def make(contents, kind=request.param):
        shuffled = list(contents.items())
        random.Random(3).shuffle(shuffled)
        if kind == "folder":
            return files(tmp_path / "images", dict(shuffled))
        if kind == "folder in a tar":
            moved = {f"./all/train/{name}": data for name, data in shuffled}
            return packed(tmp_path / "i.tar", moved | {"all/test/z.png": PNG}) / "all" / "train"
        return packed(tmp_path / f"i.{kind}", dict(shuffled), "w" if kind == "tar" else "w:gz")

    return make


def test_folders_and_archives_give_the_same_pictures(source):
    table = load_folder(source(GOOD | BAD | HIDDEN))
    expected = [decode(GOOD[name], 512) for name in NAMES]
    assert [one.name for one in table.inputs] == list(NAMES)
    for one, pixels in zip(table.inputs, expected, strict=True):
        assert np.array_equal(one.pixels, pixels)
    assert table[1:4] == (("cat", "cat", "dog", "dog"), None, SKIPPED)


def test_a_table_of_paths_gives_the_same_pictures(tmp_path):
    folder = files(tmp_path / "images", GOOD)
    whole = load_folder(folder)
    rows = [f"images/{name},{name[:3]}" for name in NAMES]
    listed = files(tmp_path, {"a.csv": "\n".join(["path,label", *rows]).encode()}) / "a.csv"
    table = load_listed(load(listed, text="path"), listed)
    assert seen(table) == seen(whole)
    # An absolute path is one too; what is not there is named like what is broken.
    (tmp_path / "b.csv").write_text(f"path,label\n{folder}/cat/a.jpg,cat\ngone.png,cat\n")
    table = load_listed(load(tmp_path / "b.csv", text="path"), tmp_path / "b.csv")
    assert table.inputs[0].key == whole.inputs[0].key
    assert table.skipped == ("gone.png: does not exist",)


def test_the_file_system_does_not_decide_the_order(tmp_path, monkeypatch):
    folder = files(tmp_path, GOOD)
    tables = [seen(load_folder(folder))]
    iterdir = Path.iterdir
    for turn in (sorted, lambda found: sorted(found, reverse=True)):
        monkeypatch.setattr(Path, "iterdir", lambda self, turn=turn: iter(turn(iterdir(self))))
        tables.append(seen(load_folder(folder)))
    assert tables[0] == tables[1] == tables[2]


def test_better_names_and_a_smaller_size(source):
    table = load_folder(source(GOOD), names={"cat": "felis"}, pixels=5)
    assert table.labels == ("felis", "felis", "dog", "dog")
    assert [min(one.pixels.shape[:2]) for one in table.inputs] == [5] * 4


def test_sites(source):
    sites = {f"{site}/{name}": GOOD[name] for site in ("north", "east") for name in NAMES}
    del sites["east/dog/10.png"], sites["east/dog/9.gif"]
    path = source(sites | {"north/note.txt": b"?"})
    table = load_folder(path, layout="site/class")
    assert table.labels == ("cat", "cat", "cat", "cat", "dog", "dog")
    assert table.sites == ("east",) * 2 + ("north",) * 4
    assert table.skipped == ("north/note.txt: in no class folder",)
    refused(path, "within its folders for classes", "'site/class'")


def test_a_test_set_of_no_site(source):
    table = load_folder(source(GOOD), layout="site/class", training=False)
    assert table.sites is None and table.labels == ("cat", "cat", "dog", "dog")


SHAPES = {
    "hidden files alone": ({".DS_Store": b"x"}, {}, ["holds no images"]),
    "no folders": ({"a.png": PNG, "b.png": PNG}, {}, ["no folders for classes"]),
    "no classes at sites": (
        {"north/a.png": PNG, "south/b.png": PNG},
        {"layout": "site/class"},
        ["no folders for classes", "each folder for a site"],
    ),
    "too deep": ({"a/b/c.png": PNG}, {}, ["'a/b'", "data.layout = 'site/class'"]),
    "too deep for sites": (
        {"a/b/c/d.png": PNG},
        {"layout": "site/class"},
        ["'a/b/c'", "name one of the outer folders"],
    ),
    "nothing to read": (
        {"a/1.png": b"", "b/2.png": b"x"},
        {"training": False},
        ["no image that can be read: a/1.png (empty file), b/2.png (not an image)"],
    ),
    "a class lost": ({"a/1.png": PNG, "b/2.png": b""}, {}, ["the class 'b' has no image"]),
    "a site lost": (
        {"n/a/1.png": PNG, "n/b/1.png": PNG, "s/b/2.png": b""},
        {"layout": "site/class"},
        ["the site 's' has no image"],
    ),
    "refuse": (
        {"a/1.png": PNG, "b/2.png": PNG, "b/3.png": b"", "b/1.png": PNG[:80]},
        {"corrupt": "refuse"},
        ["b/1.png cannot be read (truncated)", "data.corrupt = 'skip'"],
    ),
    "odd letters": ({"a/1.png": PNG, "b\x1b[2J/1.png": PNG}, {}, ["'b?[2J'", "rename"]),
}


@pytest.mark.parametrize("case", SHAPES)
def test_folders_that_cannot_be_used(source, case):
    contents, options, parts = SHAPES[case]
    refused(source(contents), *parts, **options)


def test_a_class_may_be_empty_in_the_test_alone(tmp_path):
    folder = files(tmp_path, GOOD)
    (folder / "emu").mkdir()
    refused(folder, "the class 'emu' has no image")
    assert len(load_folder(folder, training=False).inputs) == 4


def test_links_in_folders(tmp_path):
    folder = files(tmp_path / "images", GOOD)
    files(tmp_path / "elsewhere", {"e.png": PNG})
    (folder / "dog" / "far.png").symlink_to(tmp_path / "elsewhere" / "e.png")
    (folder / "dog" / "gone.png").symlink_to(tmp_path / "nothing")
    (folder / "emu").symlink_to(tmp_path / "elsewhere")
    table = load_folder(folder)
    assert table.labels == ("cat", "cat", "dog", "dog", "dog", "emu")
    assert table.skipped == ("dog/gone.png: does not exist",)
    (folder / "dog" / "again").symlink_to(folder)
    with pytest.raises(DataError, match="again is a link to a folder that it lies in"):
        load_folder(folder)


# --- archives alone ------------------------------------------------------------------------------


def test_nothing_leaves_an_archive(tmp_path, monkeypatch):
    path = packed(tmp_path / "i.tar", GOOD | {"../cat/out.png": PNG, "/dog/root.png": PNG})
    with tarfile.open(path, "a") as whole:
        for name, kind in (("cat/soft.png", tarfile.SYMTYPE), ("cat/hard.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "dog/10.png"
            whole.addfile(member)
        pipe = tarfile.TarInfo("cat/pipe.png")
        pipe.type = tarfile.FIFOTYPE
        whole.addfile(pipe)
    monkeypatch.chdir(tmp_path)
    table = load_folder(path)
    assert [one.name for one in table.inputs] == list(NAMES) and table.skipped == ()
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_packed_last_counts(tmp_path):
    path = packed(tmp_path / "i.tar", GOOD | {"cat/a.jpg": b""})
    assert load_folder(path).skipped == ("cat/a.jpg: empty file",)
    packed(path, {"cat/a.jpg": GOOD["cat/a.jpg"]}, "a")
    assert load_folder(path).skipped == ()


def test_a_folder_that_an_archive_lacks(tmp_path):
    path = packed(tmp_path / "i.tar", {f"train/{name}": data for name, data in GOOD.items()})
    with tarfile.open(path, "a") as whole:
        whole.add(tmp_path, "./", recursive=False)
        whole.add(tmp_path, "./empty", recursive=False)
    with pytest.raises(DataError, match=r"holds no folder 'trian'; it holds: empty, train$"):
        load_folder(path / "trian")
    refused(path / "empty", "holds no images")
    assert len(load_folder(path / "train").inputs) == 4


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_an_archive_that_is_not_whole(tmp_path, pack):
    data = packed(tmp_path / "i.tar", GOOD).read_bytes()
    second = 512 * (1 + -(-len(GOOD["cat/b.png"]) // 512))  # where its header begins
    for broken in (
        data[:700],
        data[: second + 100],
        data[:second] + b"x" * 512 + data[second + 512 :],
        b"no archive" * 100,
        b"",
    ):
        path = tmp_path / "b.tar"
        path.write_bytes(pack(broken))
        refused(path, "not a whole tar file")
    path.write_bytes(gzip.compress(data)[:-20])
    refused(path, "not a whole tar file")


def test_a_file_that_is_too_large_is_not_opened(source, monkeypatch):
    monkeypatch.setattr("fedbbpt.data._image_files.LARGEST", 2000)
    table = load_folder(source(GOOD | {"cat/z.png": PNG + bytes(3000)}))
    assert table.skipped == (f"cat/z.png: of {len(PNG) + 3000} bytes, more than 2000",)


# --- images that want a label --------------------------------------------------------------------


def test_every_file_is_asked_about_wherever_it_lies(source):
    contents = {"z.png": PNG, "a/b/c/1.png": PNG, "a/2.txt": b"no"}
    found = pictures.unlabelled(source(contents))
    assert [file.name for file in found] == ["a/2.txt", "a/b/c/1.png", "z.png"]
    opened = [file.open(8) for file in found]
    assert opened[0] == (None, "not an image")
    assert opened[1][0].key == opened[2][0].key == Picture(decode(PNG, 8)).key


def test_what_leads_to_images_by_itself(tmp_path):
    files(tmp_path, {"a.png": PNG, "b.csv": b"path\n", "c.jsonl.gz": b"", "noname": PNG})
    packed(tmp_path / "i.tar", GOOD)
    known = {name: pictures.holds_pictures(tmp_path / name) for name in ("a.png", "noname", "")}
    assert all(known.values()) and pictures.holds_pictures(tmp_path / "i.tar" / "cat")
    for other in ("b.csv", "c.jsonl.gz", "missing.png", "missing.tar", "a.png/train"):
        assert not pictures.holds_pictures(tmp_path / other)


# --- the real thing ------------------------------------------------------------------------------


def test_caltech101(data_folder):
    path = data_folder / "images" / "caltech101" / "caltech101_16shot_10test.tar"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    table = load_folder(path / "train", pixels=64)
    assert len(table.inputs) == 1616 and len(set(table.labels)) == 101 and not table.skipped
    assert all(table.labels.count(label) == 16 for label in ("Faces", "wrench", "yin_yang"))
    assert table.labels == tuple(sorted(table.labels))
    assert {min(one.pixels.shape[:2]) for one in table.inputs} == {64}
    assert min(one.pixels.std() for one in table.inputs) > 1
