"""What is wrong with a store: from the words of its client to a cause and a cure."""

import re
from typing import Final

from dynoscope.errors import StoreError

__all__ = ["explained"]

# Words of the clients of AWS, Google Cloud, Azure and the local file system.
_WORDS: Final = {
    "no permission": """
        ACCESS_DENIED INVALID_ACCESS_KEY_ID SIGNATURE_DOES_NOT_MATCH EXPIRED_TOKEN
        INVALID_TOKEN UNRECOGNIZED_CLIENT PERMISSION_DENIED UNAUTHENTICATED
        AuthorizationFailure AuthenticationFailed Permission.denied status.40[13]""",
    "no such bucket": "NO_SUCH_BUCKET NoSuchBucket NOT_FOUND ContainerNotFound",
    "unreachable": """
        NETWORK_CONNECTION REQUEST_TIMEOUT SLOW_DOWN SERVICE_UNAVAILABLE UNAVAILABLE
        INTERNAL_FAILURE status.50[0234] timed.out""",
}
"""Regular expressions by cause."""

_CURES: Final = {
    "no permission": "check the credentials that this process has, and that they may "
    "list, read, write and delete there",
    "no such bucket": "create it, or correct its name",
    "unreachable": "check the network, and in the URI endpoint_override= and scheme=",
}


def explained(uri: str, error: Exception) -> StoreError:
    """An error of a store's client in words that help.

    Args:
        uri: what could not be reached, without its password.
        error: what the client raised.
    """
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    reason = re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", reason)  # a password
    reason = re.sub(r" \(Request ID: \S*\)", "", reason)
    for cause, words in _WORDS.items():
        if re.search("|".join(words.split()), text, re.IGNORECASE):
            known = StoreError(f"{uri}: {cause}; {_CURES[cause]} ({reason})")
            known.cause = cause
            return known
    return StoreError(f"{uri}: {reason}")
