"""A session over a graph: one thread that does not spin, on the processor, with nothing but the bytes at hand."""

import os

# From 1.31 on, onnxruntime's published builds send usage data to their maker on Linux too, and keep a device id in
# ~/.cache, unless told not to before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort


def open_session(graph: bytes) -> ort.InferenceSession:
    """A session; what onnxruntime has to say of the graph it says in exceptions alone, of a dozen unrelated types."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The default threads spin for work and burned 3 times the CPU of the arithmetic itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    # Weights in files of their own are refused: the bytes at hand are all that was verified.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
