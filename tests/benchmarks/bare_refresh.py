"""What a refresh costs at least: the request to the token endpoint alone, with bare aiohttp, 250 at a time.

`python -m tests.benchmarks.bare_refresh URL COUNT LABEL` prints the microseconds of CPU of one call.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiohttp

_AT_A_TIME = 250


async def _ask(url: str, tokens: list[str]) -> float:
    connector = aiohttp.TCPConnector(limit=_AT_A_TIME)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(token: str) -> None:
            form = {"grant_type": "refresh_token", "refresh_token": token}
            async with session.post(f"{url}/v1/oauth/token", data=form) as answer:
                await answer.json()

        began = time.process_time()
        for start in range(0, len(tokens), _AT_A_TIME):
            await asyncio.gather(*map(one, tokens[start : start + _AT_A_TIME]))
        return (time.process_time() - began) / len(tokens) * 1e6


def main() -> None:
    """Asks and prints."""
    url, count, label = sys.argv[1:]
    tokens = [f"{label}-{number}.1" for number in range(int(count))]
    sys.stdout.write(f"{asyncio.run(_ask(url, tokens)):.1f}\n")


if __name__ == "__main__":
    main()
