"""Tables, one file for each subject, and the inputs that create their rows."""

from worker.models.access import ApiKey
from worker.models.account import Account, Balance, BalanceDay, Holding, HoldingDay, Security
from worker.models.base import Base, new_id
from worker.models.feed import ChangeLog, ChangeOrigin, ChangeRead
from worker.models.hooks import HookDelivery, LoginCheck
from worker.models.identity import AccountChange, AccountSource, TransactionKey
from worker.models.liability import Liability
from worker.models.link_session import LinkSession
from worker.models.operations import (
    Heartbeat,
    IntegrationState,
    Notice,
    ProviderAuditLog,
    QuotaDay,
    TaskDelivery,
    TaskFailure,
)
from worker.models.outbox import Delivery, Subscription
from worker.models.provider import DueTime, Provider, ProviderCreate
from worker.models.simplefin import SimplefinAccess
from worker.models.sync import BookDrift, Quarantine, SyncCursor, SyncRun, SyncUndo, UnsettledRun, sync_seen
from worker.models.token import LinkState, ProviderToken, Revocation, Spool, SpooledAnswer, TokenRefresh
from worker.models.transaction import Transaction
from worker.models.user import User

__all__ = [
    "Account",
    "AccountChange",
    "AccountSource",
    "ApiKey",
    "Balance",
    "BalanceDay",
    "Base",
    "BookDrift",
    "ChangeLog",
    "ChangeOrigin",
    "ChangeRead",
    "Delivery",
    "DueTime",
    "Heartbeat",
    "Holding",
    "HoldingDay",
    "HookDelivery",
    "IntegrationState",
    "Liability",
    "LinkSession",
    "LinkState",
    "LoginCheck",
    "Notice",
    "Provider",
    "ProviderAuditLog",
    "ProviderCreate",
    "ProviderToken",
    "Quarantine",
    "QuotaDay",
    "Revocation",
    "Security",
    "SimplefinAccess",
    "Spool",
    "SpooledAnswer",
    "Subscription",
    "SyncCursor",
    "SyncRun",
    "SyncUndo",
    "TaskDelivery",
    "TaskFailure",
    "TokenRefresh",
    "Transaction",
    "TransactionKey",
    "UnsettledRun",
    "User",
    "new_id",
    "sync_seen",
]
