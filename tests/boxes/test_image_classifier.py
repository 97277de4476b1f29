"""Classifiers in ONNX and TFLite files beside plain calls, callables, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest

from fedbbpt import registry
from fedbbpt.boxes._tflite import _without_notices
from fedbbpt.boxes.image_classifier import ImageClassifier
from fedbbpt.errors import BoxError, ConfigError, DataError, MissingExtra
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.testing._pictures import PICTURES, Shade
from fedbbpt.testing.boxes import check_box, check_names
from fedbbpt.types import Picture, RenderedPrompt

pytest.importorskip("PIL")

SIZE, CLASSES = (6, 8), ("terrible", "great", "odd", "tench, Tinca tinca", "crane")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
SHADED = RenderedPrompt("", ("#1", "#2"), "image", visual=Shade(0.3))
WEIGHTS = np.random.default_rng(3).normal(0, 0.3, (len(CLASSES), 3 * SIZE[0] * SIZE[1]))
BIAS = np.arange(len(CLASSES)) / 3


# --- small models --------------------------------------------------------------------------------


def make_onnx(path, first=True, batch=1, size=SIZE, kind="FLOAT", channels=3, second=False):
    """Logits of a linear model, and their softmax; of the mean colour where the size is open."""
    onnx = pytest.importorskip("onnx")
    make, types, is_open = onnx.helper, onnx.TensorProto, size == ("H", "W")
    shape = [batch, channels, *size] if first else [batch, *size, channels]
    inputs = [make.make_tensor_value_info("pixels", getattr(types, kind), shape)]
    if second:
        inputs.append(make.make_tensor_value_info("text", types.FLOAT, [1, 4]))
    outputs = [
        make.make_tensor_value_info(name, types.FLOAT, [batch, len(CLASSES)])
        for name in ("probabilities", "aux_logits", "logits")
    ]
    weights = WEIGHTS[:, : channels * (1 if is_open else size[0] * size[1])]
    arrays = {"weights": weights.T.astype(np.float32), "bias": BIAS.astype(np.float32)}
    nodes = [
        make.make_node("Cast", ["pixels"], ["real"], to=types.FLOAT),
        make.make_node("GlobalAveragePool" if is_open else "Identity", ["real"], ["pooled"]),
        make.make_node("Flatten", ["pooled"], ["flat"]),
        make.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
        make.make_node("Neg", ["logits"], ["aux_logits"]),
        make.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    held = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = make.make_graph(nodes, "small", inputs, outputs, held)
    made = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, str(path))
    return str(path)


def make_tflite(path, kind="FLOAT32", size=SIZE, open_size=False, channels=3):
    """The same through the library's own schema; of whole numbers rounded to 8 bits."""
    pytest.importorskip("ai_edge_litert")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph, whole = schema.ModelT(), schema.SubGraphT(), kind != "FLOAT32"
    empty = schema.BufferT()
    empty.data = None
    model.version, model.buffers, model.operatorCodes = 3, [empty], []
    graph.name, graph.tensors, graph.operators = b"main", [], []

    def tensor(name, shape, type_, scale=0.0, zero=0, data=None):
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), 0
        made.type = getattr(schema.TensorType, type_)
        if whole and scale:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(name, given, made, options):
        code, node = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1 if not whole or kind == "UINT8" else 4 if name == "FULLY_CONNECTED" else 2
        model.operatorCodes.append(code)
        node.opcodeIndex, node.inputs, node.outputs = len(model.operatorCodes) - 1, given, made
        node.builtinOptions = options
        called = type(options).__name__.removesuffix("T")
        node.builtinOptionsType = getattr(schema.BuiltinOptions, called)
        graph.operators.append(node)

    width = channels * size[0] * size[1]
    low = -128 if kind == "INT8" else 0
    step = float(np.abs(WEIGHTS[:, :width]).max() / 127)
    held, bias = WEIGHTS[:, :width].astype(np.float32), BIAS.astype(np.float32)
    if whole:
        zero = 0 if kind == "INT8" else 128
        held = (np.rint(held / step) + zero).astype(kind.lower())
        bias = np.rint(bias / (step / 255)).astype(np.int32)
    shape, classes = (1, *size, channels), len(CLASSES)
    pixels = tensor("pixels", shape, kind, 1 / 255, low)
    if open_size:
        graph.tensors[0].shape, graph.tensors[0].shapeSignature = [1, 1, 1, 3], [1, -1, -1, 3]
    weights = tensor("weights", held.shape, kind, step, 128 if kind == "UINT8" else 0, held)
    biases = tensor("bias", bias.shape, "INT32" if whole else kind, step / 255, 0, bias)
    logits = tensor("top/logits;fused", (1, classes), kind, 0.05, low + 128)
    answer = tensor("answer", (1, classes), kind, 1 / 256, low)
    operator(
        "FULLY_CONNECTED", [pixels, weights, biases], [logits], schema.FullyConnectedOptionsT()
    )
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    operator("SOFTMAX", [logits], [answer], softmax)
    graph.inputs, graph.outputs, model.subgraphs = [pixels], [answer], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return str(path)


def linear(images):
    """The same as a callable, each image by itself."""
    logits = [WEIGHTS @ image.reshape(-1).astype(np.float64) + BIAS for image in images]
    return np.exp(log_softmax(np.array(logits)))


def seen(box, pictures=PICTURES, prompt=SHADED):
    """(B, S) log-probabilities, and the images they are of."""
    images = np.concatenate(
        [prompt.visual.on(box.vision.fit(picture)[None], [picture]) for picture in pictures]
    )
    return box([prompt], pictures).embeddings, images


def whole(images):
    """Pixels from 0 to 255."""
    return (images * 255 + 0.5).astype(np.uint8).astype(np.int64)


def normalised(images, mean=MEAN, std=STD):
    return ((images.astype(np.float64) - mean) / std).astype(np.float32)


# --- ONNX ----------------------------------------------------------------------------------------


def session(path):
    return pytest.importorskip("onnxruntime").InferenceSession(path)


@pytest.mark.parametrize("output", ["", "logits"])
@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize("first", [True, False], ids=["nchw", "nhwc"])
def test_onnx_is_a_plain_call(tmp_path, first, batch, output):
    path = make_onnx(tmp_path / "m.onnx", first, batch)
    scores = "logits" if output else "probabilities"
    box = ImageClassifier(path, CLASSES, scores=scores, output=output, mean=MEAN, std=STD)
    assert box.vision.size == SIZE and box.hidden == len(CLASSES) and box.steady
    rows, images = seen(box)
    run = session(path)
    for row, image in zip(rows, normalised(images), strict=True):
        given = image.transpose(2, 0, 1) if first else image
        (plain,) = run.run(["probabilities"], {"pixels": given[None]})
        np.testing.assert_allclose(np.exp(row), plain[0], rtol=0, atol=1e-6)


def test_onnx_takes_whole_and_half_numbers(tmp_path):
    for kind, dtype in (("UINT8", np.uint8), ("FLOAT16", np.float16)):
        path = make_onnx(tmp_path / f"{kind}.onnx", kind=kind)
        box = ImageClassifier(path, CLASSES, output="logits", scores="logits")
        rows, images = seen(box)
        usual = normalised(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        given = whole(images) if kind == "UINT8" else usual
        given = given.astype(dtype).transpose(0, 3, 1, 2)
        plain = [session(path).run(["logits"], {"pixels": x[None]})[0][0] for x in given]
        np.testing.assert_allclose(rows, log_softmax(np.array(plain, np.float64)), atol=1e-5)


def test_a_size_left_open_is_the_options_or_the_usual(tmp_path):
    path = make_onnx(tmp_path / "m.onnx", batch="N", size=("H", "W"))
    assert ImageClassifier(path, CLASSES).vision.size == (224, 224)
    box = ImageClassifier(path, CLASSES, size=(10, 12), mean=MEAN, std=STD)
    rows, images = seen(box)
    assert images.shape[1:] == (10, 12, 3)
    colours = normalised(images).astype(np.float64).mean(axis=(1, 2))
    want = log_softmax(colours @ WEIGHTS[:, :3].T + BIAS)
    np.testing.assert_allclose(rows, want, rtol=0, atol=1e-5)


# --- TFLite --------------------------------------------------------------------------------------


def interpreter(path, output):
    """A plain call: the output tensor of one input."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    run = Interpreter(
        path, experimental_preserve_all_tensors=True, experimental_op_resolver_type=plain
    )
    run.allocate_tensors()
    details = {one["name"]: one for one in run.get_tensor_details()}
    (read,) = (one for name, one in details.items() if name.startswith(output))
    (given,) = run.get_input_details()

    def call(image):
        run.set_tensor(given["index"], image[None])
        run.invoke()
        scale, zero = read["quantization"]
        found = run.get_tensor(read["index"])[0].astype(np.float64)
        return (found - zero) * scale if scale else found

    return call


@pytest.mark.parametrize("output", ["", "top/logits"])
@pytest.mark.parametrize("kind", ["FLOAT32", "INT8", "UINT8"])
def test_tflite_is_a_plain_call(tmp_path, kind, output):
    path = make_tflite(tmp_path / "m.tflite", kind)
    taken = {"mean": MEAN, "std": STD} if kind == "FLOAT32" else {}
    scores = "logits" if output else "probabilities"
    box = ImageClassifier(path, CLASSES, scores=scores, output=output, **taken)
    rows, images = seen(box)
    call = interpreter(path, output or "answer")
    low = -128 if kind == "INT8" else 0
    given = normalised(images) if taken else (whole(images) + low).astype(kind.lower())
    plain = np.array([call(image) for image in given])
    assert len(np.unique(plain.argmax(axis=1))) > 1
    want = log_softmax(plain) if output else np.log(np.maximum(plain, box.classifier.step / 2))
    np.testing.assert_allclose(np.exp(rows), np.exp(want), rtol=0, atol=1e-6)


def test_tflite_of_an_open_size(tmp_path):
    path = make_tflite(tmp_path / "m.tflite", open_size=True)
    box = ImageClassifier(path, CLASSES, size=SIZE, mean=MEAN, std=STD)
    fixed = ImageClassifier(make_tflite(tmp_path / "f.tflite"), CLASSES, mean=MEAN, std=STD)
    np.testing.assert_array_equal(seen(box)[0], seen(fixed)[0])


def test_tflite_writes_no_notice(tmp_path):
    path = make_tflite(tmp_path / "m.tflite")
    code = "import sys; from fedbbpt.boxes.image_classifier import ImageClassifier as Box; "
    code += f"Box({path!r}, {CLASSES!r}); print('said', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "said\n")


def test_what_else_is_written_meanwhile_is_kept(capfd, monkeypatch):
    with pytest.raises(OSError, match="as it was"), _without_notices():
        os.write(2, b"INFO: made\nWARNING: not so fast\n")
        raise OSError("as it was")
    assert capfd.readouterr().err == "WARNING: not so fast\n"
    monkeypatch.setattr(sys, "stderr", None)
    with _without_notices():
        os.write(2, b"INFO: made\n")
    assert capfd.readouterr().err == "INFO: made\n"


@pytest.mark.filterwarnings("ignore:Warning. Enabling:UserWarning")
@pytest.mark.parametrize("output", ["", "SpatialSqueeze/Reshape"])
def test_a_real_mobilenet(data_folder, output):
    folder = data_folder / "models" / "coral_mobilenet"
    path = str(folder / "tf2_mobilenet_v2_1.0_224_ptq.tflite")
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    scores = "logits" if output else "probabilities"
    box = ImageClassifier(path, str(folder / "imagenet_labels.txt"), scores=scores, output=output)
    assert box.vision.size == (224, 224) and box.hidden == 1001
    rows, images = seen(box)
    run = Interpreter(path, experimental_preserve_all_tensors=True)
    run.allocate_tensors()
    named = "MobileNetV2/top/SpatialSqueeze/Reshape" if output else "Identity"
    (read,) = (one for one in run.get_tensor_details() if one["name"].split(";")[0] == named)
    scale, zero = read["quantization"]
    for row, image in zip(rows, images, strict=True):
        run.set_tensor(run.get_input_details()[0]["index"], whole(image)[None].astype("u1"))
        run.invoke()
        plain = scale * (run.get_tensor(read["index"]).reshape(-1).astype(np.float64) - zero)
        want = log_softmax(plain) if output else np.log(np.maximum(plain, scale / 2))
        np.testing.assert_allclose(np.exp(row), np.exp(want), rtol=0, atol=1e-6)


# --- callables -----------------------------------------------------------------------------------


def callable_box(answer=linear, **options):
    return ImageClassifier(answer, CLASSES, **{"size": SIZE, **options})


def test_a_callable_sees_images_from_0_to_1():
    given = []

    def answer(images):
        given.append(images)
        return linear(images)

    box = callable_box(answer)
    rows, images = seen(box)
    np.testing.assert_array_equal(np.concatenate(given), images)
    assert given[0].dtype == np.float32 and images.min() >= 0 and images.max() <= 1
    np.testing.assert_allclose(np.exp(rows), linear(images), rtol=1e-6)


def test_a_callables_batches_are_made_of_all_atoms():
    def answer(images):
        sizes.append(len(images))
        return linear(images) * 0 + 1 / len(CLASSES)

    grids = {}
    for rows in (1, 3):
        box = callable_box(answer, rows=rows)
        assert box.steady == (rows == 1)
        atoms = box.split([SHADED, RenderedPrompt("", ("odd",), "image")], PICTURES).atoms
        sizes = grids.setdefault(rows, [])
        assert len(box.evaluate(atoms, [0, 7])) == 2
    assert len(atoms) == 8 and grids == {1: [1, 1], 3: [3, 2]}


def test_a_callable_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text("half = lambda images: [[.5, .5]] * len(images)\nnone = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    box = ImageClassifier("nets:half", ("a", "b"), size=SIZE)
    assert box.name == "image_classifier:nets:half:probabilities:squash-6x8-2"
    np.testing.assert_allclose(box((), PICTURES).embeddings, np.log(0.5), rtol=1e-6)
    for path, said in (
        ("nets:whole", "cannot be imported"),
        ("no_such:half", "package.module:name"),
        ("net.pt", "is no .tflite or .onnx file and cannot be imported"),
        ("./net.pt", "is no .tflite or .onnx file and cannot be imported"),
        ("nets:none", "box.model is 3; it must be callable"),
    ):
        with pytest.raises(ConfigError, match=said):
            ImageClassifier(path, ("a", "b"))


def softly(images):
    return np.full((len(images), len(CLASSES)), 1 / len(CLASSES))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: softly(x)[:, :4], r"shape \(4, 4\), not \(4, 5\)"),
        (lambda x: softly(x)[0], r"shape \(5,\), not \(4, 5\)"),
        (lambda x: softly(x)[:1], r"shape \(1, 5\), not \(4, 5\)"),
        (lambda x: softly(x) * 3, "from 0.6 to 0.6 that add up to 3, no probabilities"),
        (lambda x: softly(x) * [1, 1, 1, 3, -1], "from -0.2 to 0.6 that add up to 1, no prob"),
        (lambda x: "certainly", "returned no array of scores"),
        (lambda x: None, "shape"),
        (lambda x: [[1], [2, 3]], "returned no array of scores"),
    ],
)
def test_a_wrong_answer_is_named(answer, said):
    with pytest.raises(BoxError, match=said) as caught:
        callable_box(answer)((), PICTURES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scores", ["probabilities", "logits"])
def test_a_row_with_nan_is_no_answer(scores):
    def answer(images):
        found = softly(images)
        found[1, 2] = np.nan
        found[2] = np.inf if scores == "logits" else np.nan
        return found

    box = callable_box(answer, scores=scores)
    scored = box([RenderedPrompt("", ("great", "odd | crane"), "image")], PICTURES)
    silent = [False, True, True, False]
    for found in (scored.scores[0], scored.embeddings):
        np.testing.assert_array_equal(np.isnan(found).all(axis=1), silent)
        np.testing.assert_array_equal(np.isnan(found).any(axis=1), silent)
    np.testing.assert_allclose(np.exp(scored.scores[0, 0]), [1 / 3, 2 / 3], rtol=1e-6)


def test_a_class_that_is_ruled_out_is_still_an_answer():
    box = callable_box(lambda x: [[0, 0, 0, 0, -np.inf]] * len(x), scores="logits")
    rows = box((), PICTURES).embeddings
    np.testing.assert_allclose(np.exp(rows), [[0.25] * 4 + [0]] * 4)
    assert np.isfinite(rows).all()
    rows = callable_box(lambda x: [[1, 0, 0, 0, 0]] * len(x))((), PICTURES).embeddings
    np.testing.assert_allclose(np.exp(rows), [[1] + [1e-6] * 4] * 4, rtol=1e-6)


# --- the laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_onnx, make_tflite])
def test_a_file_keeps_the_laws(tmp_path, make):
    kind = ".onnx" if make is make_onnx else ".tflite"
    path = make(tmp_path / f"m{kind}")
    box = ImageClassifier(path, CLASSES)
    check_box(box)
    for change in ({"mean": MEAN}, {"std": STD}, {"resize": "crop"}, {"edge": 9}):
        check_names(box, ImageClassifier(path, CLASSES, **change))
    logits = ImageClassifier(path, CLASSES, output="logits", scores="logits")
    check_names(box, logits)
    (tmp_path / "moved").mkdir()
    assert ImageClassifier(make(tmp_path / "moved" / f"m{kind}"), CLASSES).name == box.name


def test_a_quantised_model_keeps_the_laws(tmp_path):
    check_box(ImageClassifier(make_tflite(tmp_path / "m.tflite", "INT8"), CLASSES))


# --- what is refused -----------------------------------------------------------------------------


def broken(path):
    path.write_bytes(b"no model " * 20)
    return str(path)


REFUSED = {
    "gone.onnx": (lambda p: str(p), {}, "gone.onnx' does not exist"),
    "gone.tflite": (lambda p: str(p), {}, "gone.tflite' does not exist"),
    "bad.onnx": (broken, {}, "bad.onnx is no ONNX model that runs: Protobuf parsing"),
    "bad.tflite": (broken, {}, "bad.tflite is no TFLite model that runs: [TM]"),
    "a.onnx": (make_onnx, {"output": "top"}, "output is 'top'; .*a.onnx has: probabilities, aux"),
    "a.tflite": (
        make_tflite,
        {"output": "low"},
        "output is 'low'; .*a.tflite ends in: .*logits, ans",
    ),
    "b.onnx": (make_onnx, {"classes": CLASSES[:4]}, "has 4 names, but b-.* has 5 classes"),
    "b.tflite": (make_tflite, {"classes": CLASSES[:4]}, "has 4 names, but b-.* has 5 classes"),
    "c.onnx": (make_onnx, {"size": (8, 8)}, r"size is \(8, 8\), but .*c.onnx takes .* \(6, 8\)"),
    "c.tflite": (make_tflite, {"size": (8, 8)}, r"size is \(8, 8\), but .*takes .* \(6, 8\)"),
    "grey.onnx": (lambda p: make_onnx(p, channels=1), {}, r"takes pixels \[1, 1, 6, 8\]; an image"),
    "grey.tflite": (lambda p: make_tflite(p, channels=1), {}, r"takes .* \(1, 6, 8, 1\); an image"),
    "eight.onnx": (
        lambda p: make_onnx(p, batch=8),
        {},
        r"takes pixels \[8, 3, 6, 8\]; an image is",
    ),
    "two.onnx": (lambda p: make_onnx(p, second=True), {}, r"takes pixels .*, text \[1, 4\]; an im"),
    "int.onnx": (
        lambda p: make_onnx(p, kind="INT64"),
        {},
        "takes int64; an image is one of: float",
    ),
    "open.onnx": (
        lambda p: open_but_fixed(p),
        {"size": (5, 5)},
        "cannot be asked about an image of 5x5: .*box.size",
    ),
    "q.tflite": (lambda p: make_tflite(p, "INT8"), {"std": STD}, "box.std is .*takes pixels as th"),
    "named.onnx": (make_onnx, {"name": "mine"}, "box.name is 'mine', which changes nothing"),
    "rows.onnx": (make_onnx, {"rows": 0}, "box.rows is 0; it must be at least 1"),
    "scores.onnx": (make_onnx, {"scores": "odds"}, "box.scores is 'odds'; known: probabilities"),
    "way.onnx": (make_onnx, {"resize": "pad"}, "box.resize is 'pad'; known: squash, crop"),
    "edge.onnx": (make_onnx, {"edge": 7}, "box.edge is 7, less than the model's input"),
    "std.onnx": (make_onnx, {"std": (0, 1, 1)}, "both must be above 0"),
    "list.onnx": (
        make_onnx,
        {"classes": "no_such.txt"},
        "box.classes 'no_such.txt' cannot be read",
    ),
}


def open_but_fixed(path):
    """Its input leaves the size open, its weights do not."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(make_onnx(path))
    for place in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = f"d{place}"
    onnx.save(model, str(path))
    return str(path)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_refused(tmp_path, name):
    make, options, said = REFUSED[name]
    pytest.importorskip("ai_edge_litert" if name.endswith("e") else "onnxruntime")
    model = make(tmp_path / name)
    with pytest.raises(ConfigError, match=said) as caught:
        ImageClassifier(model, **{"classes": CLASSES, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [{"mean": MEAN}, {"std": STD}, {"output": "x"}])
def test_an_option_that_changes_nothing_for_a_callable(option):
    with pytest.raises(ConfigError, match=r"which changes nothing: a callable gets pixels from 0"):
        callable_box(**option)


@pytest.mark.parametrize(
    ("module", "file", "package"),
    [
        ("ai_edge_litert.interpreter", "m.tflite", "ai-edge-litert"),
        ("onnxruntime", "m.onnx", "onnxruntime"),
        ("PIL", None, "pillow"),
    ],
)
def test_a_library_that_is_not_there(tmp_path, monkeypatch, module, file, package):
    monkeypatch.setitem(sys.modules, module, None)
    model = linear if file is None else str(tmp_path / file)
    if file:
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(MissingExtra, match=rf"{package} is not .*'fedbbpt\[vision\]'"):
        ImageClassifier(model, CLASSES)


def test_what_is_no_picture():
    box = callable_box()
    with pytest.raises(ConfigError, match="takes images, and an example is of type str"):
        box((), ["a text"])
    for shape, kind in (((4, 4), "u1"), ((4, 4, 4), "u1"), ((4, 4, 3), "f4"), ((0, 4, 3), "u1")):
        with pytest.raises(DataError, match=r"the picture 'odd.png' is .* must be uint8 of \(H"):
            box((), [Picture(np.zeros(shape, kind), "odd.png")])


def test_names_from_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeff" + "\r\n".join(CLASSES) + "\n\n", encoding="utf-8")
    assert callable_box().form.classes == ImageClassifier(linear, str(path)).form.classes
    path.write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(ConfigError, match="cannot be read"):
        ImageClassifier(linear, str(path))


def test_options_as_a_config_has_them(tmp_path):
    path = make_onnx(tmp_path / "m.onnx")
    options = {"model": path, "classes": list(CLASSES), "size": [6, 8], "mean": [0, 0, 0]}
    box = registry.make("boxes", "image_classifier", options, "box")
    assert box.vision.size == SIZE and box.form.classes == CLASSES
    with pytest.raises(ConfigError, match=r"box\.std is"):
        registry.make("boxes", "image_classifier", {**options, "std": [1, 1]}, "box")
