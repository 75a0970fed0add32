"""`Config`: the inputs of a run, a dict whose keys keep their value.

Reads are local. A change is checked, made JSON-friendly, kept here and handed to the writer as the changed top-level keys only.
Assigning another value to a key that has one raises unless it is allowed: a learning rate that changes silently makes the
run unreadable later. Changing a nested dict in place is not seen; assign it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runferry._config_values import as_mapping, config_value, same
from runferry.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping


class Config:
    """Dict-like: items, attributes, `update`, `get`, iteration and `in`; keys that start with `_` are hidden from `keys` and `items`.

    Args:
        values: Initial values: a mapping, `argparse.Namespace`, dataclass, or path of a YAML file.
        publish: Called with changed values and removed keys after each change.
        allow_val_change: Whether a key may get another value without being asked each time.
    """

    def __init__(
        self,
        values: object = None,
        publish: Callable[[dict[str, Any], list[str]], object] | None = None,
        *,
        allow_val_change: bool = False,
    ) -> None:
        object.__setattr__(self, "_items", {})
        object.__setattr__(self, "_publish", None)
        object.__setattr__(self, "_allow_val_change", allow_val_change)
        self.update(values or {}, allow_val_change=True)
        object.__setattr__(self, "_publish", publish)

    _items: dict[str, Any]
    _publish: Callable[[dict[str, Any], list[str]], object] | None
    _allow_val_change: bool

    def update(self, d: object, allow_val_change: bool | None = None) -> None:  # noqa: FBT001 - W&B signature
        """Set several keys; all or none.

        Args:
            d: As `values` of the class.
            allow_val_change: Whether keys may get another value. Default: as the run was told.

        Raises:
            ConfigError: A key has another value already.
            TypeError: A value cannot be config (media, histograms), or `d` is no mapping.
        """
        self._change(as_mapping(d), allow=self._allow_val_change if allow_val_change is None else allow_val_change)

    def setdefaults(self, d: object) -> None:
        """Set the keys that have no value yet."""
        self._change({key: value for key, value in as_mapping(d).items() if _key(key) not in self._items}, allow=True)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        return self._items.get(_key(key), default)

    def keys(self) -> KeysView[str]:
        """Keys, without those that start with `_`."""
        return self._shown().keys()

    def items(self) -> ItemsView[str, Any]:
        """Keys and values, without keys that start with `_`."""
        return self._shown().items()

    def as_dict(self) -> dict[str, Any]:
        """A copy of all items."""
        return dict(self._items)

    def persist(self) -> None:
        """Publish every item again."""
        if self._publish is not None and self._items:
            self._publish(dict(self._items), [])

    def _shown(self) -> dict[str, Any]:
        return {key: value for key, value in self._items.items() if not key.startswith("_")}

    def _change(self, given: Mapping[str, Any], *, allow: bool) -> None:
        changed: dict[str, Any] = {}
        for name, value in given.items():
            key, plain = _key(name), config_value(_key(name), value)
            if key in self._items and same(self._items[key], plain):
                continue
            if key in self._items and not allow:
                raise ConfigError(
                    f'Attempted to change value of key "{key}" from {self._items[key]} to {plain}\n'
                    "If you really want to do this, pass allow_val_change=True to config.update()"
                )
            changed[key] = plain
        self._items.update(changed)
        if changed and self._publish is not None:
            self._publish(changed, [])

    def __getitem__(self, key: str) -> Any:
        """The value of a key; KeyError without one."""
        return self._items[_key(key)]

    def __setitem__(self, key: str, value: Any) -> None:
        """As `update` with one key."""
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        """Remove a key; KeyError without one."""
        del self._items[_key(key)]
        if self._publish is not None:
            self._publish({}, [_key(key)])

    def __getattr__(self, name: str) -> Any:
        """As an item, but AttributeError without one."""
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._items[_key(name)]
        except KeyError:
            raise AttributeError(f"config has no key {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        """As an item."""
        self[name] = value

    def __contains__(self, key: object) -> bool:
        """Whether a key has a value."""
        return isinstance(key, str) and _key(key) in self._items

    def __iter__(self) -> Iterator[str]:
        """Over `keys()`."""
        return iter(self._shown())

    def __len__(self) -> int:
        """Number of `keys()`."""
        return len(self._shown())

    def __repr__(self) -> str:
        """The items as a dict."""
        return repr(self._shown())


def _key(name: object) -> str:
    """Blanks aside, dashes at the ends go: `"-dash-"` and `dash` are one key."""
    return (name if isinstance(name, str) else str(name)).strip("-")
