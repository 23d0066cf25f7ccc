"""Trees of files in XML and SGML, and what their elements say."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from worker.errors import BadRecord, Refused
from worker.integrations.statement_files import trees

TEXTS = frozenset({"B", "C"})


def of_sgml(text: str) -> str:
    """The tree of a text, written as XML without anything between its elements."""
    from xml.etree.ElementTree import tostring

    return tostring(trees.of_sgml(text, "TOY", TEXTS, {"LIST": "END"}), encoding="unicode", short_empty_elements=False)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("<A><B>1<C>2</A>", "<A><B>1</B><C>2</C></A>"),
        ("<A><B>1</B><C>2</C></A>", "<A><B>1</B><C>2</C></A>"),
        ("<A><B><C>2</A>", "<A><B></B><C>2</C></A>"),
        ("<A><C></A>", "<A><C></C></A>"),
        ("<A><LIST><B>1<END><C>2</END></A>", "<A><LIST><B>1</B></LIST><END><C>2</C></END></A>"),
        ("<A><B>x &amp; y</A>", "<A><B>x &amp; y</B></A>"),
        ("<A><B><![CDATA[<x> & y]]></A>", "<A><B>&lt;x&gt; &amp; y</B></A>"),
    ],
)
def test_element_of_sgml_that_has_only_a_text_needs_no_close_tag(text: str, tree: str) -> None:
    assert of_sgml(text) == tree


@pytest.mark.parametrize(
    "text", ["<A><D></A></D>", "<A></D></A>", "<A><B><![CDATA[x</A>", "<A>" * 101 + "</A>" * 101, ""]
)
def test_sgml_that_is_not_well_formed_is_refused_and_nothing_of_it_is_shown(text: str) -> None:
    with pytest.raises(Refused, match="TOY file has an element that is not closed"):
        of_sgml(text)


def test_tags_of_xml_have_no_namespaces_and_its_encoding_need_not_be_the_declared_one() -> None:
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>'
    root = trees.of_xml(f'{head}<a:x xmlns:a="urn:y"><a:b>Café</a:b></a:x>'.encode(), "TOY")

    assert (root.tag, trees.text_of(root, "c", "b")) == ("x", "Café")


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("ISO-8859-2", "iso-8859-2", "Łódź"),
        ("windows-1250", "cp1250", "Łódź"),
        ("ISO-8859-15", "iso-8859-15", "5 €"),
        ("ISO-8859-1", "cp1252", "5 €"),
        ("us-ascii", "cp1252", "5 €"),
        ("UTF-8", "cp1252", "5 €"),
        ("punycode", "cp1252", "5 €"),
        ("unicode_escape", "cp1252", r"5 € \\x41"),
        ("no such encoding", "cp1252", "5 €"),
    ],
)
def test_declared_encoding_of_xml_counts_if_the_text_is_not_utf_8_and_documents_have_it(
    declared: str, encoding: str, text: str
) -> None:
    for head in (f'<?xml version="1.0" encoding="{declared}"?>', f"<?xml version='1.0' encoding = '{declared}' ?>\n"):
        root = trees.of_xml(f"{head}<x>{text}</x>".encode(encoding), "TOY")

        assert root.text == text


@pytest.mark.parametrize("before", ["", " " * 1_000_000, "<?xml " + " " * 1_000_000 + "?>"])
@pytest.mark.parametrize("within", [" " * 1_000_000, "<?xml " * 100_000])
def test_long_runs_of_the_same_sign_in_xml_take_no_longer_than_other_text(before: str, within: str) -> None:
    root = trees.of_xml(f"{before}<x><![CDATA[{within}]]></x>".encode(), "TOY")

    assert root.text == within


@pytest.mark.parametrize("text", ["<?xml " + "a" * 1_000_000, " " * 1_000_000])
def test_xml_that_is_a_declaration_without_end_or_nothing_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="TOY file is cut off or is no XML"):
        trees.of_xml(text.encode(), "TOY")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<x><b></x>", "TOY file is cut off or is no XML"),
        (b"", "TOY file is cut off or is no XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "document type or entities"),
    ],
)
def test_xml_that_cannot_be_trusted_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(Refused, match=told):
        trees.of_xml(content, "TOY")


def test_what_elements_say() -> None:
    root = trees.of_xml(b"<x><a> 1,50 </a><d>2025-03-10T01:00:00</d><e>20250311120000</e><f/><g>30 May</g></x>", "TOY")

    assert (trees.amount_of(root, "a"), trees.amount_or_none(root, "b")) == (Decimal("1.50"), None)
    assert (trees.day_of(root, "f", "d"), trees.day_of(root, "e")) == (date(2025, 3, 10), date(2025, 3, 11))
    assert trees.day_or_none(root, "f", "c") is None
    for read, path, reason in (
        (trees.amount_or_none, "f", "amount_missing"),
        (trees.day_of, "f", "date_missing"),
        (trees.day_or_none, "g", "date_missing"),
    ):
        with pytest.raises(BadRecord, match=reason):
            read(root, path)
