"""Options of commands: each is declared once, as a typed field of a dataclass.

    @dataclass(kw_only=True)
    class TrainOptions(Options):
        imgsz: int = option(640, 'longer side, pixels ({default})', '--imgsz', '--img', min=64, multiple=32)

The parser, the checks of ranges, and what runs keep of their options are made from the fields. A field without option()
is no flag: the command settles it. Imports nothing heavy: --help answers at once.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

from models.errors import UserError

SPEC = 'option'  # key of a field's metadata
UNSET: Any = object()
MAX_SIDE = 32768  # pixels of a network's input; what is larger fits no memory


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        help: with units; '{default}' stands for the default.
        flags: all names, of which messages use the first; by default '--' and the field's name with dashes. A name
            without dashes is a positional argument. Of a bool that is True by default: the flag that turns it off.
        group: title in --help.
        exclusive: only one of the options with the same word may be given.
        metavar: stands for the value in --help.
        choices: the values that are allowed.
        min, max: bounds that are allowed.
        above, below: bounds that are not.
        multiple: of which the number must be one.
        also: values outside the range that are allowed.
        nargs: number of values of a list, or '+'.
        bare: the value where the flag stands alone; the flag may then have none.
        parse: makes the value from its text; by default the field's type.
        negatable: of a bool: --flag and --no-flag.
        resume: whether a resumed run takes it anew.
        agree: whether the runs of a comparison must have the same value.
        kept: whether opt.yaml and checkpoints hold it.
        name, default: of the field.
        type: of a value, or of each value of a list.
        many: whether the value is a list.
        optional: whether it may be None.
    """

    help: str
    flags: tuple[str, ...] = ()
    group: str = ''
    exclusive: str = ''
    metavar: str | tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    min: float = -math.inf
    max: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    multiple: int = 1
    also: tuple = ()
    nargs: int | str | None = None
    bare: Any = UNSET
    parse: Callable[[str], Any] | None = None
    negatable: bool = False
    resume: bool = False
    agree: bool = True
    kept: bool = True
    name: str = ''
    type: type = str
    many: bool = False
    optional: bool = False
    default: Any = UNSET

    @property
    def flag(self) -> str:
        """The name in messages."""
        return self.flags[0]

    def add_to(self, container: argparse._ActionsContainer) -> None:
        """Add the argument. It has no default there: the parser tells what was given, the dataclass has the rest."""
        text = self.help.replace('{default}', str(self.default)).replace('%', '%%')
        if not self.flag.startswith('-'):
            container.add_argument(
                self.name, metavar=self.metavar, nargs=self.nargs, help=text, type=self.parse or self.type
            )
            return
        shared: dict[str, Any] = {'dest': self.name, 'help': self.help if self.help is argparse.SUPPRESS else text}
        if self.default is UNSET:
            shared['required'] = True
        if self.type is bool:
            switch = f'store_{"false" if self.default else "true"}'
            container.add_argument(
                *self.flags, action=argparse.BooleanOptionalAction if self.negatable else switch, **shared
            )
            return
        if self.bare is not UNSET:
            shared |= {'nargs': '?', 'const': self.bare}
        elif self.nargs:
            shared['nargs'] = self.nargs
        shared['choices' if self.choices else 'metavar'] = self.choices or self.metavar
        container.add_argument(*self.flags, type=self.parse or self.type, **shared)

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as a line that names the flag; None where nothing is."""
        if (value is None and self.optional) or value in self.also or value == self.bare:
            return None
        values = value if self.many and isinstance(value, list | tuple) else [value]
        if all(self._fits(each) for each in values):
            return None
        return f'{self.flag}: {self.expected}'

    def _fits(self, value: Any) -> bool:
        numeric = self.type in (int, float)
        kind = {int: Integral, float: Real}.get(self.type, self.type)  # Python's or NumPy's
        if not isinstance(value, kind) or (numeric and isinstance(value, bool)):
            return False
        if numeric:  # a comparison with nan is never true
            inside = self.min <= value <= self.max and not (value <= self.above or value >= self.below)
            return inside and (self.multiple == 1 or value % self.multiple == 0)
        return not self.choices or value in self.choices

    @property
    def expected(self) -> str:
        """The values that are allowed, in words."""
        if self.choices:
            return f'one of {", ".join(self.choices)}'
        words = [f'a multiple of {self.multiple}'] if self.multiple > 1 else []
        if self.above > -math.inf:
            words.append(f'over {self.above:g}')
        if self.min > -math.inf and self.max < math.inf:
            words.append(f'{self.min} to {self.max}')
        elif self.min > -math.inf:
            words.append('0 or more' if self.min == 0 else f'at least {self.min:g}')
        elif self.max < math.inf:
            words.append(f'at most {self.max:g}')
        words += [f'or {value}' for value in self.also]
        kind = {int: 'a whole number', float: 'a number', bool: 'yes or no'}.get(self.type, 'text')
        return ', '.join(words) or kind

    def as_flags(self, value: Any) -> list[str]:
        """The flag and the value as a command takes them; nothing at the default."""
        if value == self.default:
            return []
        if self.type is bool:
            return [f'--no-{self.flag[2:]}' if self.negatable and not value else self.flag]
        return [self.flag, *map(str, value if self.many else [value])]


def option(default: Any = UNSET, help: str = argparse.SUPPRESS, *flags: str, **rules: Any) -> Any:
    """A field that is an option of the command; without a default it is required, without help it is not shown.

    Args:
        flags, rules: the other attributes of Option.
    """
    metadata = {SPEC: Option(**({'help': help, 'flags': flags} | rules))}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(metadata=metadata) if default is UNSET else field(default=default, metadata=metadata)


@cache
def options_of(cls: type) -> dict[str, Option]:
    """The options of a dataclass by name, with what their fields tell."""
    hints, found = get_type_hints(cls), {}
    for each in fields(cls):
        if SPEC not in each.metadata:
            continue
        kind, spec = hints[each.name], each.metadata[SPEC]
        optional = isinstance(kind, UnionType)
        if optional:
            (kind,) = set(get_args(kind)) - {type(None)}
        many = get_origin(kind) in (list, tuple)
        found[each.name] = replace(
            spec,
            name=each.name,
            flags=spec.flags or (f'--{each.name.replace("_", "-")}',),
            type=get_args(kind)[0] if many else kind,
            many=many,
            optional=optional,
            default=_default(each),
        )
    return found


def _default(each: Field) -> Any:
    if each.default_factory is not MISSING:
        return each.default_factory()
    return UNSET if each.default is MISSING else each.default


@dataclass(kw_only=True)
class Options:
    """What the options of all commands can do.

    Attributes:
        FIRST: groups that --help shows before the others.
    """

    FIRST: ClassVar[tuple[str, ...]] = ()

    def contradictions(self, given: set[str]) -> Iterator[str]:
        """Lines about options that cannot be meant together; `given`: names of those that the command line has."""
        yield from ()

    def as_dict(self) -> dict[str, Any]:
        """What a run keeps, as plain data."""
        hidden = {name for name, each in options_of(type(self)).items() if not each.kept}
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in hidden}

    @classmethod
    def from_dict(cls, content: dict, source: Path | str, **own) -> Self:
        """Options as a file holds them, also of another version: unknown ones are left out, lacking ones get defaults.

        Args:
            content: name -> value.
            source: what errors name.
            own: values in place of those of the content.

        Raises:
            UserError: a value of another type, or outside its range.
        """
        known, names = options_of(cls), {each.name for each in fields(cls)}
        values = {name: value for name, value in (content | own).items() if name in names}
        for name, value in list(values.items()):
            if value is None and name in known and not known[name].optional:
                del values[name]  # an earlier version had no default for it
            elif name in known and (problem := known[name].problem(value)):
                raise UserError(f'{source}: its options have {name} {value!r}, expected {problem.partition(": ")[2]}')
        return cls(**values)


T = TypeVar('T', bound=Options)


def build_parser(
    cls: type[Options], description: str | None = None, without: tuple[str, ...] = ()
) -> argparse.ArgumentParser:
    """The parser of a command; its namespace holds what was given alone."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    containers: dict[tuple, argparse._ActionsContainer] = {('', ''): parser}
    first = {group: number for number, group in enumerate(cls.FIRST)}
    for each in sorted(options_of(cls).values(), key=lambda each: first.get(each.group, len(first))):
        if each.name in without:
            continue
        if (each.group, '') not in containers:
            containers[each.group, ''] = parser.add_argument_group(each.group)
        if (each.group, each.exclusive) not in containers:
            containers[each.group, each.exclusive] = containers[each.group, ''].add_mutually_exclusive_group()
        each.add_to(containers[each.group, each.exclusive])
    return parser


def parse_given(
    cls: type[T], description: str | None, arguments: list[str] | None = None, without: tuple[str, ...] = ()
) -> tuple[T, set[str]]:
    """The options of a command line, and the names of those that it gives.

    Ends with status 2 and a line that names the flag where a value is not allowed, or options contradict each other.

    Args:
        cls: the options' dataclass.
        description: of --help.
        arguments: in place of the command line's.
        without: names of options that this command does not take.
    """
    parser = build_parser(cls, description, without)
    values = vars(parser.parse_args(arguments))
    options, given = cls(**values), set(values)
    problems = [problem for name in values if (problem := options_of(cls)[name].problem(values[name]))]
    for problem in (*problems, *options.contradictions(given)):
        parser.error(problem)  # ends with the first
    return options, given


def parse(
    cls: type[T], description: str | None, arguments: list[str] | None = None, without: tuple[str, ...] = ()
) -> T:
    """The options of a command line; see parse_given."""
    return parse_given(cls, description, arguments, without)[0]
