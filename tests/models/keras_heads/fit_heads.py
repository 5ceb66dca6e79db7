"""Fit heads with Keras as the authors' ABAW3 notebook does (A3 cN: its cell N), from given weights and orders of rows.

``python fit_heads.py FOLDER``: for each ``NAME.npz`` in the folder, write ``NAME.outputs.npz``. Needs tf_keras,
which has the losses and optimizers of the Keras that the notebook used (TensorFlow 2.4.1).
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import backend, layers, regularizers


def ccc(truth, value):
    covariance = backend.mean((truth - backend.mean(truth)) * (value - backend.mean(value)))
    difference = backend.mean(truth) - backend.mean(value)
    return 2 * covariance / (backend.var(truth) + backend.var(value) + difference**2 + backend.epsilon())


def ccc_loss(truth, value):
    """A3 c33, c100."""
    return 1 - 0.5 * (ccc(truth[:, 0], value[:, 0]) + ccc(truth[:, 1], value[:, 1]))


def unit_loss(labels, *, axis):
    """A3 c78, c79 (the mean over units), c98, c102 (the mean over everything)."""
    positives, count = labels.sum(axis=0), len(labels)
    weight = np.stack([count / 2 / (count - positives), count / 2 / positives])

    def loss(truth, value):
        truth = tf.cast(truth, value.dtype)
        factor = (weight[0] ** (1 - truth)) * (weight[1] ** truth)
        return backend.mean(factor * backend.binary_crossentropy(truth, value), axis=axis)

    return loss


def class_weights(labels):
    """A3 c38, c97."""
    counts = np.bincount(labels, minlength=8)
    return counts.max() / counts


class ExpressionLoss(tf_keras.losses.Loss):
    """A3 c101: cross entropies [n] times the weights of labels [n, 1], which Keras expands from [n]."""

    def __init__(self, weights):
        super().__init__(reduction=tf_keras.losses.Reduction.NONE)
        self.weights = weights
        self.entropy = tf_keras.losses.SparseCategoricalCrossentropy(reduction=tf_keras.losses.Reduction.NONE)

    def __call__(self, truth, value, sample_weight=None):
        weight = tf.gather(tf.constant(self.weights, value.dtype), tf.cast(truth, tf.int64))
        return backend.mean(self.entropy(truth, value) * weight)


def dense(size, activation, penalty):
    regularizer = regularizers.l2(penalty) if penalty else None
    return layers.Dense(size, activation=activation, kernel_regularizer=regularizer)


def single_task(case):
    """A3 c39, c64, c81."""
    size, activation = {"expr": (8, "softmax"), "va": (2, "tanh"), "au": (12, "sigmoid")}[case["task"]]
    model = tf_keras.Sequential([tf_keras.Input(case["x"].shape[1:])])
    if case["hidden"]:
        model.add(dense(case["hidden"], "relu", case["l2"]))
    model.add(dense(size, activation, case["l2"]))
    labels, loss = case[case["task"]], ccc_loss
    if case["task"] == "au":
        loss = unit_loss(labels, axis=-1)
    if case["task"] == "expr":
        loss = "sparse_categorical_crossentropy"
    model.compile(tf_keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"] if case["task"] == "expr" else None)
    weights = {"class_weight": dict(enumerate(class_weights(labels)))} if case["task"] == "expr" else {}
    return model, [model], weights, lambda prefix: ([case[f"{prefix}x"]], [case[f"{prefix}{case['task']}"]])


def multi_task(case):
    """A3 c103, c104: outputs are multiplied by masks."""
    x, masks = tf_keras.Input(case["x"].shape[1:]), [tf_keras.Input((1,)) for _ in range(3)]
    hidden = dense(case["hidden"], "relu", case["l2"])(x) if case["hidden"] else x
    outputs = [dense(n, name, case["l2"])(hidden) for n, name in ((2, "tanh"), (8, "softmax"), (12, "sigmoid"))]
    masked = [layers.Multiply()([output, mask]) for output, mask in zip(outputs, masks, strict=True)]
    model = tf_keras.Model([x, *masks], masked)
    expr, au = case["expr"][case["expr_mask"] == 1], case["au"][case["au_mask"] == 1]
    losses = [ccc_loss, ExpressionLoss(class_weights(expr)), unit_loss(au, axis=None)]
    model.compile(tf_keras.optimizers.Adam(1e-3), loss=losses)

    def data(prefix):
        names = ("va", "expr", "au")
        masks_of = [case[f"{prefix}{name}_mask"] for name in names]
        return [case[f"{prefix}x"], *masks_of], [case[f"{prefix}{name}"] for name in names]

    return model, [tf_keras.Model(x, output) for output in outputs], {}, data


def one_or_all(arrays):
    """Keras accepts class weights only if there is no list of outputs."""
    return arrays[0] if len(arrays) == 1 else arrays


def fit(case):
    """Fit in the given order of rows, keep the best epoch (A3 c30), and return the outputs for all validation rows."""
    model, parts, options, data = (multi_task if case["task"] == "mtl" else single_task)(case)
    kernels = [case[f"start{number}"].T for number in range(len(model.get_weights()) // 2)]
    model.set_weights([array for kernel in kernels for array in (kernel, np.zeros(kernel.shape[1]))])
    checkpoint, best, kept, values = case["checkpoint"], -np.inf, None, []
    for order in case["orders"]:
        history = model.fit(
            *(one_or_all([array[order] for array in arrays]) for arrays in data("")),
            batch_size=case["batch_size"],
            epochs=1,
            shuffle=False,
            verbose=0,
            validation_data=tuple(one_or_all(arrays) for arrays in data("held_")),
            **options,
        ).history
        values.append(history[checkpoint][0])
        score = values[-1] if checkpoint == "val_accuracy" else -values[-1]
        if score > best:
            best, kept = score, model.get_weights()
    model.set_weights(kept)
    outputs = [part.predict(case["held_x"], verbose=0) for part in parts]
    return {"checkpoints": values} | {f"output{number}": array for number, array in enumerate(outputs)}


def main(folder):
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as file:
            case = {name: array if array.ndim else array.item() for name, array in file.items()}
        np.savez(path.with_suffix(".outputs.npz"), **fit(case))


if __name__ == "__main__":
    main(*sys.argv[1:])
