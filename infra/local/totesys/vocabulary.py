"""The words of the simulated wholesaler: short lists, and functions that draw from them."""

from __future__ import annotations

from random import Random

CURRENCIES = ("GBP", "USD", "EUR")
PAYMENT_TYPES = ("SALES_RECEIPT", "SALES_REFUND", "PURCHASE_PAYMENT", "PURCHASE_REFUND")

# Name, location, manager. One has no location and one no manager: the warehouse must tell an absent text from an empty one.
DEPARTMENTS = (
    ("Sales", "Manchester", "Imogen Hartley"),
    ("Purchasing", "Manchester", "Tomasz Wójcik"),
    ("Production", "Leeds", "Grace Adeyemi"),
    ("Dispatch", "Leeds", "Owen Pritchard"),
    ("Finance", "Manchester", "Beatriz Gonçalves"),
    ("Facilities", "Manchester", None),
    ("Communications", None, "Niamh O'Sullivan"),
    ("HR", "Sheffield", "Jürgen Weiß"),
)

_FIRST_NAMES = (
    "Amelia", "Bartek", "Chidi", "Chloë", "Dafydd", "Elif", "Fatima", "George", "Håkon", "Isla",
    "Jamal", "Kirsty", "Léa", "Maya", "Noor", "Oliver", "Priya", "Renée", "Siobhán", "Zoë",
)  # fmt: skip
_LAST_NAMES = (
    "Ahmed", "Bell", "Carter", "D'Arcy", "Evans", "Fraser", "García", "Hughes", "Iqbal", "Jones",
    "Kowalski", "Lindström", "MacLeod", "Nowak", "O'Brien", "Patel", "Quinn", "Şahin", "Taylor", "Walker",
)  # fmt: skip
_STREETS = ("Albert", "Brook", "Canal", "Castle", "Foundry", "Mill", "Orchard", "Quarry", "Station", "Victoria")
_STREET_KINDS = ("Street", "Road", "Lane", "Avenue", "Close", "Terrace")
_BUILDINGS = ("Unit 4", "Suite 12, 3rd floor", "The Old Dairy", "Dock B", "Gate 7")
_DISTRICTS = ("Bedfordshire", "Cumbria", "Kent", "Neukölln", "Strathclyde", "Ørestad")
_PLACES = (
    ("Bristol", "United Kingdom", "BS1 5TR"),
    ("Cardiff", "United Kingdom", "CF10 1EP"),
    ("Glasgow", "United Kingdom", "G2 4JR"),
    ("Newcastle upon Tyne", "United Kingdom", "NE1 7RU"),
    ("Belfast", "United Kingdom", "BT1 5GS"),
    ("Portland", "United States of America", "97209-3320"),
    ("München", "Germany", "80331"),
    ("Łódź", "Poland", "90-001"),
    ("São Paulo", "Brazil", "01310-100"),
    ("København", "Denmark", "1050"),
    ("大阪", "Japan", "530-0001"),
)
_COMPANY_KINDS = ("Ltd", "plc", "and Sons", "Group", "LLC", "GmbH & Co. KG", "S.A.")
_MATERIALS = ("Bronze", "Concrete", "Cotton", "Frozen", "Granite", "Oak", "Recycled", "Rubber", "Soft", "Steel", "Wooden")
_MOODS = ("Awesome", "Elegant", "Handmade", "Licensed", "Modern", "Refined", "Rustic", "Sleek", "Small", "Tasty")
_GOODS = ("Bench", "Chair", "Clock", "Gloves", "Hat", "Keyboard", "Lamp", "Shirt", "Shoes", "Table", "Towels")
_FOLDERS = ("/usr/share", "/opt/designs", "/home/user/dir", "/srv/studio/2025", "/Library")

# What people type into a form, and what breaks a careless CSV, SQL or JSON writer.
_AWKWARD_REMARKS = (
    'the "Annexe"',
    "c/o Dwyer, Dwyer, and Dwyer",
    "ring twice\nthen wait",
    "back\\slash \\N",
    "O'Connor's yard",
    "tab\tstop",
    "naïve café 🚚",
    "NULL",
)


def seeded(seed: int | str) -> Random:
    """What the other functions draw from: the same draws for the same seed."""
    return Random(seed)  # noqa: S311  # nosec B311 - must be repeatable, keeps no secret


def person(draw: Random) -> tuple[str, str]:
    """A first and a last name."""
    return draw.choice(_FIRST_NAMES), draw.choice(_LAST_NAMES)


def full_name(draw: Random) -> str:
    """Both names as one text."""
    return " ".join(person(draw))


def company_name(draw: Random) -> str:
    """The legal name of a counterparty."""
    return f"{draw.choice(_LAST_NAMES)} {draw.choice(_COMPANY_KINDS)}"


def street_line(draw: Random) -> str:
    """House number and street."""
    return f"{draw.randint(1, 999)} {draw.choice(_STREETS)} {draw.choice(_STREET_KINDS)}"


def second_line(draw: Random) -> str | None:
    """The optional second line of an address: mostly absent, sometimes left empty, which is not the same."""
    return draw.choice((None, None, "", *_BUILDINGS))


def district(draw: Random) -> str | None:
    """The optional district of an address."""
    return draw.choice((None, "", *_DISTRICTS))


def place(draw: Random) -> tuple[str, str, str]:
    """City, country and postal code that belong together."""
    return draw.choice(_PLACES)


def phone(draw: Random) -> str:
    """A telephone number; its leading zero tells a text from a number."""
    return f"0{draw.randint(1000, 9999)} {draw.randint(0, 999_999):06d}"


def contact(draw: Random) -> str | None:
    """The optional name of a counterparty's contact."""
    return draw.choice((None, "", *(full_name(draw) for _ in range(6))))


def product_name(draw: Random) -> str:
    """What a design is called."""
    return f"{draw.choice(_MOODS)} {draw.choice(_MATERIALS)} {draw.choice(_GOODS)}"


def folder(draw: Random) -> str:
    """Where the file of a design lies."""
    return draw.choice(_FOLDERS)


def file_name(name: str, number: int) -> str:
    """The file of a design: its name, and a number that makes it unique."""
    return f"{name.lower().replace(' ', '-')}-{number:05d}.json"


def item_code(draw: Random) -> str:
    """The code of something bought."""
    return f"{draw.choice('ABCDEFGHJK')}{draw.randint(0, 999):03d}-{draw.choice(_MATERIALS)[:3].upper()}"


def remark(draw: Random) -> str:
    """A text full of characters that something on the way may stumble over."""
    return draw.choice(_AWKWARD_REMARKS)


def department_name(draw: Random) -> str:
    """What a department may be called after a reorganisation."""
    return f"{draw.choice(DEPARTMENTS)[0]} {draw.choice(('North', 'South', '& Co', '(interim)', '«neu»'))}"
