"""What Runferry raises, and nothing else.

```text
Error
├── CommError                 the server did not answer, or answered with an error
│   ├── AuthenticationError   it wants a key, or refuses the one it got
│   ├── NotFoundError         it has no such thing
│   ├── NotRunferryError      something else answers at the address
│   ├── UnreachableError      nobody answers, yet
│   └── UntrustedError        its certificate is not to be believed
├── UsageError                the call is wrong: change the program
│   └── UnsupportedError      the call is right in the W&B SDK, Runferry does not do it yet
├── JournalError              the local journal cannot be opened or written
│   └── JournalFullError      it is at its cap, and `backpressure="raise"` asks to hear of it in `log`
└── ConfigError               a config key would change its value
```

The names and their places are those of the W&B SDK. Once `init()` has returned, only wrong calls raise (`UsageError`,
`TypeError`, `ConfigError`); trouble with disk or network is a status (`Run.status`) and never an exception in the training loop,
unless the user asks for it by `backpressure="raise"`.
"""

from __future__ import annotations


class Error(Exception):
    """Base of every exception of Runferry."""

    @property
    def message(self) -> str:
        """The text, under the name that the W&B SDK gives it."""
        return str(self)


class CommError(Error):
    """The server could not be reached, or answered with an error; the text names the address. Retrying may help."""


class AuthenticationError(CommError):
    """The server wants an API key or refuses the one given. Retrying does not help."""


class NotFoundError(CommError):
    """The server has no such thing; the text says what."""


class NotRunferryError(CommError):
    """Something answers at the address, and it is no Runferry server."""


class UnreachableError(CommError):
    """No connection, or no answer in time: the server may come up later."""


class UntrustedError(CommError):
    """The server's certificate is not to be believed; nothing was sent."""


class UsageError(Error):
    """The call or a setting is wrong; the text names the value and the rule."""


class UnsupportedError(UsageError):
    """A feature of the W&B SDK that Runferry does not have yet; the text names it."""


class JournalError(Error):
    """The local journal cannot be opened or written; the text names the path."""


class JournalFullError(JournalError):
    """The journal is at its cap and `backpressure="raise"`: the row was not taken, and is counted. A later call may find room."""


class ConfigError(Error):
    """A config key would change its value without `allow_val_change`."""
