"""Why a trial was proposed, kept or stopped: from the ledger alone."""

from __future__ import annotations

from collections.abc import Iterator

from optuna.trial import FrozenTrial, TrialState

from afi_search.study.ledger import DEATHS, ESTIMATED, PREDICTION, RUNG, STATE_WORDS, WEIGHED, curve

_ORIGINS = {
    "first": "is a baseline or stands in the space file's list, which come before the sampler",
    "neighbour": "differs in one stage from what the sampler named, which was tried or infeasible",
    "untried": "was drawn uniformly from what was left, as the sampler named nothing that was",
    "inherited": "was the best left by the accuracies that architectures inherit from the supernet",
    "supernet": "is the supernet; its accuracies are this architecture's, with inherited weights",
    "grid": "was next in the space's order",
}


def explain(trial: FrozenTrial) -> Iterator[str]:
    """Yield a line for each decision about a trial, in the order in which they were made."""
    facts = trial.user_attrs
    origin = facts["origin"]
    yield (
        f"Trial {trial.number}: {facts['architecture']}, seed {facts['seed']}, {facts['macs']:,} "
        f"MACs per image, {facts['params']:,} parameters."
    )
    yield f"It {_ORIGINS.get(origin, f'was proposed by the sampler {origin}')}."
    if PREDICTION in trial.system_attrs:
        mean, deviation = trial.system_attrs[PREDICTION]
        yield (
            f"Of all that was compared it promised to add most to the front at its cost: an "
            f"accuracy of {mean:.2%} +- {deviation:.2%} was predicted."
        )
    if WEIGHED in trial.system_attrs:
        inherited = trial.system_attrs[WEIGHED]
        yield f"With the weights of the supernet it had an accuracy of {inherited:.2%}."
    if ESTIMATED in trial.system_attrs:
        estimate = trial.system_attrs[ESTIMATED]
        yield (
            f"With the weights of the supernet it would have an accuracy of about {estimate:.2%}, "
            f"by those of its choices in other architectures; it was not scored itself."
        )
    if facts.get("init") == "inherited":
        yield (
            "Its training started with the weights that it inherits from the supernet, so that its "
            "accuracies are not those of a training from scratch."
        )
    accuracies = curve(trial)
    for epoch, accuracy in enumerate(accuracies, start=1):
        verdict = facts.get(f"{RUNG}{epoch}")
        if verdict is not None:
            told = verdict.replace(f" at epoch {epoch}", "", 1)  # as older ledgers say it
            yield f"Epoch {epoch}, accuracy {accuracy:.2%}: {told}."
    for death in facts.get(DEATHS, []):
        epoch, _, cause = death.partition(": ")
        yield f"After epoch {epoch} its worker died, and another resumed it: {cause}"
    yield _ending(trial, accuracies)


def _ending(trial: FrozenTrial, accuracies: list[float]) -> str:
    trained = f"{len(accuracies)} of {trial.user_attrs['epochs']} epochs"
    match trial.state:
        case TrialState.COMPLETE:
            return f"It is complete: {trained}, accuracy {accuracies[-1]:.2%}."
        case TrialState.FAIL:
            return f"It failed after {trained}: {trial.user_attrs.get('reason', 'why is lost')}."
        case TrialState.PRUNED:
            return f"It was pruned after {trained}."
        case _:
            return f"It is {STATE_WORDS[trial.state]}, after {trained}."
