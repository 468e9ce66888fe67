"""What is asked and answered, as OpenAPI tells it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from parallel_tunes.serve.levels import MOST_BANDS, MOST_COLUMNS


class Failure(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="one sentence", examples=["no audio that can be decoded (format not recognised)"])


class Label(BaseModel):
    label: str
    probability: float
    threshold: float | None = Field(None, description="of models that give several labels: what it reached")


class Window(BaseModel):
    start_s: float
    end_s: float
    probabilities: list[float] = Field(description="in the order of `classes`")


class Levels(BaseModel):
    """Levels as one byte each: 0 stands for `low_db`, 255 for `high_db`."""

    num_columns: int = Field(le=MOST_COLUMNS)
    num_bands: int = Field(le=MOST_BANDS)
    low_db: float
    high_db: float
    data: str = Field(description="base64, a column after the other, the lowest band first")


class FileAnswer(BaseModel):
    """A file's labels; or, of one among several, why there are none."""

    file: str = Field(description="what the client called it")
    duration_s: float | None = None
    note: str | None = Field(None, description="what of the file could not be decoded, where that is anything")
    top: list[Label] | None = Field(None, description="the most probable labels, of the mean over windows")
    labels: list[Label] | None = Field(
        None, description="of models that give several: those that reach their threshold"
    )
    windows: list[Window] | None = Field(None, description="the timeline; neighbours may overlap")
    levels: Levels | None = Field(None, description="if asked for: the levels that the model was given")
    error: str | None = None
    status: int | None = Field(None, description="the status that the file alone would have had")


class GenreAnswer(BaseModel):
    classes: list[str]
    files: list[FileAnswer]


class RowAnswer(BaseModel):
    """A row's answer; `reason` where there is none."""

    row: int = Field(description="counted from 1")
    id: str | None = None
    probability: float | None = Field(None, description="relisten: that the user plays the song again")
    unseen: list[str] | None = Field(None, description="relisten: what the tables of the training did not know")
    popularity: float | None = None
    top: list[Label] | None = None
    margins: list[float] | None = None
    reason: str | None = None


class RowsAnswer(BaseModel):
    rows: list[RowAnswer]


class State(BaseModel):
    status: str


class Version(BaseModel):
    version: str
    models: dict[str, dict[str, Any]]
    limits: dict[str, float]


FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "audio: WAV, FLAC, MP3, Ogg, Opus, M4A, AAC, WebM, …; one or more",
                        }
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}
KEYS = ("msno", "song_id")
ROWS: dict[str, dict[str, Any]] = {
    "relisten": {"msno": "u1", "song_id": "s1", "source_type": "online-playlist"},
    "popularity": {"danceability": 0.7, "energy": 0.6, "tempo": 120.0, "release_date": "2019-05-01"},
}


def describe_rows(task: str) -> dict[str, Any]:
    """The body of posted rows."""
    example = ROWS[task]
    text = ",".join(example) + "\n" + ",".join(map(str, example.values())) + "\n"
    names = [name for name in KEYS if name in example]  # else which columns there must be is the model's to say
    row = {"type": "object", "required": names, "properties": {name: {"type": "string"} for name in names}}
    rows = {"type": "array", "minItems": 1, "items": row}
    schema = {"type": "object", "required": ["rows"], "properties": {"rows": rows}}
    content = {
        "application/json": {"schema": schema, "example": {"rows": [example]}},
        "text/csv": {"schema": {"type": "string"}, "example": text},
    }
    return {"requestBody": {"required": True, "content": content}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How OpenAPI tells them."""
    return {status: {"model": Failure} for status in statuses}
