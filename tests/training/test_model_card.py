"""The card prints the numbers of the epoch whose weights are kept."""

import pytest

from sightline.training.model_card import find_kept_epoch

ROWS = [
    {"epoch": "0", "val_loss": "0.70", "val_auc": "0.81"},
    {"epoch": "1", "val_loss": "0.55", "val_auc": "0.90"},
    {"epoch": "2", "val_loss": "0.50", "val_auc": "0.90"},
    {"epoch": "3", "val_loss": "0.62", "val_auc": ""},
]


@pytest.mark.parametrize(("select", "kept"), [("auc", 1), ("loss", 2), ("last", 3), ("f1", 3)])
def test_the_first_of_the_best_epochs_is_kept_and_the_last_where_nothing_chose(select, kept):
    assert find_kept_epoch(ROWS, select) == kept
