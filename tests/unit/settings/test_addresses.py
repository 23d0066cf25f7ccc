"""Addresses of Postgres and Redis: what works is kept or put into SQLAlchemy's form, all else is refused at startup."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from worker.process import redis_address
from worker.settings.addresses import is_loopback, postgres_hosts, postgres_url

SECRET = "hush"


@pytest.mark.parametrize(
    "rest",
    [
        f"app:{SECRET}@db.example/dashtam",
        f"app:{SECRET}@db.example:5433/dashtam?sslmode=verify-full&connect_timeout=3",
        f"app:p#%40/{SECRET}@[::1]:5432/dashtam",
        "app@/dashtam?host=/run/postgresql",
        "app@/dashtam?host=a,b&port=5432,5433&target_session_attrs=read-write",
        "/dashtam",
    ],
)
def test_address_of_one_server_stays_as_it_is(rest: str) -> None:
    assert postgres_url(f"postgresql://{rest}", writes=True) == f"postgresql+psycopg://{rest}"


@pytest.mark.parametrize(
    ("hosts", "host", "port"),
    [
        ("h1:5433,h2:5434", "h1,h2", "5433,5434"),
        ("h1,h2", "h1,h2", "5432,5432"),
        ("h1,h2:5434", "h1,h2", "5432,5434"),
        ("[::1]:5433,10.0.0.1", "::1,10.0.0.1", "5433,5432"),
    ],
)
def test_hosts_may_be_listed_as_libpq_lists_them(hosts: str, host: str, port: str) -> None:
    url = make_url(postgres_url(f"postgresql://app:{SECRET}@{hosts}/dashtam?sslmode=require", writes=True))

    assert (url.username, url.password, url.host, url.database) == ("app", SECRET, None, "dashtam")
    assert dict(url.query) == {"host": host, "port": port, "sslmode": "require", "target_session_attrs": "read-write"}


@pytest.mark.parametrize("listed", ["h1,h2/dashtam?sslmode=require", "/dashtam?host=h1,h2&port=5432,5433"])
def test_of_several_hosts_one_that_takes_writes_is_wanted_by_those_who_write(listed: str) -> None:
    listed = f"postgresql://app:{SECRET}@{listed}"

    assert make_url(postgres_url(listed, writes=True)).query["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in postgres_url(listed, writes=False)
    assert (
        make_url(postgres_url(f"{listed}&target_session_attrs=any", writes=True)).query["target_session_attrs"] == "any"
    )


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("h:five/dashtam", "the form is postgresql://user:password@host:5432/name"),
        ("h:65536/dashtam", "no number from 1 to 65535"),
        ("h1:5432,h2:0/dashtam", "no number from 1 to 65535"),
        ("h/dashtam?prepare_threshold=0", "set DATABASE_POOLER=true"),
        ("h/dashtam?sslmod=require", "sslmod is no option that libpq knows"),
        ("h/dashtam?autocommit", "autocommit is no option"),
        ("[::1/dashtam", "not a readable address"),
        ("a[::1]/dashtam", "not a readable address"),
    ],
)
def test_address_that_would_fail_later_is_refused_with_the_form_that_works(rest: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z ]") as refused:
        postgres_url(f"postgresql://app:{SECRET}@{rest}", writes=True)

    assert says in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("postgresql+psycopg://app@/dashtam?host=127.0.0.1,::1&port=5432,5433", True),
        ("postgresql+psycopg://app@/dashtam?host=127.0.0.1:5433", True),
        ("postgresql+psycopg://app@/dashtam?host=127.0.0.1,db.example&port=5432,5433", False),
        ("postgresql+psycopg://app@/dashtam?host=db.example:5433", False),
    ],
)
def test_loopback_means_all_hosts(url: str, local: bool) -> None:
    assert is_loopback(url) is local


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        f"redis://:{SECRET}@127.0.0.1:6379/3",
        f"rediss://app:{SECRET}@[::1]:6379/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
        f"sentinel://app:{SECRET}@h1,h2:26380,[::1]:26381/0?master=dashtam&sentinel_password={SECRET}",
        f"sentinels://:{SECRET}@h1/0?master=dashtam&ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_address_of_redis_that_works_is_accepted(url: str) -> None:
    assert redis_address.parse(url).place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h1,h2", "names several servers; name one"),
        (f"rediss://app:{SECRET}@h1:1,h2:2/0", "the form is rediss://user:password@host:6379/0"),
        ("redis://h:six/0", "no number from 1 to 65535"),
        ("redis://h:99999/0", "no number from 1 to 65535"),
        ("redis://h/name", "a database that is no number"),
        ("redis://h/0?protocol=3", "protocol is no option of this address"),
        ("redis+sentinel://h1", "must begin with redis:// or rediss://"),
        (
            f"redis://:{SECRET}@h1,h2",
            "For Sentinels: the form is sentinel://user:password@host:26379,host:26379/0?master",
        ),
        (f"sentinel://:{SECRET}@h1,h2/0", "does not name the primary that the Sentinels know"),
        (f"sentinel://:{SECRET}@h1,h2:six/0?master=m", "no number from 1 to 65535; the form is sentinel://"),
        (f"sentinel://h1/0?master=m&sentinel_passwort={SECRET}", "sentinel_passwort is no option of this address"),
        ("redis://h1/0?master=m", "master is no option of this address"),
    ],
)
def test_address_of_redis_that_would_fail_later_is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z ]") as refused:
        redis_address.parse(url)

    assert says in str(refused.value)
    assert SECRET not in str(refused.value)


def test_address_of_sentinels_is_taken_apart() -> None:
    url = f"sentinel://app:{SECRET}%40@h1,h2:26380,[::1]:26381/3?master=dashtam&sentinel_password={SECRET}2"

    address = redis_address.parse(url)

    assert address.hosts == (("h1", 26379), ("h2", 26380), ("::1", 26381))
    assert (address.master, address.database, address.user, address.password) == ("dashtam", 3, "app", f"{SECRET}@")
    assert address.sentinel_login() == {"password": f"{SECRET}2"}
    assert address.place == "the primary 'dashtam' of the Sentinels h1:26379, h2:26380, [::1]:26381"
    assert address.for_kombu.split(";")[1] == f"sentinel://app:{SECRET}%40@h2:26380/3"
    assert SECRET not in repr(address)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql+psycopg://app@h1/dashtam", [("h1", None)]),
        ("postgresql+psycopg://app@/dashtam?host=h1,::1&port=5433,5434", [("h1", 5433), ("::1", 5434)]),
        ("postgresql+psycopg://app@/dashtam?host=h1,h2&port=5433", [("h1", 5433), ("h2", 5433)]),
        ("postgresql+psycopg://app@/dashtam?host=h1:5433", [("h1", 5433)]),
        ("postgresql+psycopg:///dashtam", []),
    ],
)
def test_hosts_of_postgres_are_found_wherever_they_stand(url: str, hosts: list[tuple[str, int | None]]) -> None:
    assert postgres_hosts(url) == hosts
