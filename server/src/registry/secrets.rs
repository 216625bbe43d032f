//! Secrets: their values go in here and come out only in bundles.

use devbox_secrets_proto::name::{InvalidVariable, max_value_len};
use devbox_secrets_proto::secret::SecretBytes;
use serde::Serialize;

use super::{Caller, Refusal, Registry, SecretSelector, limits};
use crate::clock::now_ms;
use crate::crypto::id::SecretId;
use crate::crypto::{CryptoError, ValueLocation};
use crate::store::{Action, Page, SealedSecret, Secret, StoreError, TimeMs};

/// A secret without its value. Serialises to the API's `SecretView`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretView {
    pub(crate) id: SecretId,
    /// Its name, unique in the account.
    pub(crate) name: String,
    pub(crate) create_time_ms: TimeMs,
    pub(crate) update_time_ms: TimeMs,
}

/// A part of the list of an account's secrets. Serialises to the API's `SecretListView`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SecretPage {
    /// By name.
    pub(crate) secrets: Vec<SecretView>,
    pub(crate) has_more: bool,
    pub(crate) total_count: u64,
}

impl From<Secret> for SecretView {
    fn from(secret: Secret) -> Self {
        let Secret { id, name, create_time_ms, update_time_ms, .. } = secret;
        Self { id, name, create_time_ms, update_time_ms }
    }
}

impl From<Page<Secret>> for SecretPage {
    fn from(page: Page<Secret>) -> Self {
        let secrets = page.rows.into_iter().map(SecretView::from).collect();
        Self { secrets, has_more: page.has_more, total_count: page.total_count.unwrap_or_default() }
    }
}

impl Registry {
    /// Stores a new secret. This and every other write is done once for a caller with a
    /// [`Retry`](super::Retry).
    ///
    /// # Errors
    /// 400 for a bad name or value or a taken name, 403 without the devbox capability.
    pub async fn create_secret(
        &self,
        caller: &Caller,
        name: &str,
        value: SecretBytes,
    ) -> Result<SecretView, Refusal> {
        let created = self.once(caller, Action::SecretCreate, self.insert_secret(caller, name, value)).await;
        created.map(SecretView::from)
    }

    async fn insert_secret(
        &self,
        caller: &Caller,
        name: &str,
        value: SecretBytes,
    ) -> Result<Secret, Refusal> {
        self.check_capability(caller, Action::SecretCreate, printable(name)).await?;
        limits::secret_name(name)?;
        limits::value(name, &value)?;
        let id = SecretId::generate()?;
        let version = 1;
        let now = now_ms();
        let secret = Secret { id, name: name.to_owned(), version, create_time_ms: now, update_time_ms: now };
        let id = secret.id.clone();
        let seal = self.seal(caller, &id, &value);
        let audit = caller.done(Action::SecretCreate, secret.id.as_str()).named(name);
        let request = self.request_key(caller).await?;
        let account = caller.account();
        let limits = self.limits();
        match self.store().insert_secret(account, &secret, &seal, &limits, &audit, request.as_ref()).await {
            Ok(wakes) => {
                self.0.changes.publish(caller.account(), wakes);
                Ok(secret)
            }
            Err(StoreError::Taken) => Err(name_taken(name)),
            Err(error) => Err(self.write_refusal(error)),
        }
    }

    /// Replaces a secret's value.
    ///
    /// # Errors
    /// 400 for a bad value, 403 without the devbox capability, 404.
    pub(crate) async fn update_secret(
        &self,
        caller: &Caller,
        selector: SecretSelector<'_>,
        value: SecretBytes,
    ) -> Result<SecretView, Refusal> {
        let updated =
            self.once(caller, Action::SecretUpdate, self.replace_value(caller, selector, value)).await;
        updated.map(SecretView::from)
    }

    async fn replace_value(
        &self,
        caller: &Caller,
        selector: SecretSelector<'_>,
        value: SecretBytes,
    ) -> Result<Secret, Refusal> {
        let Secret { id, name, .. } = self.find_secret(caller, selector, Action::SecretUpdate).await?.secret;
        limits::value(&name, &value)?;
        let seal = self.seal(caller, &id, &value);
        let audit = caller.done(Action::SecretUpdate, id.as_str()).named(&name);
        let request = self.request_key(caller).await?;
        let account = caller.account();
        let limits = self.limits();
        let updated =
            self.store().update_secret(account, &id, &seal, &limits, &audit, request.as_ref()).await;
        let updated = updated.map_err(|error| self.write_refusal(error))?;
        let (secret, wakes) = updated.ok_or_else(unknown_secret)?;
        self.0.changes.publish(caller.account(), wakes);
        Ok(secret)
    }

    /// One secret's view.
    ///
    /// # Errors
    /// 403 without the devbox capability, 404.
    pub(crate) async fn secret(
        &self,
        caller: &Caller,
        selector: SecretSelector<'_>,
    ) -> Result<SecretView, Refusal> {
        Ok(self.find_secret(caller, selector, Action::SecretRead).await?.secret.into())
    }

    /// Deletes a secret for good, also from every devbox.
    ///
    /// # Errors
    /// 403 without the devbox capability, 404.
    pub(crate) async fn delete_secret(
        &self,
        caller: &Caller,
        selector: SecretSelector<'_>,
    ) -> Result<SecretView, Refusal> {
        self.once(caller, Action::SecretDelete, self.remove_secret(caller, selector))
            .await
            .map(SecretView::from)
    }

    async fn remove_secret(&self, caller: &Caller, selector: SecretSelector<'_>) -> Result<Secret, Refusal> {
        let secret = self.find_secret(caller, selector, Action::SecretDelete).await?.secret;
        let audit = caller.done(Action::SecretDelete, secret.id.as_str()).named(&secret.name);
        let request = self.request_key(caller).await?;
        let deleted =
            self.store().delete_secret(caller.account(), &secret.id, &audit, request.as_ref()).await?;
        let wakes = deleted.ok_or_else(unknown_secret)?;
        self.0.changes.publish(caller.account(), wakes);
        Ok(secret)
    }

    /// `limit` secrets by name (a limit over 5000 is served as 5000), from the one after
    /// `starting_after`: a secret's id, or a name, which need not exist any more.
    ///
    /// # Errors
    /// 403 without the devbox capability; 404 for a `starting_after` that is no name and no
    /// secret's id.
    pub(crate) async fn list_secrets(
        &self,
        caller: &Caller,
        limit: u32,
        starting_after: Option<&str>,
    ) -> Result<SecretPage, Refusal> {
        self.check_capability(caller, Action::SecretRead, "").await?;
        let after = match starting_after {
            Some(text) => self.position(caller, text).await?,
            None => String::new(),
        };
        Ok(self.store().secrets(caller.account(), &after, limit.min(limits::MAX_PAGE)).await?.into())
    }

    /// The name that a list continues after.
    async fn position(&self, caller: &Caller, text: &str) -> Result<String, Refusal> {
        let by_id = self.store().secret(caller.account(), SecretSelector::Id(text)).await?;
        match by_id {
            Some(found) => Ok(found.secret.name),
            None if limits::secret_name(text).is_ok() => Ok(text.to_owned()),
            None => {
                Err(Refusal::not_found("starting_after is no secret's name or id: start over without it"))
            }
        }
    }

    pub(super) fn write_refusal(&self, error: StoreError) -> Refusal {
        match error {
            StoreError::OverBudget(budget) => self.over_budget(budget),
            StoreError::TooLongFor { env, len } => {
                let max = max_value_len(&env);
                limits::invalid_value(&env, InvalidVariable::ValueLength { len, max })
            }
            other => other.into(),
        }
    }

    pub(super) async fn find_secret(
        &self,
        caller: &Caller,
        selector: SecretSelector<'_>,
        action: Action,
    ) -> Result<SealedSecret, Refusal> {
        let (SecretSelector::Name(object) | SecretSelector::Id(object)) = selector;
        self.check_capability(caller, action, printable(object)).await?;
        let found = self.store().secret(caller.account(), selector).await?;
        found.ok_or_else(unknown_secret)
    }

    /// Encrypts `value` under the account's key at the time of the write, because a re-keying may
    /// replace the key until then.
    fn seal<'a>(
        &'a self,
        caller: &'a Caller,
        secret: &'a SecretId,
        value: &'a SecretBytes,
    ) -> impl Fn(&[u8], u64) -> Result<Vec<u8>, CryptoError> + Send + Sync + 'a {
        move |wrapped_key, version| {
            self.key_of(caller.account(), wrapped_key)?.seal(ValueLocation { secret, version }, value)
        }
    }
}

/// The text by which a caller named a secret, for the audit. Empty if it cannot be a name or an id,
/// because it may be a value.
fn printable(object: &str) -> &str {
    if limits::secret_name(object).is_ok() { object } else { "" }
}

fn name_taken(name: &str) -> Refusal {
    let message = format!("there is a secret {name} already: update it, or choose another name");
    Refusal::invalid("name_taken", message)
}

/// 404. The searched text is not repeated: it may be a value sent instead of a name.
pub(super) fn unknown_secret() -> Refusal {
    Refusal::not_found("the account has no such secret: list its secrets for their names and ids")
}
