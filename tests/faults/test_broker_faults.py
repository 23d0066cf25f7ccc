"""The broker dies, forgets, stands still and fills up. It only says that there is work; what is due is in Postgres."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from tests.support.faults_brokers import LOSSES
from tests.support.faults_casts import page_of
from tests.support.faults_processes import go_on, stop
from tests.support.faults_world import World
from tests.support.waiting import wait_for

every_broker = pytest.mark.brokers("redis", "sentinel", "rabbitmq")
brokers_behind_a_proxy = pytest.mark.brokers("redis", "rabbitmq")
losses = pytest.mark.parametrize("loss", LOSSES)


@every_broker
@losses
def test_redis_lost_while_idle(world: World, loss: str) -> None:
    with world.servers.losses[loss]():
        world.moves_on()
    world.recovers(f"broker {loss} while idle", hurry=True)

    world.assert_nothing_was_lost(retries=False)


@every_broker
@losses
def test_redis_lost_while_a_refresh_and_a_page_are_in_flight(world: World, loss: str) -> None:
    page = world.sandbox.raise_barrier("mid_body", login=world.synced[0], path=page_of(world.synced[0]))
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as rotated:
        world.moves_on()
        rotated.wait_for_arrivals()
        page.wait_for_arrivals()
        with world.servers.losses[loss]():
            rotated.release()
            page.release()
            world.wait_for_the_answer(world.refreshed[0])
    world.recovers(f"broker {loss} with tasks in flight", hurry=True)

    world.assert_nothing_was_lost(retries=False)


@pytest.mark.long
@every_broker
def test_redis_stands_still_for_longer_than_every_timeout(world: World) -> None:
    with world.servers.broker_stopped():
        world.moves_on()
        # Longer than the visibility timeout and the longest socket timeout of broker and journal.
        world.let_pass(33)
    world.recovers("Redis stood still for 33 s", hurry=True)

    world.assert_nothing_was_lost(retries=False)


@brokers_behind_a_proxy
def test_connections_to_redis_stall(world: World) -> None:
    with world.servers.broker_network.stalled():
        world.moves_on()
        world.let_pass(6)
    world.recovers("connections to Redis stalled", hurry=True)

    world.assert_nothing_was_lost(retries=False)


@every_broker
def test_same_messages_delivered_twenty_times(world: World) -> None:
    ids = [str(id_) for id_ in world.ids.values()]
    with world.sandbox.paused_before_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        world.send("worker.tasks.tokens.refresh_providers", [ids], times=20)
        world.send("worker.tasks.accounts.sync_providers", [ids], times=20)
    world.recovers("twenty copies of every message", hurry=True)

    world.assert_nothing_was_lost(retries=False)


def test_tasks_that_outlive_the_visibility_timeout_are_delivered_again_while_they_run(world: World) -> None:
    page = world.sandbox.raise_barrier("mid_body", login=world.synced[0], path=page_of(world.synced[0]))
    with world.sandbox.paused_before_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        page.wait_for_arrivals()
        assert deliver_again(world) >= 2
        page.release()
    world.recovers("tasks delivered again while they ran", hurry=True)

    world.assert_nothing_was_lost(retries=False)


def deliver_again(world: World) -> int:
    """What a worker does with messages that nobody has acknowledged in time; returns how many there were."""
    messages = world.servers.redis.hvals("unacked")
    for raw in messages:
        message, _, queue = json.loads(raw)
        message["properties"]["delivery_info"]["redelivered"] = True
        world.servers.redis.rpush(queue, json.dumps(message))
    return len(messages)


@brokers_behind_a_proxy
def test_refresh_in_flight_at_a_strict_provider_outlives_the_loss_of_redis(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as rotated:
        world.hours_pass(world.refreshed[0])
        rotated.wait_for_arrivals()
        before = losses_noticed(world)
        with world.servers.broker_network.refusing():
            wait_for(lambda: losses_noticed(world) > before, what="a worker's notice")
            world.let_pass(1)
            rotated.release()
            world.wait_for_the_answer(world.refreshed[0])
    world.recovers("Redis lost while a strict provider rotated", hurry=True)

    world.assert_nothing_was_lost(retries=False)


def losses_noticed(world: World) -> int:
    return sum(worker.logs().count("Connection to broker lost") for worker in world.workers)


@every_broker
def test_both_workers_stand_still_beyond_the_visibility_timeout(world: World) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        for worker in world.workers:
            stop(worker)
        world.let_pass(13)
        for worker in world.workers:
            go_on(worker)
    world.recovers("both workers stood still for 13 s", hurry=True)

    world.assert_nothing_was_lost()


ID = "00000000-0000-4000-8000-000000000000"
BAD_MESSAGES = {
    "unknown task": ("worker.tasks.tokens.no_such_task", [], {}),
    "wrong uuid": ("worker.tasks.tokens.refresh_providers", [["not-a-uuid"]], {}),
    "path": ("worker.tasks.tokens.refresh_providers", [["../../etc/passwd"]], {}),
    "negative number": ("worker.tasks.accounts.sync_providers", [[-1]], {}),
    "no list": ("worker.tasks.accounts.sync_providers", [7], {}),
    "deleted provider": ("worker.tasks.tokens.refresh_providers", [[ID]], {}),
    "deleted provider's sync": ("worker.tasks.accounts.sync_providers", [[ID]], {}),
    "unknown trigger": ("worker.tasks.accounts.sync_providers", [[ID]], {"trigger": "nobody"}),
    "unreadable date": ("worker.tasks.accounts.sync_providers", [[ID]], {"since": "yesterday"}),
    "extra arguments": ("worker.tasks.tokens.refresh_due", [1, 2], {"evil": True}),
    "ten megabytes": ("worker.tasks.tokens.refresh_providers", [["x" * 10_000_000]], {}),
}
RAW_MESSAGES = {
    "not json": "{{{ not json",
    "empty": "",
    "number": "7",
    "no body": json.dumps({"headers": {}, "properties": {}}),
    "pickle": json.dumps(
        {
            "body": "gASVJgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAtlY2hvIGhhY2tlZJSFlFKULg==",
            "content-encoding": "binary",
            "content-type": "application/x-python-serialize",
            "headers": {"lang": "py", "task": "worker.tasks.tokens.refresh_due", "id": ID},
            "properties": {
                "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": "refresh"},
                "delivery_tag": ID,
                "correlation_id": ID,
            },
        }
    ),
}


@every_broker
def test_bad_messages_are_refused_and_all_that_is_due_is_done(world: World) -> None:
    world.moves_on()
    for task, args, kwargs in BAD_MESSAGES.values():
        queue = "sync" if "accounts" in task else "refresh"
        world.send(task, args, kwargs, queue=queue, times=3)
    world.recovers("bad messages", hurry=True)
    wait_for(lambda: world.servers.queued() == 0, what="the taking of the messages")

    world.assert_nothing_was_lost(retries=False)


@pytest.mark.long
def test_unreadable_items_in_the_queues_cost_at_most_workers(world: World) -> None:
    world.moves_on()
    for item in RAW_MESSAGES.values():
        for queue in ("refresh", "sync"):
            world.servers.redis.rpush(queue, item)
    world.recovers("unreadable items in the queues", hurry=True)

    world.assert_nothing_was_lost()


def test_application_speaks_json_alone() -> None:
    from worker.app import app

    assert isinstance(app, Celery)
    assert (app.conf.accept_content, app.conf.task_serializer) == (["json"], "json")
