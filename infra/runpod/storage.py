"""What a network volume costs, and how much of it an experiment needs."""

from dataclasses import dataclass

from trainwright.spec.derived import Derived
from trainwright.spec.experiment import Experiment

GB = 1e9
DOLLARS_GB_MONTH = 0.07
"""Of a STANDARD volume up to 1 TB, by RunPod's price list of August 2026."""
DOLLARS_GB_MONTH_ABOVE = 0.05
LOWER_PRICE_ABOVE_GB = 1000
TEXT_BYTES_PER_TOKEN = 4.5
"""English prose in a vocabulary of 32,000 to 50,000 entries."""
COMPRESSION = 2.6
"""Of text shards, by zstandard at its usual level."""
TOKENS_PER_DOCUMENT = 690
"""Of FineWeb, in GPT-2's vocabulary."""
STATE_BYTES_PER_PARAMETER = 12
"""Weights and both moments in fp32."""


def monthly_dollars(size_gb: int) -> float:
    """Return what a STANDARD volume costs a month."""
    above = max(0, size_gb - LOWER_PRICE_ABOVE_GB)
    return (size_gb - above) * DOLLARS_GB_MONTH + above * DOLLARS_GB_MONTH_ABOVE


@dataclass(frozen=True, slots=True)
class Needs:
    """What an experiment writes onto its volume, in GB; an estimate."""

    text: float
    tokens: float
    checkpoints: float

    @property
    def total(self) -> float:
        """Return all of it with a tenth of air, for caches and logs."""
        return 1.1 * (self.text + self.tokens + self.checkpoints)

    def __str__(self) -> str:
        parts = f"text {self.text:,.0f}, tokens {self.tokens:,.0f}, checkpoints {self.checkpoints:,.0f}"
        return f"about {self.total:,.0f} GB ({parts}, and a tenth of air)"


def needs(experiment: Experiment) -> Needs:
    """Return what an experiment needs: its corpus once, and the checkpoints it keeps, one more while one is saved."""
    derived, kept = Derived(experiment), experiment.checkpoint
    seen = derived.steps * derived.tokens_per_step
    tokens = min(seen, _corpus_tokens(experiment) or seen)
    width = 2 if derived.vocab_size <= 1 << 16 else 4
    studied = 0
    if kept.eval.every_steps is not None:
        made = derived.steps // kept.eval.every_steps
        studied = min(made, kept.eval.keep) if kept.eval.keep is not None else made
    checkpoints = (kept.dump.keep + 1 + studied) * derived.num_parameters * STATE_BYTES_PER_PARAMETER
    text = tokens * TEXT_BYTES_PER_TOKEN / COMPRESSION if experiment.data.shard else 0.0
    return Needs(text / GB, tokens * width / GB, checkpoints / GB)


def _corpus_tokens(experiment: Experiment) -> float | None:
    """Return the tokens of a FineWeb sample, which say so in their names; None when nothing is known."""
    source = experiment.data.source
    name = source.config if source.kind == "fineweb" else ""
    if not name.startswith("sample-") or not name.endswith("BT"):
        return None
    documents = source.take if source.kind == "fineweb" else None
    whole = float(name.removeprefix("sample-").removesuffix("BT")) * 1e9
    return min(whole, documents * TOKENS_PER_DOCUMENT) if documents is not None else whole
