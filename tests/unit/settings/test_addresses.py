"""Addresses of Postgres and Redis: what works is kept or put into SQLAlchemy's form, all else is refused at startup."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from worker.settings.addresses import is_loopback, postgres_url, require_redis_url

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


def test_of_several_hosts_one_that_takes_writes_is_wanted_by_those_who_write() -> None:
    listed = f"postgresql://app:{SECRET}@h1,h2/dashtam"

    assert "target_session_attrs" not in postgres_url(listed, writes=False)
    assert "=any" in postgres_url(f"{listed}?target_session_attrs=any", writes=True)


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
    ],
)
def test_address_of_redis_that_works_is_accepted(url: str) -> None:
    require_redis_url(url)


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
    ],
)
def test_address_of_redis_that_would_fail_later_is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z ]") as refused:
        require_redis_url(url)

    assert says in str(refused.value)
    assert SECRET not in str(refused.value)
