"""Select the heads of a store that serve a request, and the post-processing of each: one rule for all flows.

A head of a single task wins over a multi-task head, and a head that was fitted by a later version of a recipe over one
that was fitted by an earlier version in the same way. Several other candidates are refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from data_contracts.details.heads import ZERO_SHOT, HeadDetails, PostprocessingDetails
from data_contracts.errors import InputError, counted
from data_contracts.store.bundles import Bundle, damaged_bundles, list_bundles, match_bundles, written_at
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES, BRANCHES_OF_TASK, BranchName, TaskName


@dataclass(frozen=True)
class ServingHead:
    """A head, the branches that it serves, and its post-processing (None: decisions without tuning).

    ``why``: the reason for this head, for people.
    """

    head: Bundle
    branches: tuple[BranchName, ...]
    postprocessing: Bundle | None = None
    why: str = ""


def fitted_heads(store: Store) -> list[Bundle]:
    """Return the heads that were fitted, by name. The classes of a backbone are a head only until one is fitted.

    Raises:
        InputError: a head is damaged, so that it is unknown which heads serve.
    """
    heads = list_bundles(store, "heads")
    for name in damaged_bundles(store, "heads", heads):
        if f"-{ZERO_SHOT}-" not in name:
            raise _damage(store, "heads", name)
    return [head for head in heads if HeadDetails.of(head).recipe != ZERO_SHOT]


def _damage(store: Store, kind: str, name: str) -> InputError:
    what = "remove the head with affwild2 forget --head" if kind == "heads" else "delete the folder"
    return InputError(
        f"{store.locate(f'{kind}/{name}')}: expected the files that fit wrote, found missing or changed ones; run fit "
        f"again, or {what}"
    )


def heads_of_task(heads: Iterable[Bundle], task: TaskName, *, for_submission: bool = False) -> list[Bundle]:
    """Return the candidates for a task: the heads of this task or, without any, the multi-task heads.

    ``for_submission``: no multi-task heads for a single task, whose challenges allow only labels of this task.
    """
    of_task: dict[TaskName, list[Bundle]] = {}
    for head in heads:
        of_task.setdefault(HeadDetails.of(head).task, []).append(head)
    return of_task.get(task, []) or ([] if for_submission else of_task.get("mtl", []))


def supersedes(newer: Bundle, older: Bundle) -> bool:
    """Return whether a head was fitted as another one was, by a later version of the same recipe."""
    one, other = HeadDetails.of(newer), HeadDetails.of(older)
    return _way_of(one) == _way_of(other) and (one.recipe_version or 1) > (other.recipe_version or 1)


def _way_of(head: HeadDetails) -> tuple[object, ...]:
    # Earlier versions did not store the sets.
    return head.task, head.recipe, head.kind, head.backbone, head.source, head.trained_on or ("train",)


def _latest(heads: Sequence[Bundle]) -> list[Bundle]:
    """Return the heads without those that another one supersedes."""
    return [head for head in heads if not any(supersedes(other, head) for other in heads)]


def describe_superseded(head: Bundle, heads: Iterable[Bundle]) -> str | None:
    """Return why a head was selected instead of older ones among ``heads``, in one line; None if it supersedes none."""
    older = [other.name for other in heads if supersedes(head, other)]
    details = HeadDetails.of(head)
    way = f"version {details.recipe_version} of recipe {details.recipe} supersedes {', '.join(older)}"
    return f"{way} (choose with --head)" if older else None


def select_heads(
    store: Store,
    names: Sequence[str] | None = None,
    *,
    postprocessings: Sequence[str] | None = None,
    among: Sequence[Bundle] | None = None,
) -> list[ServingHead]:
    """Select a head for each branch: among the named heads, else ``among`` heads, else among all fitted ones.

    The result is empty if there are none. ``postprocessings``: names, at most one for each selected head.

    Raises:
        InputError: several heads serve a branch, a name matches no head, or a named head serves nothing; or see
            ``select_postprocessings``.
    """
    known = fitted_heads(store) if among is None else among
    heads: Sequence[Bundle] = _latest(known)
    if names:
        heads = list({head.name: head for head in (find_head(store, name) for name in names)}.values())
    served: dict[str, tuple[Bundle, list[BranchName]]] = {}
    problems = []
    for branch in BRANCHES:
        candidates = heads_of_task(heads, branch)
        if len(candidates) > 1:
            problems.append(
                f"several serve {branch}: {describe_heads(store, candidates)}; {_newest(store, candidates)}"
            )
        for head in candidates[:1]:
            served.setdefault(head.name, (head, []))[1].append(branch)
    if problems:
        what = "name one head for each task with --head" if names else "choose one for each task with --head"
        raise InputError(f"heads in {store.url}: {'; '.join(problems)}; {what}")
    if names and (idle := [head.name for head in heads if head.name not in served]):
        raise InputError(f"--head {idle[0]}: serves no task, because {', '.join(served)} serve all; leave it out")
    rules = select_postprocessings(store, [head for head, _ in served.values()], postprocessings)
    return [
        ServingHead(head, tuple(branches), rules[name], _reason(head, branches, None if names else known))
        for name, (head, branches) in sorted(served.items())
    ]


def _newest(store: Store, heads: Sequence[Bundle]) -> str:
    return f"the newest is {max(heads, key=lambda head: written_at(store, head)).name}"


def _reason(head: Bundle, branches: Sequence[BranchName], known: Sequence[Bundle] | None) -> str:
    """Return why a head serves these branches. ``known``: the heads that it was selected from; None: it is named."""
    task = HeadDetails.of(head).task
    others = [branch for branch in BRANCHES if branch not in branches]
    shared = f"; {' and '.join(others)} from heads of their own" if task == "mtl" and others else ""
    if known is None:
        return f"named with --head{shared}"
    return (describe_superseded(head, known) or f"the only head for {task}") + shared


def select_head_of_submission(
    store: Store, task: TaskName, name: str | None = None, *, allow_other_labels: bool = False
) -> Bundle:
    """Select the head for a submission: the named one, or the only one that was fitted for the task.

    Args:
        store: the store.
        task: of the submission.
        name: of the head, or its beginning.
        allow_other_labels: also a head of the task that was fitted on labels of other tasks, too, such as a blend.

    Raises:
        InputError: no head of the task, several, or the named one is of another task or was fitted on other labels.
    """
    heads = [find_head(store, name)] if name else _latest(fitted_heads(store))
    candidates = heads_of_task(heads, task, for_submission=True)
    if len(candidates) == 1:
        foreign = [one for one in HeadDetails.of(candidates[0]).labels if one not in BRANCHES_OF_TASK[task]]
        if foreign and not allow_other_labels:
            raise InputError(
                f"head {candidates[0].name}: expected labels of {task} alone, got also those of {', '.join(foreign)}; "
                "challenges of a single task allow only labels of that task; pass --allow-other-labels to use it"
            )
        return candidates[0]
    if candidates:
        listed = f"{describe_heads(store, candidates)}; {_newest(store, candidates)}"
        raise InputError(f"heads in {store.url}: several serve {task}: {listed}; choose one with --head")
    found = ", ".join(f"{head.name} ({HeadDetails.of(head).task})" for head in heads) or "none"
    others = {HeadDetails.of(head).task for head in heads}
    why = "; challenges of a single task allow only labels of that task" if "mtl" in others else ""
    raise InputError(f"heads in {store.url}: expected one for {task}, found: {found}{why}; run fit {task}")


def find_head(store: Store, name: str, *, option: str = "--head") -> Bundle:
    """Return the head with this name, or the only one whose name starts with it.

    Raises:
        InputError: no head matches, or several do.
    """
    heads = list_bundles(store, "heads")
    matches = match_bundles(heads, name)
    if len(matches) == 1:
        return matches[0]
    if not matches and (damaged := [one for one in damaged_bundles(store, "heads", heads) if one.startswith(name)]):
        raise _damage(store, "heads", damaged[0])
    problem = "several match" if matches else "none matches"
    listed = describe_heads(store, matches or heads) or "none"
    raise InputError(f"{option} {name}: expected the name of one head in {store.url}, {problem}; found: {listed}")


def describe_heads(store: Store, heads: Iterable[Bundle]) -> str:
    """Return names, settings and dates of heads in one line."""
    return "; ".join(f"{h.name} ({HeadDetails.of(h).format_settings()}, {date_of(store, h)})" for h in heads)


def select_postprocessings(
    store: Store, heads: Sequence[Bundle], names: Sequence[str] | None = None
) -> dict[str, Bundle | None]:
    """Select a post-processing for each head: the named one, or the only one; None if there is none.

    Raises:
        InputError: a head has several and none of them is named, or a name matches none of these heads, or several.
    """
    rules: dict[str, list[Bundle]] = {head.name: [] for head in heads}
    complete = list_bundles(store, "postprocessing")
    for name in damaged_bundles(store, "postprocessing", complete):
        # Names of post-processings start with the name of their head.
        if name.startswith(tuple(f"{head}-" for head in rules)):
            raise _damage(store, "postprocessing", name)
    for rule in complete:
        rules.get(PostprocessingDetails.of(rule).head, []).append(rule)
    known = [rule for found in rules.values() for rule in found]
    named: dict[str, dict[str, Bundle]] = {}
    for name in names or ():
        matches = match_bundles(known, name)
        if len(matches) != 1:
            none = f"none of {', '.join(rules)} matches" if rules else "no head was fitted"
            problem = "several match" if matches else none
            raise InputError(
                f"--postprocessing {name}: expected the name of one, {problem}; found: "
                f"{_describe_rules(store, matches or known) or 'none'}"
            )
        named.setdefault(PostprocessingDetails.of(matches[0]).head, {})[matches[0].name] = matches[0]
    for head, found in rules.items():
        chosen = list(named[head].values()) if head in named else found
        if len(chosen) > 1:
            raise InputError(
                f"head {head}: expected one post-processing, found several: {_describe_rules(store, chosen)}; "
                "choose one with --postprocessing"
            )
        rules[head] = chosen
    return {head: next(iter(found), None) for head, found in rules.items()}


def _describe_rules(store: Store, rules: Iterable[Bundle]) -> str:
    described = []
    for rule in rules:
        details = PostprocessingDetails.of(rule)
        subjects = counted(len(details.subjects), "subject")
        described.append(f"{rule.name} (recipe {details.tuning}, tuned on {subjects}, {date_of(store, rule)})")
    return "; ".join(described)


def date_of(store: Store, bundle: Bundle) -> str:
    """Return when a bundle was written, for people."""
    return datetime.fromtimestamp(written_at(store, bundle), UTC).strftime("%Y-%m-%d %H:%M UTC")
