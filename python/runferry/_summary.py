"""`Summary`: one value per metric: what the user set, over the last value logged.

Reads are local: the writer keeps the last value of every path. A set value is published as the changed top-level key and
hides the logged one. Nested values are read and set as nested dicts; `log({"a": {"b": 1}})` is read as `summary["a"]["b"]` and as
`summary["a.b"]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runferry._config_values import as_mapping, config_value

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView


class Summary:
    """Dict-like, with `update` and attributes; `_wandb` is hidden from `keys`.

    Args:
        last_values: Gives the last logged value of each path.
        publish: Called with changed values and removed keys after each change.
        earlier: Values of the run before this start of it; anything newer hides them.
    """

    def __init__(
        self,
        last_values: Callable[[], Mapping[str, Any]],
        publish: Callable[[dict[str, Any], list[str]], object] | None = None,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        object.__setattr__(self, "_last_values", last_values)
        object.__setattr__(self, "_publish", publish)
        object.__setattr__(self, "_earlier", dict(earlier or {}))
        object.__setattr__(self, "_set", {})

    _last_values: Callable[[], Mapping[str, Any]]
    _publish: Callable[[dict[str, Any], list[str]], object] | None
    _earlier: dict[str, Any]
    _set: dict[str, Any]

    def update(self, d: object) -> None:
        """Set several keys.

        Raises:
            TypeError: `d` is no mapping, or a value has no form in the summary.
        """
        changed = {str(key): _summary_value(str(key), value) for key, value in as_mapping(d).items()}
        self._set.update(changed)
        if changed and self._publish is not None:
            self._publish(changed, [])

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        try:
            return self[key]
        except KeyError:
            return default

    def keys(self) -> KeysView[str]:
        """Top-level names and dotted paths, without `_wandb`."""
        return self._all().keys()

    def items(self) -> ItemsView[str, Any]:
        """Keys and values."""
        return self._all().items()

    def values(self) -> ValuesView[Any]:
        """Values."""
        return self._all().values()

    def as_dict(self) -> dict[str, Any]:
        """A copy of all items."""
        return self._all()

    def _all(self) -> dict[str, Any]:
        merged = {**self._earlier, **self._last_values()}
        for key in self._set:  # what was logged below a key that was set is hidden by it
            for path in [path for path in merged if path.startswith(key + ".")]:
                del merged[path]
        merged.update(self._set)
        merged.pop("_wandb", None)
        return merged

    def __getitem__(self, key: str) -> Any:
        """The value of a key, or the nested view of the paths below it; KeyError without either."""
        items = self._all()
        if key in items:
            value = items[key]
            return SubSummary(self, key, value) if isinstance(value, dict) and value.get("_type") is None else value
        head, _, rest = key.partition(".")
        if rest and isinstance(items.get(head), dict):
            return self[head][rest]
        below = {path[len(key) + 1 :]: value for path, value in items.items() if path.startswith(key + ".")}
        if not below:
            raise KeyError(key)
        return SubSummary(self, key, _nested(below))

    def __setitem__(self, key: str, value: Any) -> None:
        """Set one key."""
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        """Remove a value that was set; the logged one shows again. KeyError without either."""
        if key not in self._set and key not in self._earlier:
            raise KeyError(key)
        self._set.pop(key, None)
        self._earlier.pop(key, None)
        if self._publish is not None:
            self._publish({}, [key])

    def __getattr__(self, name: str) -> Any:
        """As an item, but AttributeError without one."""
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"summary has no key {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        """As an item."""
        self[name] = value

    def __delattr__(self, name: str) -> None:
        """As an item."""
        del self[name]

    def __contains__(self, key: object) -> bool:
        """Whether a key has a value or paths below it."""
        return isinstance(key, str) and self.get(key, self) is not self

    def __iter__(self) -> Iterator[str]:
        """Over `keys()`."""
        return iter(self._all())

    def __len__(self) -> int:
        """Number of `keys()`."""
        return len(self._all())

    def __repr__(self) -> str:
        """The items as a dict."""
        return repr(self._all())


class SubSummary(Mapping[str, Any]):
    """A nested part of a summary; setting an item in it publishes the top-level key it belongs to."""

    def __init__(self, parent: Summary | SubSummary, key: str, values: dict[str, Any]) -> None:
        self._parent = parent
        self._key = key
        self._values = values

    def __getitem__(self, key: str) -> Any:
        """The value, or a nested part, also by a dotted path; KeyError without one."""
        head, _, rest = key.partition(".")
        if rest and key not in self._values and isinstance(self._values.get(head), dict):
            return self[head][rest]
        value = self._values[key]
        return SubSummary(self, key, value) if isinstance(value, dict) and value.get("_type") is None else value

    def __setitem__(self, key: str, value: Any) -> None:
        """Set the item and publish."""
        self._values = {**self._values, key: value}
        self._parent[self._key] = self._values

    def __delitem__(self, key: str) -> None:
        """Remove the item and publish."""
        self._values = {name: value for name, value in self._values.items() if name != key}
        self._parent[self._key] = self._values

    def update(self, d: object) -> None:
        """Set several items and publish once."""
        self._values = {**self._values, **as_mapping(d)}
        self._parent[self._key] = self._values

    def __iter__(self) -> Iterator[str]:
        """Over the keys."""
        return iter(self._values)

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        """Equal to a dict with the same items."""
        return isinstance(other, (dict, SubSummary)) and self._values == (other._values if isinstance(other, SubSummary) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The items as a dict."""
        return repr(self._values)


def _nested(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested dicts; where a path is both a value and a parent, the parent wins."""
    nested: dict[str, Any] = {}
    for path, value in sorted(paths.items()):
        *parents, name = path.split(".")
        place = nested
        for parent in parents:
            inner = place.get(parent)
            if not isinstance(inner, dict):
                inner = place[parent] = {}
            place = inner
        place[name] = value
    return nested


def _summary_value(key: str, value: Any) -> Any:
    to_json = getattr(value, "to_json", None) if hasattr(type(value), "_runferry_encoded") else None
    if isinstance(value, SubSummary):
        value = dict(value)
    return config_value(key, to_json() if to_json is not None else value)
