from pathlib import Path

import numpy as np
import onnx
import pytest

from nelbo.errors import BundleError
from nelbo.records import Batch
from nelbo.scoring import Graph
from tests.fits import QUICK, mixed_table, write_csv
from training.data import Data, load
from training.export import PARITY, adversarial, check_parity, export
from training.fit import fit
from training.layout import lay_out
from training.vae import VAE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[VAE, Data, bytes]:
    data = load(write_csv(mixed_table(), tmp_path_factory.mktemp("t") / "t.csv"), None, None, None, 0)
    part = data.part(data.split.fit)
    vae = fit(lay_out(data.schema, part), part, QUICK, 0).vae
    return vae, data, export(vae, data.schema)


def test_graph_computes_what_the_model_does_on_ten_thousand_adversarial_records(
    made: tuple[VAE, Data, bytes],
) -> None:
    vae, data, graph = made
    parity = check_parity(vae, data.schema, graph, data.normal, 0)
    assert parity.n_records == 10_000
    assert parity.largest <= PARITY == 1e-4


def test_graph_of_another_model_is_refused(made: tuple[VAE, Data, bytes]) -> None:
    vae, data, graph = made
    part = data.part(data.split.fit)
    other = fit(lay_out(data.schema, part), part, QUICK, seed=1).vae
    with pytest.raises(BundleError, match="differ from the model's by"):
        check_parity(other, data.schema, graph, data.normal, 0)
    check_parity(vae, data.schema, graph, data.normal, 0)


def test_adversarial_records_hold_what_nobody_should_send(made: tuple[VAE, Data, bytes]) -> None:
    _, data, _ = made
    numbers, codes, hidden = adversarial(data.schema, data.normal, np.random.default_rng(0))
    assert np.nanmax(numbers) > 1e308
    assert np.nanmin(numbers) < -1e308
    assert (np.abs(numbers[numbers != 0]) < 1e-300).any()
    assert (np.isnan(numbers).all(axis=1) & (codes < 0).all(axis=1)).any()
    assert hidden.all(axis=1).any()
    for j, column in enumerate(data.schema.codes):
        assert set(np.unique(codes[:, j])) == set(range(-1, column.n_codes))


def test_graph_tells_nothing_of_the_machine_that_made_it(made: tuple[VAE, Data, bytes]) -> None:
    _, _, graph = made
    assert str(Path(__file__).parents[2]).encode() not in graph
    model = onnx.load_from_string(graph)
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_graph_takes_no_record_and_many(made: tuple[VAE, Data, bytes]) -> None:
    _, data, graph = made
    session = Graph(data.schema, graph, "the graph")
    for n in (0, 1, 3000):
        rows = np.zeros(n, dtype=np.int64)
        batch = Batch(data.normal.numbers[rows], data.normal.codes[rows], rows, [None] * n, {})
        assert session.run(batch).contributions.shape == (n, len(data.schema.fields))
