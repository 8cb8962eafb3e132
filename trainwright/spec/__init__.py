"""Words: the experiment, its derived numbers, its paths and exit codes. A launch begins in `load`."""

from trainwright.spec.derived import Derived
from trainwright.spec.exits import Exit, Interrupted, MissingError, UserError, guarded
from trainwright.spec.experiment import Experiment, is_free, kinds
from trainwright.spec.load import Loaded, find_experiment, load_experiment
from trainwright.spec.paths import Places, RunFolder, Split, root_from

__all__ = [
    "Derived",
    "Exit",
    "Experiment",
    "Interrupted",
    "Loaded",
    "MissingError",
    "Places",
    "RunFolder",
    "Split",
    "UserError",
    "find_experiment",
    "guarded",
    "is_free",
    "kinds",
    "load_experiment",
    "root_from",
]
