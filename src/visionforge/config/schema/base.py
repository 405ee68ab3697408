"""What every section of the settings is made of."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Exact(BaseModel):
    """Settings of which an integer is written as one: 16.0, '16' and true are refused, as the command line does."""

    @field_validator("*", mode="before")
    @classmethod
    def _integers_are_written_as_such(cls, value: Any, info: ValidationInfo) -> Any:
        if type(value) in (bool, float, str):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            if int in kinds and type(value) not in kinds:
                raise PydanticCustomError("int_type", "Input should be an integer")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation allows, those of its literal values included."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(members[0])
    if origin in (Union, UnionType):
        return set().union(*map(_kinds, members))
    return {type(value) for value in members} if origin is Literal else {annotation}


def fields_of(settings: BaseModel) -> dict[str, Any]:
    """Return settings as arguments: name → value, in which sections stay as they are."""
    return {name: getattr(settings, name) for name in type(settings).model_fields}


class Section(Exact):
    """A group of settings: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
