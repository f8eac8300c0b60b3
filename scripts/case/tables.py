"""The tables of case.toml that are the same whatever form its data has, declared once.

What read_case accepts, the commented file of `make new` and docs/case.schema.json come from this
declaration: a table is a class and a key a field; `description` is the comment beside the key, and
`examples` what stands there in place of an empty default. pydantic takes time to import, so this is
imported only where case.toml is read.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from scripts.case.keys import Head
from scripts.case.limits import (
    Budget,
    Column,
    Confidence,
    FlipRate,
    MaxBatch,
    Plain,
    PrecisionSlack,
    RecallSlack,
    Says,
    Weight,
)
from scripts.case.rules import Objective, Policy, Rules


class Table(BaseModel):
    """No key but those declared, and no value turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class Torch(Table):
    """A trained PyTorch module, from its .pth."""

    family: Literal["torch"] = Field(
        "torch", description="the kind of model; torch: a trained PyTorch module, a .pth"
    )
    factory: str = Field(
        description='a function in a file beside this one, or "package.module:callable", '
        "that returns the torch.nn.Module",
        examples=["model.py:build"],
    )
    arguments: dict[str, Any] = Field(
        {}, description="keyword arguments for it", examples=[{"width": 8}]
    )
    weights: Plain = Field(
        description="a state_dict, a checkpoint that holds one, or a TorchScript archive",
        examples=["weights.pth"],
    )
    weights_key: str | None = Field(
        None,
        description="which entry of the checkpoint, where that is not obvious",
        examples=["ema"],
    )
    head: Head = Field(
        description="what the output is:\n"
        '  "logit"        one number per sample, (n,) or (n, 1)\n'
        '  "two_logits"   (n, 2), before the softmax\n'
        '  "multiclass"   (n, k), before the softmax; needs positive_class\n'
        '  "probability"  after a sigmoid, (n,) or (n, 1), or softmax, (n, k)',
        examples=["logit"],
    )
    positive_class: Column | None = Field(
        None,
        description="the column of the positive class; 0 also turns a single logit round",
        examples=[1],
    )
    output: int | str | None = Field(
        None,
        description="which output counts, when there are several: its place or its name",
        examples=[0],
    )
    max_batch: MaxBatch = Field(
        description="the largest batch that production will send", examples=[32]
    )

    @model_validator(mode="after")
    def _check_positive_class(self) -> "Torch":
        column = self.positive_class
        if self.head == "multiclass" and column is None:
            raise ValueError(
                "head is 'multiclass': positive_class must say which class is positive."
            )
        if self.head in ("logit", "two_logits") and column is not None and column > 1:
            raise ValueError(
                f"positive_class is {column}; with the head {self.head!r} it is 0 or 1."
            )
        return self


def _with_family(table: Any) -> Any:
    return {"family": "torch"} | table if isinstance(table, dict) else table


# Each family of models has a class of its own, with the keys that are true of it alone.
MODELS: dict[str, type[Table]] = {"torch": Torch}
Model = Annotated[Torch, Field(discriminator="family"), BeforeValidator(_with_family)]


class Threshold(Table):
    """How the threshold is chosen."""

    policy: Policy = Field(
        Rules.policy,
        description="of the thresholds that reach the precision the one of the highest recall, "
        'or "widest_gap": the one farthest from any sample',
    )
    recall_slack: RecallSlack = Field(
        Rules.recall_slack, description='the share of that recall that "widest_gap" may give up'
    )
    guarantee: Confidence | None = Field(
        Rules.guarantee,
        description="not by default: with this confidence the precision holds on new data",
        examples=[0.95],
    )

    @model_validator(mode="after")
    def _check_guarantee(self) -> "Threshold":
        if self.guarantee is not None and self.policy == "widest_gap":
            raise ValueError(
                "[threshold] asks for policy = 'widest_gap' and for a guarantee, and the guarantee "
                "chooses the threshold by itself; leave one of the two out."
            )
        return self


class Gates(Table):
    """What a variant must meet to be released."""

    flip_rate: FlipRate = Field(
        Rules.flip_rate, description="the largest share of new samples whose verdict may flip"
    )
    confidence: Confidence = Field(Rules.confidence, description="of all bounds")
    zero_flips: bool = Field(
        Rules.zero_flips, description="true: no sample of the test data may flip either"
    )
    precision_slack: PrecisionSlack = Field(
        Rules.precision_slack,
        description="how far the lower bound of the precision may lie below the precision",
    )
    latency_p99_ms: Budget | None = Field(
        Rules.latency_p99_ms,
        description="a budget in milliseconds, none by default",
        examples=[20.0],
    )
    memory_mb: Budget | None = Field(
        Rules.memory_mb, description="a budget in megabytes, none by default", examples=[500.0]
    )


class Weights(Table):
    """What counts in the ranking, and how much."""

    latency: Weight = Field(0, description="the weight of the latency")
    throughput: Weight = Field(0, description="the weight of the throughput")
    memory: Weight = Field(0, description="the weight of the memory")
    size: Weight = Field(0, description="the weight of the file's size")


def _some_weight(weights: Weights) -> Weights:
    if not any(value for _, value in weights):
        raise ValueError
    return weights


class Ranking(Table):
    """What ranks the variants that may be released."""

    objective: Objective = Field("latency", description='or "throughput", "memory", "size"')
    weights: (
        Annotated[
            Weights,
            AfterValidator(_some_weight),
            Says("{name} is {value}; at least one weight must be above 0."),
        ]
        | None
    ) = Field(
        None,
        description="instead of it: several of these, by weight",
        examples=[{"latency": 0.7, "size": 0.3}],
    )

    @model_validator(mode="after")
    def _check_one(self) -> "Ranking":
        if self.weights is not None and "objective" in self.model_fields_set:
            raise ValueError("[ranking] holds objective and weights; keep one of the two.")
        return self
