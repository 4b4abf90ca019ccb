"""Aggregates the messages of a Firestore Listen stream into consistent states. It opens no stream itself.

The server sends changes as they come, and only now and then says that everything up to here is consistent. Nothing is
passed on before that, so a batch is never seen in part.
"""

from typing import Any, Final

from gateway.registry.base import Unavailable
from gateway.registry.firestore.document_layout import FirestoreDocument, document_from_protobuf

TARGET_ID: Final = 1
ConsistentChanges = dict[str, FirestoreDocument]  # by id: what has changed since the last consistent state
# google.firestore.v1.TargetChange.TargetChangeType
_NO_CHANGE: Final = 0
_REMOVE: Final = 2
_CURRENT: Final = 3
_RESET: Final = 4
_PERMISSION_DENIED: Final = 7  # google.rpc.Code


class StreamBroken(Unavailable):
    """The Listen stream has ended and must be opened again."""


class DocumentRemovedByHand(Unavailable):
    """Somebody removed or damaged a document by hand.

    Everything must be read again. Registries only mark documents as deleted.
    """


class ListenTarget:
    """The state of one query on a Listen stream."""

    def __init__(self) -> None:
        self._known: set[str] = set()  # ids that the server has told on this stream
        self._fresh: ConsistentChanges = {}  # told since the last consistent state
        self._told_again: set[str] | None = (
            None  # since a RESET, after which the server sends everything again
        )
        self._current = False

    def apply(self, message: Any) -> ConsistentChanges | None:
        """Apply a message; return the documents that changed, where it completes a consistent state.

        They are those that changed since the last consistent state, by id. None where the message completes none. Raises
        StreamBroken and DocumentRemovedByHand.
        """
        kind = message.WhichOneof("response_type")
        if kind == "target_change":
            return self._target_change(message.target_change)
        if kind == "document_change":
            self._document_change(message.document_change)
        elif kind in {"document_delete", "document_remove"}:
            gone = getattr(message, kind)
            if TARGET_ID in gone.removed_target_ids:
                raise DocumentRemovedByHand(f"{gone.document} was removed from Firestore by hand")
        elif kind == "filter":
            told = self._known if self._told_again is None else self._told_again
            if message.filter.target_id == TARGET_ID and message.filter.count != len(told):
                raise DocumentRemovedByHand(
                    f"Firestore holds {message.filter.count} documents where {len(told)} were told"
                )
        return None

    def _document_change(self, change: Any) -> None:
        found = document_from_protobuf(change.document)
        if TARGET_ID in change.target_ids:
            self._fresh[found.identity] = found
            self._known.add(found.identity)
            if self._told_again is not None:
                self._told_again.add(found.identity)
        elif TARGET_ID in change.removed_target_ids:
            raise DocumentRemovedByHand(f"{found.identity} is no longer as a registry writes it")

    def _target_change(self, change: Any) -> ConsistentChanges | None:
        if change.target_ids and TARGET_ID not in change.target_ids:
            return None
        kind = change.target_change_type
        if kind == _CURRENT:
            self._current = True
        elif kind == _RESET:
            self._fresh = {}
            self._told_again = set()
            self._current = False
        elif kind == _REMOVE:
            why = change.cause.message or "no reason given"
            if change.cause.code == _PERMISSION_DENIED:
                why += " (permission denied: a gateway needs roles/datastore.viewer)"
            raise StreamBroken(f"Firestore ended the watch: {why}")
        elif kind == _NO_CHANGE and not change.target_ids and change.HasField("read_time") and self._current:
            return self._consistent()
        return None

    def _consistent(self) -> ConsistentChanges:
        if self._told_again is not None:
            missing = self._known - self._told_again
            if missing:
                raise DocumentRemovedByHand(f"{min(missing)} was removed from Firestore by hand")
            self._told_again = None
        fresh, self._fresh = self._fresh, {}
        return fresh
