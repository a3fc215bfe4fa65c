"""Plans of operators on sequences, optionals and strings, and of those of ai.onnx.ml."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from tests.fuzz.importers.draft import Draft, Undrawable, plan
from tests.fuzz.importers.schemas import NUMPY, element, kind, number

_WORDS = ("a", "b", "cc", "A", "", "hello", "é")


def _sequence(n: Draft, variable: str = "S", least: int = 0, like: tuple[int, ...] | None = None) -> list[np.ndarray]:
    """A sequence as input 0: tensors of one type and rank."""
    text = n.pick(t for t in n.allowed(variable) if t.startswith("seq("))
    n.types[variable] = text
    n.types["T"] = text[len("seq(") : -1]
    rank = n.integer(0, 3)
    items = [
        n.array(element(text), tuple(n.size() for _ in range(rank)) if like is None else like)
        for _ in range(n.integer(least, 3))
    ]
    return n.give(0, items, text)


@plan("SequenceAt")
def sequence_at(n: Draft) -> None:
    items = _sequence(n, least=1)
    n.fix(1, n.integer(-len(items), len(items) - 1))


@plan("SequenceLength")
def sequence_length(n: Draft) -> None:
    _sequence(n)


@plan("SequenceErase")
def sequence_erase(n: Draft) -> None:
    items = _sequence(n, least=1)
    if n.chance(0.7):
        n.fix(1, n.integer(-len(items), len(items) - 1))


@plan("SequenceInsert")
def sequence_insert(n: Draft) -> None:
    items = _sequence(n)
    rank = items[0].ndim if items else 1
    n.give(1, n.array(element(n.types["S"]), tuple(n.size() for _ in range(rank))))
    if n.chance(0.7):
        n.fix(2, n.integer(-len(items), len(items)))


@plan("SequenceConstruct")
def sequence_construct(n: Draft) -> None:
    rank = n.integer(0, 3)
    for position in range(n.integer(1, 3)):
        n.feed(position, tuple(n.size() for _ in range(rank)))


@plan("SequenceEmpty")
def sequence_empty(n: Draft) -> None:
    if n.chance(0.7):
        n.set(dtype=number(element(n.pick(n.allowed("S")))))


@plan("ConcatFromSequence")
def concat_from_sequence(n: Draft) -> None:
    shape = n.shape(1, 3)
    _sequence(n, least=1, like=shape)
    new = n.choose("new_axis", 0, 1)
    rank = len(shape) + bool(new)
    n.set(axis=n.integer(-rank, rank - 1))


@plan("SplitToSequence")
def split_to_sequence(n: Draft) -> None:
    x = list(n.shape(1, 3, least=1))
    axis = n.integer(-len(x), len(x) - 1)
    n.set(axis=axis)
    n.choose("keepdims", 0, 1)
    if n.chance(0.6):
        if n.chance(0.5):
            n.fix(1, np.array(n.integer(1, 3)))
        else:
            parts = n.integers(n.integer(1, 3), 1, 3)
            x[axis] = sum(parts)
            n.fix(1, np.array(parts))
    n.feed(0, x)


@plan("Optional")
def optional(n: Draft) -> None:
    text = n.pick(n.allowed("V"))
    n.types["V"] = text
    if n.chance(0.3):
        n.set(type=_type_of(text))
        return
    if text.startswith("seq("):
        n.give(0, [n.array(element(text), (n.size(),)) for _ in range(2)], text)
    else:
        n.feed(0, n.shape())


def _type_of(text: str) -> Any:
    inner = helper.make_tensor_type_proto(number(element(text)), [2])
    return helper.make_sequence_type_proto(inner) if text.startswith("seq(") else inner


@plan("OptionalHasElement", "OptionalGetElement")
def optional_element(n: Draft) -> None:
    """An optional input that holds a tensor or a sequence, or, where it is only asked for, nothing."""
    text = n.pick(n.allowed("O"))
    n.types["O"] = text
    asks = n.version.name == "OptionalHasElement"
    if asks and n.schema.since_version >= 18 and n.chance(0.1):
        return
    shape = n.shape(0, 2)
    value: Any = n.array(element(text), shape)
    if "seq(" in text:
        value = [n.array(element(text), shape) for _ in range(2)]
    if asks and text.startswith("optional(") and n.chance(0.3):
        value = None
    n.give(0, value, text)


@plan("StringSplit")
def string_split(n: Draft) -> None:
    n.give(0, n.numbers.choice(np.array(["a b", "a,b,,c", "", " x  y ", "a"], dtype=object), n.shape()))
    n.choose("delimiter", ",", " ", "")
    n.choose("maxsplit", 1, 2)


@plan("StringNormalizer")
def string_normalizer(n: Draft) -> None:
    n.feed(0, (n.size(1),) if n.chance(0.5) else (1, n.size(1)))
    n.choose("case_change_action", "LOWER", "UPPER", "NONE")
    n.choose("is_case_sensitive", 0, 1)
    n.choose("stopwords", ["a", "ab"], ["B"])


@plan("RegexFullMatch")
def regex_full_match(n: Draft) -> None:
    n.feed(0, n.shape())
    n.set(pattern=n.pick(["a.*", "[ab]+", r"\d", ".*", "(a|b) ?b?", r"-?\d+\.\d"]))


@plan("TfIdfVectorizer")
def tf_idf(n: Draft) -> None:
    """A pool of words: pairs after single ones."""
    texts = kind(n.dtype(0)) == "string"
    single, pairs = n.integer(1, 3), n.integer(0, 2)
    pool = [n.integer(0, 4) for _ in range(single + 2 * pairs)]
    names = ("a", "b", "ab", "abc", "1")
    if len(set(pool[:single])) < single or len({tuple(pool[i : i + 2]) for i in range(single, len(pool), 2)}) < pairs:
        raise Undrawable("an n-gram twice")
    n.feed(0, n.pick([(6,), (2, 5)]), 0, 4)
    n.set(pool_strings=[names[i] for i in pool]) if texts else n.set(pool_int64s=pool)
    n.set(ngram_counts=[0, single], ngram_indexes=n.random.sample(range(single + pairs), single + pairs))
    n.set(min_gram_length=1, max_gram_length=2, max_skip_count=n.integer(0, 2), mode=n.pick(["TF", "IDF", "TFIDF"]))
    if n.chance(0.5):
        n.set(weights=[n.uniform(0.5, 2) for _ in range(single + pairs)])


# ai.onnx.ml


@plan("ArrayFeatureExtractor")
def array_feature_extractor(n: Draft) -> None:
    x = n.feed(0, n.shape(1, 3, least=1))
    n.give(1, np.array(n.integers(n.integer(1, 4), 0, x.shape[-1] - 1), np.int64))


@plan("CategoryMapper")
def category_mapper(n: Draft) -> None:
    texts = kind(n.dtype(0)) == "string"
    n.types["T2"] = "tensor(int64)" if texts else "tensor(string)"
    n.set(cats_int64s=[1, 2, 3], cats_strings=["a", "b", "ab"])
    n.choose("default_string", "none")
    n.choose("default_int64", -5)
    n.feed(0, n.shape(), 0, 4)


@plan("FeatureVectorizer")
def feature_vectorizer(n: Draft) -> None:
    rows, widths = n.integer(1, 3), n.integers(n.integer(1, 3), 1, 3)
    for position, width in enumerate(widths):
        n.feed(position, (rows, width))
    n.set(inputdimensions=widths)


@plan("Imputer")
def imputer(n: Draft) -> None:
    columns = n.integer(1, 4)
    x = n.feed(0, (n.integer(1, 3), columns), -2, 2)
    count = n.pick([1, columns])
    if kind(n.dtype(0)) == "float":
        n.set(imputed_value_floats=[n.uniform(-3, 3) for _ in range(count)])
        if n.chance(0.5):
            n.set(replaced_value_float=float("nan"))
            x[0, 0] = np.nan
    else:
        n.set(imputed_value_int64s=n.integers(count, -3, 3))
        n.choose("replaced_value_int64", 1, -1)


@plan("LabelEncoder")
def label_encoder(n: Draft) -> None:
    """Keys and values of any two types; what is no key gets the default."""
    since = n.schema.since_version
    source, target = n.bind("T1"), n.bind("T2")
    keys = {"string": ["a", "b", "ab"], "float": [1.0, 2.0, -1.0], "double": [1.0, 2.0, -1.0]}.get(source, [1, 2, -1])
    values: list[Any] = ["x", "y", ""] if target == "string" else [3, 5, -7]
    if since == 1:
        if {source, target} != {"string", "int64"}:
            raise Undrawable("version 1 maps strings to indices and back")
        n.set(classes_strings=["a", "b", "ab"])
    else:
        plain = {"string": "strings", "float": "floats", "int64": "int64s"}
        if source not in plain or target not in plain or (since >= 4 and n.chance(0.3)):
            n.set(keys_tensor=_tensor(keys, source), values_tensor=_tensor(values, target))
            n.set(default_tensor=_tensor(["?" if target == "string" else 9], target))
        else:
            n.set(**{f"keys_{plain[source]}": keys, f"values_{plain[target]}": values})
            n.choose("default_string", "?")
            n.choose("default_int64", 4)
            n.choose("default_float", 1.5)
    x = n.feed(0, n.shape(1), -2, 2)
    if kind(source) == "float":
        n.give(0, np.round(x.astype(np.float64)).astype(x.dtype))


def _tensor(values: list[Any], dtype: str) -> Any:
    if dtype == "string":
        return helper.make_tensor("t", helper.np_dtype_to_tensor_dtype(np.dtype(object)), [len(values)], values)
    return numpy_helper.from_array(np.array(values).astype(NUMPY[dtype]), "t")


_POST = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@plan("LinearClassifier")
def linear_classifier(n: Draft) -> None:
    classes, features = n.integer(2, 4), n.integer(1, 4)
    n.set(coefficients=[n.uniform(-1, 1) for _ in range(classes * features)])
    n.set(intercepts=[n.uniform(-1, 1) for _ in range(classes)])
    _labels(n, classes, "classlabels_ints")
    n.choose("multi_class", 0, 1)
    n.choose("post_transform", *_POST[:4])
    n.feed(0, (n.integer(1, 3), features))
    n.outputs = 2


def _labels(n: Draft, classes: int, integers: str) -> None:
    if n.chance(0.5):
        n.set(classlabels_strings=list("abcd"[:classes]))
    else:
        n.set(**{integers: n.random.sample(range(9), classes)})


@plan("LinearRegressor")
def linear_regressor(n: Draft) -> None:
    targets, features = n.integer(1, 3), n.integer(1, 4)
    n.set(coefficients=[n.uniform(-1, 1) for _ in range(targets * features)])
    if n.chance(0.7):
        n.set(intercepts=[n.uniform(-1, 1) for _ in range(targets)])
    if targets > 1 or n.chance(0.5):
        n.set(targets=targets)
    n.choose("post_transform", *_POST[:4])
    n.feed(0, (n.integer(1, 3), features))


@plan("Normalizer")
def normalizer(n: Draft) -> None:
    n.feed(0, n.shape(2, 2, least=1), 1, 4)
    n.choose("norm", "MAX", "L1", "L2")


@plan("OneHotEncoder")
def one_hot_encoder(n: Draft) -> None:
    texts = kind(n.dtype(0)) == "string"
    n.set(cats_strings=["a", "b", "ab"]) if texts else n.set(cats_int64s=[0, 1, 3])
    x = n.shape(1, 3)
    values = n.numbers.choice(np.array(["a", "b", "ab"] if texts else [0, 1, 3], dtype=object), x)
    n.give(0, values if texts else values.astype(NUMPY[n.dtype(0)]))
    n.choose("zeros", 1)


@plan("Scaler")
def scaler(n: Draft) -> None:
    columns = n.integer(1, 4)
    n.feed(0, (n.integer(1, 3), columns))
    count = n.pick([1, columns])
    n.set(scale=[n.uniform(0.5, 2) for _ in range(count)], offset=[n.uniform(-2, 2) for _ in range(count)])


@plan("ZipMap")
def zip_map(n: Draft) -> None:
    n.feed(0, (n.integer(1, 3), 3))
    n.set(classlabels_strings=["a", "b", "c"]) if n.chance(0.5) else n.set(classlabels_int64s=[5, 7, 9])


@plan("CastMap")
def cast_map(n: Draft) -> None:
    text = n.pick(n.allowed("T1"))
    values: list[Any] = ["1", "2.5"] if element(text) == "int64, string" or "string" in text else [1.0, 2.5]
    keys = sorted(n.random.sample(range(6), 2))
    n.give(0, dict(zip(keys, values)), text)
    n.choose("cast_to", "TO_FLOAT", "TO_STRING", "TO_INT64")
    n.choose("map_form", "DENSE", "SPARSE")
    n.set(max_map=7)


@plan("DictVectorizer")
def dict_vectorizer(n: Draft) -> None:
    text = n.pick(n.allowed("T1"))
    key, _, value = text[len("map(") : -1].partition(",")
    names: list[Any] = ["a", "b", "c"] if key == "string" else [1, 2, 3]
    n.set(string_vocabulary=names) if key == "string" else n.set(int64_vocabulary=names)
    values: list[Any] = ["x", "y"] if value.strip() == "string" else [2, 3]
    n.give(0, dict(zip(n.random.sample(names, 2), values)), text)


@plan("SVMRegressor")
def svm_regressor(n: Draft) -> None:
    features, vectors = n.integer(1, 3), n.integer(1, 4)
    _kernel(n)
    n.set(support_vectors=[n.uniform(-1, 1) for _ in range(vectors * features)], n_supports=vectors)
    n.set(coefficients=[n.uniform(-1, 1) for _ in range(vectors)], rho=[n.uniform(-1, 1)])
    n.choose("one_class", 0, 1)
    n.feed(0, (n.integer(1, 3), features))


def _kernel(n: Draft) -> None:
    n.choose("kernel_type", "LINEAR", "POLY", "RBF", "SIGMOID")
    n.set(kernel_params=[n.uniform(0.2, 1), n.uniform(0, 1), float(n.integer(1, 3))])


@plan("SVMClassifier")
def svm_classifier(n: Draft) -> None:
    features, classes = n.integer(1, 3), n.integer(2, 3)
    counts = n.integers(classes, 1, 2)
    vectors, pairs = sum(counts), classes * (classes - 1) // 2
    _kernel(n)
    n.set(support_vectors=[n.uniform(-1, 1) for _ in range(vectors * features)], vectors_per_class=counts)
    n.set(coefficients=[n.uniform(-1, 1) for _ in range(vectors * (classes - 1))])
    n.set(rho=[n.uniform(-1, 1) for _ in range(pairs)])
    if n.chance(0.5):
        n.set(prob_a=[n.uniform(-2, -0.5) for _ in range(pairs)], prob_b=[n.uniform(-1, 1) for _ in range(pairs)])
    _labels(n, classes, "classlabels_ints")
    n.feed(0, (n.integer(1, 3), features))
    n.outputs = 2


_COLUMNS = (
    "treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true",
)  # fmt: skip
_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def _trees(n: Draft, features: int) -> tuple[dict[str, list[Any]], list[tuple[int, int]]]:
    """Nodes of one tree or two, each of a root with one or two more branches; the leaves, by tree and node."""
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    leaves = []
    for tree in range(n.integer(1, 2)):
        deep = n.chance(0.5)
        branches = {0: (1, 2), 2: (3, 4)} if deep else {0: (1, 2)}
        for node in range(5 if deep else 3):
            yes, no = branches.get(node, (0, 0))
            mode = n.pick(_MODES) if node in branches else "LEAF"
            row = (tree, node, n.integer(0, features - 1), mode, n.uniform(-2, 2), yes, no, n.integer(0, 1))
            for column, value in zip(columns.values(), row):
                column.append(value)
            if node not in branches:
                leaves.append((tree, node))
    return columns, leaves


def _set_trees(n: Draft, features: int) -> list[tuple[int, int]]:
    columns, leaves = _trees(n, features)
    doubles = n.dtype(0) == "double" and n.has("nodes_values_as_tensor")
    if doubles:
        n.set(nodes_values_as_tensor=_tensor(columns.pop("values"), "double"))
    n.set(**{f"nodes_{name}": values for name, values in columns.items()})
    x = n.feed(0, (n.integer(1, 4), features))
    if kind(n.dtype(0)) == "float" and n.chance(0.2):
        x[0, 0] = np.nan
    return leaves


@plan("TreeEnsembleRegressor")
def tree_regressor(n: Draft) -> None:
    targets = n.integer(1, 3)
    leaves = _set_trees(n, n.integer(1, 3))
    rows = [(leaf, target) for leaf in leaves for target in range(targets)]
    weights = [n.uniform(-2, 2) for _ in rows]
    doubles = "nodes_values_as_tensor" in n.attributes
    n.set(**({"target_weights_as_tensor": _tensor(weights, "double")} if doubles else {"target_weights": weights}))
    n.set(target_treeids=[leaf[0] for leaf, _ in rows], target_nodeids=[leaf[1] for leaf, _ in rows])
    n.set(target_ids=[target for _, target in rows], n_targets=targets)
    n.choose("aggregate_function", "SUM", "AVERAGE", "MIN", "MAX")
    n.choose("post_transform", *_POST[:4])
    if n.chance(0.3):
        base = [n.uniform(-1, 1) for _ in range(targets)]
        n.set(**({"base_values_as_tensor": _tensor(base, "double")} if doubles else {"base_values": base}))


@plan("TreeEnsembleClassifier")
def tree_classifier(n: Draft) -> None:
    classes = n.integer(2, 4)
    leaves = _set_trees(n, n.integer(1, 3))
    rows = [(leaf, c) for leaf in leaves for c in range(classes) if c < 2 or n.chance(0.6)]
    weights = [n.uniform(0, 1) for _ in rows]
    doubles = "nodes_values_as_tensor" in n.attributes
    n.set(**({"class_weights_as_tensor": _tensor(weights, "double")} if doubles else {"class_weights": weights}))
    n.set(class_treeids=[leaf[0] for leaf, _ in rows], class_nodeids=[leaf[1] for leaf, _ in rows])
    n.set(class_ids=[c for _, c in rows])
    _labels(n, classes, "classlabels_int64s")
    n.choose("post_transform", *_POST[:4])
    n.outputs = 2


@plan("TreeEnsemble")
def tree_ensemble(n: Draft) -> None:
    """Version 5 numbers inner nodes and leaves apart; this is one tree of two branches, or the same twice."""
    features, targets = n.integer(1, 3), n.integer(1, 2)
    dtype, twice = n.dtype(0), n.chance(0.4)
    roots, leaves = ([0, 2] if twice else [0]), 6 if twice else 3
    trees = len(roots)
    n.set(tree_roots=roots, n_targets=targets)
    n.set(nodes_featureids=n.integers(2 * trees, 0, features - 1))
    n.set(nodes_splits=_tensor([n.uniform(-2, 2) for _ in range(2 * trees)], dtype))
    n.set(nodes_modes=_tensor(n.integers(2 * trees, 0, 5), "uint8"))
    n.set(nodes_truenodeids=[i for t in range(trees) for i in (2 * t + 1, 3 * t)], nodes_trueleafs=[0, 1] * trees)
    n.set(nodes_falsenodeids=[i for t in range(trees) for i in (3 * t + 1, 3 * t + 2)], nodes_falseleafs=[1, 1] * trees)
    n.set(leaf_targetids=n.integers(leaves, 0, targets - 1))
    n.set(leaf_weights=_tensor([n.uniform(-2, 2) for _ in range(leaves)], dtype))
    n.choose("aggregate_function", 0, 1, 2, 3)
    n.choose("post_transform", 0, 1, 2, 3)
    n.choose("nodes_missing_value_tracks_true", n.integers(2 * trees, 0, 1))
    n.feed(0, (n.integer(1, 4), features))
