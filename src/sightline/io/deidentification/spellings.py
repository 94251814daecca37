"""How a name or a number may be spelt in a text, and which of these spellings name somebody by themselves.

Parts of four letters count wherever they stand, also within a word. Shorter ones are often words or abbreviations: they
count as whole words where they begin with a capital and are no everyday word, or beside another part of the name.
Chinese, Japanese and Korean texts have no spaces between words, and names of two letters: those count anywhere.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations

# what a part must have in length, before its occurrence within words says anything
LEAST = 4
_WIDE = "\u3005-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
_HAS_WIDE = re.compile(f"[{_WIDE}]")
_KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff]+")
# no letter or digit; one of Chinese, Japanese or Korean may stand beside a word
_BEFORE, _AFTER = rf"(?<![^\W_{_WIDE}])", rf"(?![^\W_{_WIDE}])"
_BETWEEN = r"[\W_]{1,3}"
# a vertebra, a dimension, a weighting of MR: no number of anybody
_OF_MEDICINE = re.compile(r"[cltsCLTS]\d{1,2}|[2-4][dD]")
# words, abbreviations and particles of names of two and three letters that descriptions hold, in small letters
_WORDS = """
all and any are bad big bit but can cut day did dry due end far few fit for get got had has her him his hot how its
job key let low lot man may men met mid mix new non nor not now odd off old one our out own per put raw red run saw
say see set she six ten the tin tip too top try two use via was way wet who why yes you am as at be by do go he if
in is it me my no of oh ok on or so to up us we
jan feb mar apr jun jul aug sep oct nov dec mon tue wed thu fri sat sun mai okt dez ene abr ago dic
arc arm bed ear eye fat gum gut hip jaw leg lip pad rib sac toe
ant ap ax cor dex ext inf int lat li ll lr lt med obl pa pos re rl rt sag sin sup tra
cad cal cm cr ct cup dr dx fan fov gap gel img iso kv log lut ma map max mg min mm mr ms net nm ob pet pin pt ray rf
roi seq ser std sum tab tag tof tub voi xr
hon ii iii iv jr md mrs phd rn sir sr
al an bin da de del den der des di dos du el ibn la las le les lo los san ten ter van von
ab art auf aus bei das dem die ein gli hat il im ist mit nel nur um und vor zum zur au aux con et ou par pas por que
sur un une
"""
_EVERYDAY = frozenset(_WORDS.split())


@dataclass
class Spellings:
    """Spellings of names and numbers.

    Attributes:
        anywhere: in small letters; they count within words too.
        words: in small letters; they count as whole words.
        exact: patterns of whole words as they are written, capitals included.
        pairs: patterns of two parts of a name beside each other, in small letters.
    """

    anywhere: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    exact: set[str] = field(default_factory=set)
    pairs: set[str] = field(default_factory=set)

    def add_name(self, name: str) -> None:
        """A name as DICOM writes it: parts between ^, groups of other scripts between =."""
        for group in name.split("="):
            # apostrophes belong to a name, all other signs separate its parts
            parts = [part for part in re.split(r"(?:[^\w'\u2019]|_)+", group) if part]
            for part in parts:
                self._add_part(part)
            for (i, first), (j, second) in permutations(enumerate(parts), 2):
                self._add_pair(first, second, in_order=i < j)

    def add_number(self, number: str) -> None:
        """A number of a patient or an examination, and its parts between spaces."""
        for text in {number, *re.split(r"[\^=\s,]+", number)}:
            if len(text) >= LEAST or (len(text) > 1 and _HAS_WIDE.search(text)):
                self.anywhere.add(text.casefold())
        if number.isalnum() and _is_telling(number):
            self.exact.add(_BEFORE + re.escape(number) + _AFTER)

    def add_order(self, number: str) -> None:
        """A number of a study or an order: a whole word, since a year or a part of the body often stands there."""
        if not any(letter.isdigit() for letter in number) or (number.isdigit() and len(number) <= LEAST):
            return
        if len(number) >= LEAST:
            self.words.add(number.casefold())
        else:
            self.add_number(number)

    def add_day(self, day: str) -> None:
        """A day of birth: as DICOM writes it, and as people do."""
        self.add_number(day)
        if len(day) == 8 and day.isdigit():
            year, month, date = day[:4], day[4:6], day[6:]
            for m, d in ((month, date), (month.lstrip("0"), date.lstrip("0"))):
                self.words |= {f"{year} {m} {d}", f"{d} {m} {year}", f"{m} {d} {year}"}

    def add_words(self, *texts: str) -> None:
        """Words of places, where they are long enough to be no others."""
        least = LEAST - 1 if any(map(_HAS_WIDE.search, texts)) else LEAST
        self.words |= {text.casefold() for text in texts if len(text) >= least}

    def are_in(self, text: str) -> bool:
        """Whether a text, its accents folded, holds one of them."""
        small = text.casefold()
        if any(hint in small for hint in self.anywhere):
            return True
        return bool(self._in_small.search(small) or self._as_written.search(text))

    def are_all_of(self, text: str) -> bool:
        """Whether a text is one of them, or two parts of a name side by side, and no more."""
        small = text.casefold()
        return small in self.anywhere | self.words or any(re.fullmatch(pair, small) for pair in self.pairs)

    @cached_property
    def _in_small(self) -> re.Pattern[str]:
        # words one after the other, whatever stands between them
        parts = (r"[\W_]+".join(map(re.escape, re.findall(r"[^\W_]+", text))) for text in sorted(self.words))
        return _join([*(_BEFORE + part + _AFTER for part in parts if part), *sorted(self.pairs)])

    @cached_property
    def _as_written(self) -> re.Pattern[str]:
        return _join(sorted(self.exact))

    def _add_part(self, part: str) -> None:
        if _HAS_WIDE.search(part):
            # two letters of Japanese syllables are parts of other words
            if len(part) > (2 if _KANA.fullmatch(part) else 1):
                self.anywhere.add(part.casefold())
        elif len(part) >= LEAST:
            self.anywhere.add(part.casefold())
        elif _is_telling(part):
            # a script without capitals has none to mind
            forms = {part, part.title(), part.upper()}
            self.exact |= {_BEFORE + re.escape(form) + _AFTER for form in forms}

    def _add_pair(self, first: str, second: str, *, in_order: bool) -> None:
        a, b = first.casefold(), second.casefold()
        if _HAS_WIDE.search(first + second):
            # written together in the order of the name alone: the other way round they may be other words
            self.pairs.add(re.escape(a) + (r"[\W_]*" if in_order else r"[\W_]+") + re.escape(b))
            return
        if len(a) == len(b) == 1:
            return  # initials
        if min(len(a), len(b)) == 1 or (a in _EVERYDAY and b in _EVERYDAY):
            for one, two in ((first.title(), second.title()), (first.upper(), second.upper())):
                self.exact.add(_BEFORE + re.escape(one) + _BETWEEN + re.escape(two) + _AFTER)
            return
        self.pairs.add(_BEFORE + re.escape(a) + _BETWEEN + re.escape(b) + _AFTER)
        if len(a + b) > LEAST:
            self.words.add(a + b)
        else:
            # four letters written together may be a word ("Do^Se"): the second capital says that they are none
            self.exact.add(_BEFORE + re.escape(first.title() + second.title()) + _AFTER)


def _is_telling(short: str) -> bool:
    """Whether two or three letters and digits, standing alone, are likely to mean the one who is called so."""
    everyday = short.casefold() in _EVERYDAY or short.isdigit() or _OF_MEDICINE.fullmatch(short)
    return 1 < len(short) < LEAST and not everyday


def _join(patterns: list[str]) -> re.Pattern[str]:
    """A pattern for any of several; for none, one that nothing matches."""
    return re.compile("|".join(patterns) or r"(?!)")


def fold_letters(text: str) -> str:
    """A text with letters of full width as others and without accents, which people leave out; capitals stay."""
    apart = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", apart))
