"""Statements that change what the change feed tells, for writers that choose among them by chance."""

from __future__ import annotations


def _statements(block: str) -> tuple[str, ...]:
    return tuple(statement.strip() for statement in block.split(";") if statement.strip())


LOGIN = """
WITH made AS (
    INSERT INTO providers (id, user_id, provider_key, alias, status)
    SELECT gen_random_uuid(), id, 'model', gen_random_uuid()::text, 'active' FROM users ORDER BY random() LIMIT 1
    RETURNING id
)
INSERT INTO accounts (id, provider_id, provider_account_id, name, type, subtype, currency, status, content_hash)
SELECT gen_random_uuid(), id, 'a', 'first', 'depository', 'checking', 'USD', 'active', '' FROM made
"""
"""A login of one of the users, with an account."""

START = _statements(
    """
INSERT INTO users (id, email) SELECT gen_random_uuid(), 'user' || i || '@example.com' FROM generate_series(1, 4) i;
INSERT INTO securities (id, key, type, symbol, multiplier, source, content_hash)
SELECT gen_random_uuid(), 's' || i, 'equity', 'S' || i, 1, 'model', '' FROM generate_series(1, 8) i
"""
)
"""Four users, and securities."""

OFTEN = (
    *_statements(
        """
INSERT INTO transactions (id, account_id, provider_transaction_id, type, status, amount, currency, posted_date,
    description, content_hash)
SELECT gen_random_uuid(), (SELECT id FROM accounts ORDER BY random() LIMIT 1), gen_random_uuid()::text, 'payment',
    'posted', (i * 7 % 100)::numeric / 10, 'USD', DATE '2026-01-01' + i % 50, 'row ' || i, ''
FROM generate_series(1, {count}) i;
INSERT INTO balances (id, account_id, current, currency, source, content_hash, taken_at)
SELECT gen_random_uuid(), (SELECT id FROM accounts ORDER BY random() LIMIT 1), i, 'USD', 'stated', '', clock_timestamp()
FROM generate_series(1, 3) i;
INSERT INTO holdings (id, account_id, holding_key, security_id, quantity, currency, content_hash)
SELECT gen_random_uuid(), (SELECT id FROM accounts ORDER BY random() LIMIT 1), gen_random_uuid()::text, s.id, 1,
    'USD', '' FROM (SELECT id FROM securities ORDER BY random() LIMIT 2) s;
INSERT INTO liabilities (id, account_id, liability_key, kind, currency, details, content_hash)
SELECT gen_random_uuid(), id, gen_random_uuid()::text, 'credit', 'USD', '{{}}', '' FROM accounts
ORDER BY random() LIMIT 2;
UPDATE liabilities SET interest_rate = coalesce(interest_rate, 0) + 1
WHERE id IN (SELECT id FROM liabilities ORDER BY random() LIMIT 3);
DELETE FROM liabilities WHERE id IN (SELECT id FROM liabilities ORDER BY random() LIMIT 1);
UPDATE transactions SET amount = amount + 1
WHERE id IN (SELECT id FROM transactions ORDER BY random() LIMIT {count});
UPDATE transactions SET posted_date = posted_date - 9
WHERE id IN (SELECT id FROM transactions ORDER BY random() LIMIT 5);
UPDATE transactions SET status = 'removed' WHERE id IN (SELECT id FROM transactions ORDER BY random() LIMIT 5);
UPDATE transactions SET status = 'posted' WHERE id IN (SELECT id FROM transactions ORDER BY random() LIMIT 5);
UPDATE transactions SET account_id = (SELECT id FROM accounts ORDER BY random() LIMIT 1)
WHERE id IN (SELECT t.id FROM transactions t ORDER BY random() LIMIT 2);
UPDATE transactions SET security_id = (SELECT id FROM securities ORDER BY random() LIMIT 1)
WHERE id IN (SELECT id FROM transactions ORDER BY random() LIMIT 3);
DELETE FROM transactions WHERE id IN (SELECT id FROM transactions ORDER BY random() LIMIT {count});
DELETE FROM balances WHERE id IN (SELECT id FROM balances ORDER BY random() LIMIT 4);
UPDATE holdings SET quantity = quantity + 1 WHERE id IN (SELECT id FROM holdings ORDER BY random() LIMIT 3);
DELETE FROM holdings WHERE id IN (SELECT id FROM holdings ORDER BY random() LIMIT 1);
UPDATE accounts SET name = md5(random()::text) WHERE id IN (SELECT id FROM accounts ORDER BY random() LIMIT 1);
UPDATE securities SET symbol = left(md5(random()::text), 4)
WHERE id IN (SELECT id FROM securities ORDER BY random() LIMIT 1);
INSERT INTO accounts (id, provider_id, provider_account_id, name, type, subtype, currency, status, content_hash)
SELECT gen_random_uuid(), id, gen_random_uuid()::text, 'new', 'depository', 'checking', 'USD', 'active', ''
FROM providers ORDER BY random() LIMIT 1
"""
    ),
    LOGIN,
)

RARELY = _statements(
    """
DELETE FROM accounts
WHERE id IN (SELECT id FROM accounts ORDER BY random() LIMIT 1) AND (SELECT count(*) FROM accounts) > 6;
DELETE FROM providers
WHERE id IN (SELECT id FROM providers ORDER BY random() LIMIT 1) AND (SELECT count(*) FROM providers) > 4;
UPDATE transactions SET fees = coalesce(fees, 0) + 1
WHERE id IN (SELECT id FROM transactions ORDER BY random() LIMIT 1500)
"""
)
