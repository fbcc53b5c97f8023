"""Moving aliases, and the rules that protect them."""

from collections.abc import Mapping, Sequence

from loradeck_registry import layout
from loradeck_registry.aliases import protection
from loradeck_registry.aliases.log import AliasEntry, shares
from loradeck_registry.aliases.log import caller as this_process
from loradeck_registry.collection import leases
from loradeck_registry.parts.reading import Reading
from loradeck_registry.reference import Reference, check_alias, check_name


class Pointing(Reading):
    """The part of `Registry` that moves aliases."""

    def move_alias(
        self,
        name: str,
        alias: str,
        target: str | Mapping[str, float],
        *,
        expect: int | None = None,
        who: str = "",
        why: str = "",
        rules: Sequence[str] = (),
    ) -> AliasEntry:
        """Point `name@alias` at `target`: a number, another alias, `latest` or `sha256:…`, with or without `name@`.

        A mapping from such targets to weights makes a weighted alias. `expect` is the revision the alias must point to
        now (of a weighted one that with the largest share), 0 if it must not exist yet. Raises ConflictError
        (ALIAS_MOVED) when somebody else moved it, NotFoundError for an unknown target, PreconditionError (GATE_FAILED)
        when a target fails the rules that protect the alias, or `rules`, which are asked of this move in addition.
        """
        check_alias(alias)
        wanted = {target: 1.0} if isinstance(target, str) else dict(target)
        found = {text: self._within(name, text) for text in wanted}
        held = leases.take(self._store, f"alias-{this_process()}", {revision.digest for revision in found.values()})
        with held:
            for revision in found.values():
                if self._store.size(layout.revision(name, revision.number)) is None:
                    raise self._retired(name, revision.number)
            targets = shares([(found[text].number, found[text].digest, weight) for text, weight in wanted.items()])
            gate = protection.gate(self._store, name, alias, targets, rules)
            return self._alias(name, alias).move(targets, expect=expect, who=who, why=why, check=gate)

    def rollback(self, name: str, alias: str, *, who: str = "", why: str = "") -> AliasEntry:
        """Point the alias where it pointed before, as one more entry of its log; again, further back.

        Raises NotFoundError (no such alias), PreconditionError (nothing before), ConflictError (moved meanwhile).
        """
        self.resolve(Reference(check_name(name), alias=check_alias(alias)))
        return self._alias(name, alias).rollback(who=who, why=why)

    def history(self, name: str, alias: str) -> list[AliasEntry]:
        """Every move of an alias, newest first. Raises NotFoundError."""
        self.resolve(Reference(check_name(name), alias=check_alias(alias)))
        return self._alias(name, alias).history()

    def protect(self, name: str, alias: str, rules: Sequence[str], *, who: str = "", why: str = "") -> None:
        """Demand of every revision that `name@alias` is pointed to from now on that it passes `rules`; none lifts it.

        A rule is `metric >= number` or `metric >= @alias - number`, over the metrics of the attached evaluations.
        Raises InvalidError (BAD_RULE), NotFoundError (no such name).
        """
        self._check_known(check_name(name))
        protection.protect(self._store, name, check_alias(alias), rules, who=who, why=why)

    def rules(self, name: str, alias: str) -> list[str]:
        """The rules that protect an alias now; none if it is not protected."""
        return protection.rules(self._store, check_name(name), check_alias(alias))
