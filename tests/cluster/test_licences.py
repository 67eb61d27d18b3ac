"""What catalogues say of licences, and what may be done with the assets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.sources import licences
from cluster.sources.licences import commercial, known, normal, redistributable

# What the catalogues write, its normal form, and whether renderings may be passed on, and for money.
SAID = [
    ("by", "CC-BY-4.0", True, True),  # Sketchfab, hence Objaverse
    ("by-sa", "CC-BY-SA-4.0", True, True),
    ("by-nc", "CC-BY-NC-4.0", True, False),
    ("by-nc-sa", "CC-BY-NC-SA-4.0", True, False),
    ("by-nd", "CC-BY-ND-4.0", False, False),
    ("by-nc-nd", "CC-BY-NC-ND-4.0", False, False),
    ("cc0", "CC0-1.0", True, True),
    ("st", "Sketchfab-Standard", False, False),
    ("ed", "Sketchfab-Editorial", False, False),
    ("Creative Commons - Attribution", "CC-BY", True, True),  # Thingiverse
    ("Creative Commons - Attribution - Share Alike", "CC-BY-SA", True, True),
    ("Creative Commons - Attribution - No Derivatives", "CC-BY-ND", False, False),
    ("Creative Commons - Attribution - Non-Commercial", "CC-BY-NC", True, False),
    ("Attribution - Non-Commercial - Share Alike", "CC-BY-NC-SA", True, False),
    ("Attribution - Non-Commercial - No Derivatives", "CC-BY-NC-ND", False, False),
    ("Creative Commons - Public Domain Dedication", "CC0-1.0", True, True),
    ("Public Domain", "CC-PDM-1.0", True, True),
    ("GNU - GPL", "GPL", True, True),
    ("GNU - LGPL", "LGPL", True, True),
    ("BSD License", "BSD", True, True),
    ("All Rights Reserved", "All-Rights-Reserved", False, False),
    ("MIT License", "MIT", True, True),  # GitHub
    ("Apache License 2.0", "Apache-2.0", True, True),
    ("GNU General Public License v3.0", "GPL-3.0", True, True),
    ("GNU Affero General Public License v3.0", "AGPL-3.0", True, True),
    ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause", True, True),
    ("The Unlicense", "Unlicense", True, True),
    ("Mozilla Public License 2.0", "MPL-2.0", True, True),
    ("Creative Commons Zero v1.0 Universal", "CC0-1.0", True, True),
    ("Creative Commons Attribution Share Alike 4.0 International", "CC-BY-SA-4.0", True, True),
    ("SIL Open Font License 1.1", "OFL-1.1", True, True),
    ("CC BY 4.0", "CC-BY-4.0", True, True),  # people
    ("cc-by-nc 3", "CC-BY-NC-3.0", True, False),
    ("CC-BY-3.0-US", "CC-BY-3.0", True, True),
    ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "CC-BY-NC-SA-4.0", True, False),
    ("http://creativecommons.org/licenses/by/3.0/us/deed.en", "CC-BY-3.0", True, True),
    ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", True, True),
    ("Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0)", "CC-BY-NC-SA-4.0", True, False),
    ("Other", "unknown", None, None),
    ("NOASSERTION", "unknown", None, None),
    ("", "unknown", None, None),
    (None, "unknown", None, None),
    (math.nan, "unknown", None, None),
    ("Creative Commons", "Creative Commons", None, None),
    ("CC-BY-9.9", "CC-BY-9.9", None, None),
    ("CC-BY-4.0 AND MIT", "CC-BY-4.0 AND MIT", True, True),
    ("CC BY 4.0, no redistribution", "CC BY 4.0, no redistribution", None, None),
    ("not MIT", "not MIT", None, None),
    ("CC NC-SA 1.0", "CC-NC-SA-1.0", True, False),  # of the first version, without attribution
    ("Creative Commons Share Alike", "CC-SA", True, True),
    ("non-commercial", "non-commercial", None, None),  # of terms that may forbid anything else
    ("NC", "NC", None, None),
    ("noncommercial license", "noncommercial license", None, None),
    ("share alike", "share alike", None, None),
    ("SA", "SA", None, None),
    ("3D-FRONT Terms of Use", "3D-FRONT Terms of Use", False, False),
]


@pytest.mark.parametrize(("text", "name", "passed_on", "for_money"), SAID)
def test_what_catalogues_write(text: str | None, name: str, passed_on: bool | None, for_money: bool | None) -> None:
    assert normal(text) == name
    assert (redistributable(name), commercial(name)) == (passed_on, for_money)
    assert known(name) is (passed_on is not None)


TEXTS = st.text(max_size=200) | st.lists(
    st.sampled_from(
        ["CC", "BY", "NC", "SA", "ND", "by-nc", "4.0", "v3", "creative", "commons", "attribution", "the", "MIT", "GPL"]
    ),
    max_size=40,
).map(" ".join)


@given(TEXTS)
def test_the_normal_form_is_one_short_line_and_normal_itself(text: str) -> None:
    name = normal(text)
    assert normal(name) == name
    assert 0 < len(name) <= licences.LONGEST
    assert name.isprintable()


@given(TEXTS)
def test_case_and_punctuation_do_not_matter_where_a_licence_is_known(text: str) -> None:
    if known(normal(text)) and text.isascii():
        assert normal(text.upper()) == normal(text.lower()) == normal(f"  {text.replace(' ', '  ')} ")


@given(st.sampled_from([said for said in SAID if said[2] is not None]), st.from_regex(r"[a-z]{4,12}", fullmatch=True))
def test_a_word_that_is_not_accounted_for_never_opens_a_licence(said: tuple, word: str) -> None:
    for text in (f"{said[0]} {word}", f"{word} {said[0]}", f"{said[0]} {'the ' * 60}{word}"):
        assert normal(normal(text)) == normal(text)  # also where the word is cut off
        opened = redistributable(normal(text))
        assert not opened or normal(text) == said[1] or word in "public domain only later expat share alike"


@given(TEXTS)
def test_no_derivatives_are_never_redistributable(text: str) -> None:
    assert not redistributable(normal(f"{text} ND"))
    assert not redistributable(normal(f"{text} - No Derivatives"))


@given(TEXTS)
def test_what_is_commercial_is_redistributable(text: str) -> None:
    name = normal(text)
    assert not commercial(name) or redistributable(name)


def test_a_licence_that_a_user_names_may_leave_the_version_open() -> None:
    for text, holds, lacks in (
        ("cc by", ["CC-BY", "CC-BY-4.0", "CC-BY-3.0"], ["CC-BY-NC-4.0", "CC-BY-SA", "MIT"]),
        ("CC-BY-4.0", ["CC-BY-4.0"], ["CC-BY", "CC-BY-3.0"]),
        ("GPL", ["GPL", "GPL-3.0", "GPL-2.0-or-later"], ["LGPL", "AGPL-3.0"]),
    ):
        names = (licences.chosen(text),)
        assert all(licences.is_one_of(name, names) for name in holds)
        assert not any(licences.is_one_of(name, names) for name in lacks)
    with pytest.raises(ValueError, match=r"did you mean CC-BY-NC-4\.0\?"):
        licences.chosen("CC-BY-NCC-4.0")


@pytest.mark.parametrize(
    ("said", "may_be_passed_on", "for_money"),
    [
        ("MIT OR Apache-2.0", True, True),
        ("CC0-1.0 (model) AND CC-BY-4.0 (rig, animation)", True, True),
        ("CC0-1.0 AND CC-BY-NC-4.0", True, False),
        ("CC-BY-ND-4.0 OR CC-BY-NC-4.0", True, False),
        ("CC0-1.0 (model) AND CC-BY-ND-4.0 (textures)", False, False),
        ("MIT AND house rules", None, None),
        ("MIT (no redistribution) AND CC0-1.0", None, None),
        ("CC0-1.0 AND (MIT OR CC-BY-ND-4.0)", None, None),
        ("MIT OR CC-BY-ND-4.0 AND CC0-1.0", True, True),
    ],
)
def test_expressions_are_judged_by_their_parts(
    said: str, may_be_passed_on: bool | None, for_money: bool | None
) -> None:
    name = licences.normal(said)
    assert (licences.redistributable(name), licences.commercial(name)) == (may_be_passed_on, for_money)
