import numpy as np
import pytest

from hyperofa.bundle.bundle import Bundle
from hyperofa.export.prediction import predict
from hyperofa.training.hypernetwork import Hypernetwork


@pytest.mark.parametrize("name", ["fit", "tokens"])
def test_the_batch_size_does_not_matter(name, fitted, bundles):
    bundle = Bundle.load(bundles["bert"])
    trained = Hypernetwork.load(fitted[name] / "checkpoints" / "best.ckpt", bundle)
    rows = [predict(trained, bundle, batch_size) for batch_size in (1, 17, 1024)]
    for other in rows[1:]:
        np.testing.assert_array_equal(other.known, bundle.target.covered)
        np.testing.assert_allclose(other.coordinates, rows[0].coordinates, rtol=1e-4, atol=1e-5)
    assert rows[0].coordinates[rows[0].known].any(1).all()
    assert rows[0].mixture is None


def test_a_checkpoint_remembers_how_it_was_trained(fitted, bundles):
    trained = Hypernetwork.load(fitted["fit"] / "checkpoints" / "best.ckpt", Bundle.load(bundles["bert"]))
    assert type(trained.net).__name__ == "SourceAttention"
    assert not trained.net.training
    assert trained.copied == ("role", "symbol", "native")  # it has a head
    assert trained.max_words == 32
