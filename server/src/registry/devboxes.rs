//! The registry of devboxes: what each may have, and its one-time join token. No machine is
//! started.

use std::collections::BTreeMap;

use devbox_secrets_proto::join_token::JoinToken;
use serde::Serialize;

use super::{Caller, Refusal, Registry, limits};
use crate::clock::now_ms;
use crate::crypto::id::{DevboxId, SecretId};
use crate::store::{
    Action, Budget, Devbox, DevboxList, DevboxStatus, GatewayBinding, JoinGrant, Page, TimeMs,
};

/// How long a join token is valid, in milliseconds.
pub(crate) const JOIN_TOKEN_LIFETIME_MS: TimeMs = 10 * 60 * 1000;

/// A devbox to be registered.
#[derive(Debug, Clone, Default)]
pub struct NewDevbox {
    pub(crate) name: Option<String>,
    /// Environment name → a secret's name or id. `None` for every secret of the account under its
    /// own name, including later ones. An empty map for no secret.
    pub(crate) secrets: Option<BTreeMap<String, String>>,
    /// Environment prefix → gateway binding.
    pub(crate) gateways: BTreeMap<String, GatewayBinding>,
    /// Free text of the registrant.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A registered devbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DevboxView {
    pub(crate) id: DevboxId,
    pub(crate) name: Option<String>,
    pub(crate) status: DevboxStatus,
    pub(crate) create_time_ms: TimeMs,
    pub(crate) end_time_ms: Option<TimeMs>,
    /// Free text of the registrant.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Environment name → secret, including deleted ones. `None` for every secret of the account
    /// under its own name.
    pub(crate) secrets: Option<BTreeMap<String, SecretId>>,
    /// Environment prefix → gateway binding.
    pub(crate) gateways: BTreeMap<String, GatewayBinding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DevboxPage {
    /// Newest first.
    pub(crate) devboxes: Vec<DevboxView>,
    pub(crate) has_more: bool,
    /// The total, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total_count: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DevboxQuery {
    /// Most devboxes; a limit over 5000 is served as 5000.
    pub(crate) limit: u32,
    pub(crate) starting_after: Option<String>,
    /// Only devboxes of one of these statuses; empty for any.
    pub(crate) status: Option<Vec<DevboxStatus>>,
    pub(crate) counted: bool,
}

impl DevboxQuery {
    /// The first `limit` devboxes.
    pub(crate) fn first(limit: u32) -> Self {
        Self { limit, starting_after: None, status: None, counted: true }
    }
}

impl From<Devbox> for DevboxView {
    fn from(devbox: Devbox) -> Self {
        Self {
            id: devbox.id,
            name: devbox.name,
            status: devbox.status,
            create_time_ms: devbox.create_time_ms,
            end_time_ms: devbox.end_time_ms,
            metadata: devbox.metadata,
            secrets: devbox.bindings,
            gateways: devbox.gateways,
        }
    }
}

impl From<Page<Devbox>> for DevboxPage {
    fn from(page: Page<Devbox>) -> Self {
        let devboxes = page.rows.into_iter().map(DevboxView::from).collect();
        Self { devboxes, has_more: page.has_more, total_count: page.total_count }
    }
}

impl Registry {
    /// Registers a devbox and makes its join token: valid once, for [`JOIN_TOKEN_LIFETIME_MS`] from
    /// now, even if a retry returns it again.
    ///
    /// # Errors
    /// 400 for a bad name or a binding to an unknown secret, 403 without the devbox capability.
    pub async fn create_devbox(
        &self,
        caller: &Caller,
        new: NewDevbox,
    ) -> Result<(DevboxView, JoinToken), Refusal> {
        let devbox: Devbox = self.once(caller, Action::DevboxCreate, self.register(caller, new)).await?;
        // The token's secret is derived, not stored, so a retry of the request returns the same
        // one.
        let secret = self.current_account_key(caller).await?.join_secret(&devbox.id);
        let token = JoinToken::new(devbox.id.as_str(), secret.into_secret(), *self.ca().fingerprint());
        Ok((devbox.into(), token.map_err(Refusal::internal)?))
    }

    async fn register(&self, caller: &Caller, new: NewDevbox) -> Result<Devbox, Refusal> {
        self.check_capability(caller, Action::DevboxCreate, "").await?;
        self.check(&new)?;
        let bindings = self.resolve_bindings(caller, new.secrets).await?;
        let devbox = Devbox {
            id: DevboxId::generate()?,
            name: new.name,
            status: DevboxStatus::Running,
            create_time_ms: now_ms(),
            end_time_ms: None,
            metadata: new.metadata,
            bindings,
            gateways: new.gateways,
        };
        self.insert_devbox(caller, &devbox).await?;
        Ok(devbox)
    }

    /// One devbox.
    ///
    /// # Errors
    /// 403 without the devbox capability, 404.
    pub(crate) async fn devbox(&self, caller: &Caller, id: &str) -> Result<DevboxView, Refusal> {
        self.check_capability(caller, Action::DevboxRead, "").await?;
        self.find_devbox(caller, &DevboxId::new(id)).await.map(DevboxView::from)
    }

    /// Devboxes, newest first.
    ///
    /// # Errors
    /// 404 if the account has no devbox `starting_after`, 403 without the devbox capability.
    pub(crate) async fn list_devboxes(
        &self,
        caller: &Caller,
        query: &DevboxQuery,
    ) -> Result<DevboxPage, Refusal> {
        self.check_capability(caller, Action::DevboxRead, "").await?;
        let status = match query.status.as_deref() {
            None => None,
            Some([]) => {
                let total_count = query.counted.then_some(0);
                return Ok(DevboxPage { devboxes: Vec::new(), has_more: false, total_count });
            }
            Some([status]) => Some(*status),
            // There are two statuses.
            Some(_) => None,
        };
        let list = DevboxList {
            limit: query.limit.min(limits::MAX_PAGE),
            after: query.starting_after.as_deref().map(DevboxId::new),
            status,
            counted: query.counted,
        };
        let page = self.store().devboxes(caller.account(), &list).await?;
        page.map(DevboxPage::from).ok_or_else(|| {
            Refusal::not_found("starting_after is no devbox of the account: start over without it")
        })
    }

    /// Shuts a devbox down for good: its certificates and join token are refused from now on.
    /// Idempotent.
    ///
    /// # Errors
    /// 403 without the devbox capability, 404.
    pub(crate) async fn shutdown_devbox(&self, caller: &Caller, id: &str) -> Result<DevboxView, Refusal> {
        let id = DevboxId::new(id);
        let ended: Devbox = self.once(caller, Action::DevboxShutdown, self.end_devbox(caller, &id)).await?;
        Ok(ended.into())
    }

    async fn end_devbox(&self, caller: &Caller, id: &DevboxId) -> Result<Devbox, Refusal> {
        self.check_capability(caller, Action::DevboxShutdown, "").await?;
        let audit = caller.done(Action::DevboxShutdown, id.as_str());
        let request = self.request_key(caller).await?;
        let ended = self.store().shutdown_devbox(caller.account(), id, &audit, request.as_ref()).await?;
        // Only after a shutdown that took effect: the devbox of another account keeps its session.
        if let Some(wakes) = ended {
            self.0.sessions.forget(id);
            self.0.changes.publish(caller.account(), wakes);
        }
        self.find_devbox(caller, id).await
    }

    pub(super) async fn find_devbox(&self, caller: &Caller, id: &DevboxId) -> Result<Devbox, Refusal> {
        let found = self.store().devbox(caller.account(), id).await?;
        found.ok_or_else(|| {
            Refusal::not_found("the account has no such devbox: list its devboxes for their ids")
        })
    }

    async fn insert_devbox(&self, caller: &Caller, devbox: &Devbox) -> Result<(), Refusal> {
        let expire_time_ms = devbox.create_time_ms.saturating_add(JOIN_TOKEN_LIFETIME_MS);
        let grant = |wrapped: &[u8]| {
            let hash = self.key_of(caller.account(), wrapped)?.join_secret(&devbox.id).hash();
            Ok(JoinGrant { hash, expire_time_ms })
        };
        let audit = caller.done(Action::DevboxCreate, devbox.id.as_str());
        let audit = match &devbox.name {
            Some(name) => audit.named(name),
            None => audit,
        };
        let request = self.request_key(caller).await?;
        let account = caller.account();
        let limits = self.limits();
        let inserted =
            self.store().insert_devbox(account, devbox, &grant, &limits, &audit, request.as_ref()).await;
        inserted.map_err(|error| self.write_refusal(error))
    }

    async fn resolve_bindings(
        &self,
        caller: &Caller,
        named: Option<BTreeMap<String, String>>,
    ) -> Result<Option<BTreeMap<String, SecretId>>, Refusal> {
        let Some(named) = named else {
            return Ok(None);
        };
        self.check_budget(named.len(), self.limits().bindings, Budget::Bindings)?;
        named.keys().try_for_each(|env| limits::env_name(env))?;
        let texts: Vec<&str> = named.values().map(String::as_str).collect();
        let found = self.store().secret_ids(caller.account(), &texts).await?;
        let bound = named.keys().zip(found);
        bound
            .map(|(env, id)| Ok((env.clone(), id.ok_or_else(|| unknown_secret(env))?)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn check(&self, new: &NewDevbox) -> Result<(), Refusal> {
        if let Some(name) = &new.name {
            limits::text("a devbox's name", name)?;
        }
        let metadata = limits::metadata_len(&new.metadata);
        self.check_budget(metadata, self.limits().metadata_bytes, Budget::MetadataBytes)?;
        limits::gateways(&new.gateways)
    }
}

/// The text may be a value that was sent instead of a name, so it is not repeated.
fn unknown_secret(env: &str) -> Refusal {
    let message = format!(
        "binding {env}: the account has no secret of that name or id: create it first, and send its name, not its value"
    );
    Refusal::invalid("unknown_secret", message)
}
