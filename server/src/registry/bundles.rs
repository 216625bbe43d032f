//! Bundles: each value of a devbox is opened and sealed to the daemon in the same buffer, which is
//! then wiped.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use devbox_secrets_proto::bundle::BundleWriter;
use devbox_secrets_proto::devbox::{BundleRequest, MAX_WAIT_MS};
use devbox_secrets_proto::name::{check_name, max_value_len};
use devbox_secrets_proto::seal::{Context, Label, PUBLIC_KEY_LEN, SealError, Sealer, TAG_LEN};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::audit::Attempt;
use super::clone_detection::{Link, in_use};
use super::identity_sessions::SessionClaim;
use super::in_flight::Share;
use super::peer::shut_down;
use super::{Delivery, DevboxPeer, Refusal, RefusalKind, Registry};
use crate::crypto::id::{AccountId, DevboxId};
use crate::crypto::{AccountKey, ValueLocation, plaintext_len};
use crate::store::{Action, AdmissionState, BoundValue, Budget, BundleContents, ENTRY_OVERHEAD};

/// The largest bundle in bytes that is sealed on the runtime's threads. Larger ones get a thread
/// for blocking work, so that no other request waits.
const MOST_INLINE: usize = 64 * 1024;

impl Registry {
    /// The devbox's bundle; `None` if the account has not changed since `known_revision` for
    /// `wait_ms` (at most [`MAX_WAIT_MS`]). A held request costs one small read at its start and
    /// one at its end: values are loaded only to be sent. The devbox is authorized again before the
    /// response.
    ///
    /// # Errors
    /// 400 for a bad key or a malformed step; 403 for a stranger's certificate, a devbox that is
    /// shut down, or an identity that is used elsewhere; the latter are audited.
    pub async fn bundle(
        &self,
        peer: &DevboxPeer,
        request: &BundleRequest,
    ) -> Result<Option<Delivery>, Refusal> {
        let public_key = decode_key(&request.hpke_public_key)?;
        let deadline = Instant::now() + Duration::from_millis(u64::from(request.wait_ms.min(MAX_WAIT_MS)));
        let link = Link::parse(&request.continuity)?;
        self.check_bundle_rate(peer)?;
        // The counter is read before the query: a change between the query and the hold is not
        // lost.
        let looked = self.0.changes.wake_count();
        let (mut admission, mut claim) = self.begin(peer, link).await?;
        let mut held = None;
        while request.known_revision == Some(admission.revision) {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let held = held.get_or_insert_with(|| self.0.changes.hold(&admission.account, looked));
            tokio::select! {
                () = held.until_woken(admission.wakes, deadline) => {}
                () = claim.ended() => {}
            }
            // The delay merges many changes into one response, so that the daemon's next request is
            // within its rate.
            tokio::time::sleep(self.bundle_pace(peer)).await;
            // The devbox may have been shut down or revoked while the request was held.
            admission = self.admit_here(peer).await?;
            claim.check()?;
        }
        self.deliver(peer, &admission, claim, public_key).await.map(Some)
    }

    /// Admits the peer, and lets its request continue. Starts over if its identity moved in
    /// between.
    async fn begin(&self, peer: &DevboxPeer, link: Link) -> Result<(AdmissionState, SessionClaim), Refusal> {
        let admitting = self.0.sessions.admitting(peer.devbox_id());
        loop {
            let admitted = admitting.move_count();
            let admission = self.admit_here(peer).await?;
            if let Some(claim) = self.claim_session(peer, link, &admission, admitted).await? {
                return Ok((admission, claim));
            }
        }
    }

    /// Like [`Self::admit`], but a refused peer also gives up its identity session.
    async fn admit_here(&self, peer: &DevboxPeer) -> Result<AdmissionState, Refusal> {
        let admitted = self.admit(peer, Action::DevboxBundle).await;
        if admitted.as_ref().is_err_and(|refusal| refusal.kind() == RefusalKind::Forbidden) {
            self.0.sessions.leave(peer);
        }
        admitted
    }

    async fn contents(&self, peer: &DevboxPeer, account: &AccountId) -> Result<BundleContents, Refusal> {
        match self.store().bundle_contents(account, peer.devbox_id()).await? {
            Some(contents) => Ok(contents),
            None => self.refuse(attempt(peer, account), shut_down()).await,
        }
    }

    /// A bundle over the budget is refused before any value is read.
    async fn check_bundle_len(&self, peer: &DevboxPeer, admission: &AdmissionState) -> Result<(), Refusal> {
        if admission.bundle_bytes <= self.limits().bundle_bytes {
            return Ok(());
        }
        let refusal = self.over_budget(Budget::BundleBytes).forbidding();
        self.refuse(attempt(peer, &admission.account), refusal).await
    }

    async fn deliver(
        &self,
        peer: &DevboxPeer,
        admission: &AdmissionState,
        mut claim: SessionClaim,
        public_key: Vec<u8>,
    ) -> Result<Delivery, Refusal> {
        self.check_bundle_len(peer, admission).await?;
        let account = &admission.account;
        let share = match self.0.in_flight.take_now(account, admission.bundle_bytes) {
            Some(share) => share,
            None => self.wait_for_share(peer, admission, &mut claim).await?,
        };
        let mut contents = self.contents(peer, account).await?;
        contents.values.retain(fits_its_name);
        let facts = format!("revision {}, {} values", contents.revision, contents.values.len());
        let key = self.unwrapped(account, &contents.wrapped_key).await?;
        let (bundle, share) = seal_apart(peer.devbox_id().clone(), key, public_key, contents, share).await?;
        // Each delivery is audited before it is sent. A full disk therefore stops deliveries, but
        // no daemon loses the bundle that it has: unchanged polls write nothing and renew its
        // lease.
        self.record_delivery(attempt(peer, account), facts).await?;
        self.metrics().bundle_delivered();
        Ok(Delivery { bundle, claim, _share: share })
    }

    /// Slow readers of the account can make this take long, so the devbox is authorized again
    /// afterwards.
    async fn wait_for_share(
        &self,
        peer: &DevboxPeer,
        admission: &AdmissionState,
        claim: &mut SessionClaim,
    ) -> Result<Share, Refusal> {
        let share = tokio::select! {
            share = self.0.in_flight.take(&admission.account, admission.bundle_bytes) => Some(share?),
            () = claim.ended() => None,
        };
        // The wait may have been long: the devbox must still be admitted before its values are
        // read.
        self.admit_here(peer).await?;
        claim.check()?;
        share.ok_or_else(in_use)
    }
}

/// A large bundle is sealed on a thread for blocking work. The thread continues if the request ends
/// meanwhile, so the share belongs to the bytes: it returns with the bundle, or is freed with them.
pub(super) async fn seal_apart(
    devbox: DevboxId,
    key: AccountKey,
    public_key: Vec<u8>,
    contents: BundleContents,
    share: Share,
) -> Result<(Vec<u8>, Share), Refusal> {
    if contents.values.iter().map(entry_len).sum::<usize>() <= MOST_INLINE {
        return Ok((seal_bundle(&devbox, &key, &public_key, contents)?, share));
    }
    let seal = move || Ok((seal_bundle(&devbox, &key, &public_key, contents)?, share));
    tokio::task::spawn_blocking(seal).await.map_err(Refusal::internal)?
}

fn attempt(peer: &DevboxPeer, account: &AccountId) -> Attempt {
    peer.attempt(Some(account.clone()), Action::DevboxBundle)
}

fn decode_key(text: &str) -> Result<Vec<u8>, Refusal> {
    let key = STANDARD.decode(text).ok().filter(|key| key.len() == PUBLIC_KEY_LEN);
    key.ok_or_else(invalid_key)
}

fn invalid_key() -> Refusal {
    Refusal::invalid("invalid_key", "hpke_public_key is not an X-Wing public key in base64")
}

/// Writes refuse a value that is too long for its name, but an older state may hold one, and it
/// would make the whole bundle unreadable.
fn fits_its_name(value: &BoundValue) -> bool {
    let fits =
        check_name(&value.env).is_ok() && plaintext_len(&value.secret.sealed) <= max_value_len(&value.env);
    if !fits {
        tracing::warn!(env = value.env, "a value is too long for the name it is bound to and is left out");
    }
    fits
}

fn seal_bundle(
    devbox: &DevboxId,
    key: &AccountKey,
    public_key: &[u8],
    contents: BundleContents,
) -> Result<Vec<u8>, Refusal> {
    let BundleContents { revision, values, .. } = contents;
    let count = u32::try_from(values.len()).map_err(Refusal::internal)?;
    let context = Context { devbox_id: devbox.as_str(), revision, count };
    let (mut sealer, encapped_key) = Sealer::new(public_key, context).map_err(|error| match error {
        SealError::PublicKey => invalid_key(),
        other => Refusal::internal(other),
    })?;
    let capacity = values.iter().map(entry_len).sum();
    let mut writer = BundleWriter::new(revision, &encapped_key, count, capacity);
    for value in values {
        push(&mut writer, &mut sealer, key, value)?;
    }
    Ok(writer.finish())
}

fn entry_len(value: &BoundValue) -> usize {
    ENTRY_OVERHEAD + value.env.len() + value.secret.secret.name.len() + value.secret.sealed.len()
}

/// Opens one value and seals it to the daemon in a buffer that is wiped at the end.
fn push(
    writer: &mut BundleWriter,
    sealer: &mut Sealer,
    key: &AccountKey,
    value: BoundValue,
) -> Result<(), Refusal> {
    let secret = value.secret.secret;
    let location = ValueLocation { secret: &secret.id, version: secret.version };
    let mut buffer = Zeroizing::new(value.secret.sealed);
    let range = key.open_in_place(location, &mut buffer)?;
    let plaintext = &mut buffer[range];
    let label = Label {
        env: &value.env,
        secret: &secret.name,
        secret_id: secret.id.as_str(),
        version: secret.version,
    };
    let tag: [u8; TAG_LEN] = sealer.seal(label, plaintext).map_err(Refusal::internal)?;
    writer.push(label, plaintext, &tag).map_err(Refusal::internal)
}
