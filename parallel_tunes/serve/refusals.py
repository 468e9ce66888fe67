"""Why a request has no answer: a status and one clear sentence, in which no path of this machine stands."""

from __future__ import annotations

# what a decoder says (the class of an AudioError) → 415 where it is no audio; all else is a file that is damaged or unfit
NOT_AUDIO = ("NotAudioError", "NotPictureError")
TAKEN = "WAV, FLAC, MP3, Ogg, Opus, M4A, AAC, WebM, AIFF and most else that is audio"


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        sentence: what is wrong, and how to mend it.
        retry_s: after how many seconds another try makes sense.
    """

    def __init__(self, status: int, sentence: str, retry_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {} if retry_s is None else {"Retry-After": str(retry_s)}


def refuse_file(kind: str, reason: str) -> Refusal:
    """The refusal of a file of which a decoder says so: the class of its AudioError, and its message."""
    taken = f"; {TAKEN} are taken" if kind == "NotAudioError" else ""
    return Refusal(415 if kind in NOT_AUDIO else 422, reason + taken)


def too_late(timeout_s: float) -> Refusal:
    """The refusal of a request that has waited for so long."""
    return Refusal(503, f"no answer within {timeout_s:g} s: too much is asked of this server now", retry_s=1)


def no_room() -> Refusal:
    """The refusal of an upload for which the disk has no space."""
    return Refusal(503, "there is no room for uploads now; try later", retry_s=30)
