//! The behaviour that every backend must show. Each promise is one function; each backend runs them
//! all.

use std::collections::BTreeMap;
use std::sync::Arc;

use devbox_secrets_proto::name::max_value_len;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::sqlite::{SqliteStore, StateDirectory};
use super::*;
use crate::crypto::id::JoinTokenId;
use crate::crypto::{ApiToken, JoinSecret, sealed_len};

/// A backend opened for one test, and what must outlive it.
struct Opened {
    store: Arc<dyn Store>,
    _state: TempDir,
}

async fn sqlite() -> Opened {
    let state = tempfile::tempdir().unwrap();
    let directory = StateDirectory::open(state.path()).unwrap();
    let store = Arc::new(SqliteStore::set_up(&directory, &directory.claim().unwrap()).await.unwrap());
    Opened { store, _state: state }
}

macro_rules! run_on {
    ($backend:ident: $($promise:ident,)*) => {
        mod $backend {
            $(
                #[tokio::test]
                async fn $promise() {
                    let opened = super::$backend().await;
                    super::$promise(opened.store.clone()).await;
                }
            )*
        }
    };
}

run_on! { sqlite:
    the_key_check_and_the_first_ca_are_written_once_and_together,
    a_new_authoritys_predecessor_is_trusted_as_long_as_any_certificate_lives,
    an_authority_under_another_master_key_than_the_states_is_not_added,
    an_authority_is_deleted_unless_it_issues_and_every_request_queries_again,
    a_taken_account_name_is_refused_and_leaves_no_row,
    a_token_is_found_by_its_hash_only,
    a_revocation_keeps_its_first_time,
    an_account_finds_no_row_of_another,
    every_write_that_changes_what_devboxes_may_have_wakes_them,
    names_are_unique_in_an_account_only,
    secrets_are_listed_by_name_and_counted,
    an_update_gets_the_next_version_and_nothing_is_written_when_sealing_fails,
    updates_at_once_each_get_a_version_of_their_own,
    devboxes_are_listed_newest_first_page_by_page,
    a_devbox_is_read_back_as_it_was_registered,
    a_bundle_holds_what_is_bound_in_order_and_no_deleted_secret,
    a_devbox_that_is_shut_down_has_no_bundle,
    a_value_has_to_fit_under_every_name_that_running_devboxes_have_for_it,
    the_kept_counts_are_those_of_the_rows,
    a_join_token_is_redeemed_once_by_any_number_of_attempts,
    a_join_token_is_refused_when_it_is_another_or_over_or_its_devbox_is,
    a_new_join_token_takes_the_last_ones_place_and_ends_certificates_when_redeemed,
    an_admission_state_has_everything_that_decides_about_a_bundle,
    each_write_leaves_one_audit_row,
    rows_recorded_at_once_are_all_there,
    a_change_by_another_connection_is_noticed,
    the_watcher_pauses_under_load_and_misses_no_change,
}

fn record(action: Action) -> AuditRecord {
    AuditRecord {
        time_ms: 1000,
        account: None,
        actor: Actor::Server,
        action,
        object: String::new(),
        object_name: None,
        outcome: Outcome::Done,
        reason: None,
        remote: None,
    }
}

fn done() -> AuditRecord {
    record(Action::SecretCreate)
}

async fn account(store: &Arc<dyn Store>, name: &str) -> AccountId {
    let id = AccountId::generate().unwrap();
    let account = Account {
        id: id.clone(),
        name: name.to_owned(),
        wrapped_key: vec![1, 2, 3],
        devbox_capability: true,
        create_time_ms: 5,
    };
    store.insert_account(&account, &done()).await.unwrap();
    id
}

fn sealed(name: &str) -> SealedSecret {
    let id = SecretId::generate().unwrap();
    let secret = Secret { id, name: name.to_owned(), version: 1, create_time_ms: 5, update_time_ms: 5 };
    SealedSecret { secret, sealed: format!("sealed {name}").into_bytes() }
}

async fn wakes_of(store: &Arc<dyn Store>, account: &AccountId) -> u64 {
    store.wakes(std::slice::from_ref(account)).await.unwrap().remove(0).1
}

async fn secret(store: &Arc<dyn Store>, account: &AccountId, name: &str) -> SecretId {
    let sealed = sealed(name);
    store
        .insert_secret(
            account,
            &sealed.secret,
            &|_, _| Ok(sealed.sealed.clone()),
            &Limits::default(),
            &done(),
            None,
        )
        .await
        .unwrap();
    sealed.secret.id
}

fn devbox(bindings: Option<&[(&str, &SecretId)]>) -> Devbox {
    let bindings =
        bindings.map(|all| all.iter().map(|(env, id)| ((*env).to_owned(), (*id).clone())).collect());
    Devbox {
        id: DevboxId::generate().unwrap(),
        name: Some("box".to_owned()),
        status: DevboxStatus::Running,
        create_time_ms: 5,
        end_time_ms: None,
        metadata: BTreeMap::from([("key".to_owned(), "\"quoted\"\nvalue".to_owned())]),
        bindings,
        gateways: BTreeMap::from([(
            "ANTHROPIC".to_owned(),
            GatewayBinding { gateway: "gwc_1".to_owned(), secret: "KEY".to_owned() },
        )]),
    }
}

async fn register(store: &Arc<dyn Store>, account: &AccountId, devbox: &Devbox) -> TokenHash {
    let hash = JoinSecret::generate().unwrap().hash();
    let grant = JoinGrant { hash, expire_time_ms: 2000 };
    store.insert_devbox(account, devbox, &|_| Ok(grant), &Limits::default(), &done(), None).await.unwrap();
    hash
}

fn certificate(serial: &str) -> IssuedCertificate {
    IssuedCertificate { serial: serial.to_owned(), issue_time_ms: 5, not_after_time_ms: 6 }
}

/// A devbox that has joined, with this certificate.
async fn joined(store: &Arc<dyn Store>, account: &AccountId, certificate: &IssuedCertificate) -> Devbox {
    let devbox = devbox(None);
    let hash = register(store, account, &devbox).await;
    assert_eq!(store.redeem_join(&devbox.id, hash, certificate, &done()).await.unwrap(), Ok(None));
    devbox
}

async fn the_key_check_and_the_first_ca_are_written_once_and_together(store: Arc<dyn Store>) {
    assert_eq!(store.meta(MetaKey::KeyCheck).await.unwrap(), None);
    store.create_state(b"check", b"certificate", b"key").await.unwrap();
    let again = store.create_state(b"other", b"other", b"other").await;
    assert!(matches!(again, Err(StoreError::Taken)));
    assert_eq!(store.meta(MetaKey::KeyCheck).await.unwrap().as_deref(), Some(&b"check"[..]));
    let authorities = store.authorities().await.unwrap();
    assert_eq!(authorities.len(), 1);
    assert_eq!(
        (&authorities[0].certificate[..], &authorities[0].wrapped_key[..]),
        (&b"certificate"[..], &b"key"[..])
    );
}

/// Each CA's certificate, and until when it is trusted; newest first.
async fn trust(store: &Arc<dyn Store>) -> Vec<(Vec<u8>, Option<TimeMs>)> {
    let all = store.authorities().await.unwrap().into_iter();
    all.map(|authority| (authority.certificate, authority.trusted_until_time_ms)).collect()
}

async fn a_new_authoritys_predecessor_is_trusted_as_long_as_any_certificate_lives(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    joined(&store, &account, &certificate("01")).await;
    store.create_state(b"key id, check", b"A", b"key id, A").await.unwrap();
    let add = async |name: &'static [u8], until_ms, time_ms| {
        let audit = AuditRecord { time_ms, ..record(Action::CaRotate) };
        store.insert_authority(name, b"key id, B", until_ms, 100, &audit).await
    };
    add(b"B", 1, 0).await.unwrap();
    assert_eq!(
        trust(&store).await,
        [(b"B".to_vec(), None), (b"A".to_vec(), Some(106))],
        "the certificate's end"
    );
    add(b"C", 2000, 105).await.unwrap();
    let three = [(b"C".to_vec(), None), (b"B".to_vec(), Some(2100)), (b"A".to_vec(), Some(106))];
    assert_eq!(trust(&store).await, three);
    add(b"D", 2000, 106).await.unwrap();
    let three = [(b"D".to_vec(), None), (b"C".to_vec(), Some(2100)), (b"B".to_vec(), Some(2100))];
    assert_eq!(trust(&store).await, three, "an expired CA is deleted");
}

async fn an_authority_under_another_master_key_than_the_states_is_not_added(store: Arc<dyn Store>) {
    store.create_state(b"key id, check", b"A", b"key id, A").await.unwrap();
    let added = store.insert_authority(b"B", b"other key, B", 1, 1, &record(Action::CaRotate)).await;
    assert!(matches!(added, Err(StoreError::Rotated)), "{added:?}");
    assert_eq!(trust(&store).await, [(b"A".to_vec(), None)]);
}

async fn an_authority_is_deleted_unless_it_issues_and_every_request_queries_again(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    store.create_state(b"key id, check", b"A", b"key id, A").await.unwrap();
    store.insert_authority(b"B", b"key id, B", 5000, 1, &record(Action::CaRotate)).await.unwrap();
    let [newer, older] = store.authorities().await.unwrap().try_into().unwrap();
    let wakes = wakes_of(&store, &account).await;
    let delete = async |number| store.delete_authority(number, &record(Action::CaRetire)).await.unwrap();
    assert!(!delete(newer.number).await, "it issues");
    assert_eq!(wakes_of(&store, &account).await, wakes);
    assert!(delete(older.number).await);
    assert!(!delete(older.number).await);
    assert_eq!(trust(&store).await, [(b"B".to_vec(), None)]);
    assert_eq!(wakes_of(&store, &account).await, wakes + 1);
    let newest = store.audit(None, 2).await.unwrap().into_iter().map(|entry| entry.action);
    assert_eq!(newest.collect::<Vec<_>>(), ["ca.retire", "ca.rotate"]);
}

async fn a_taken_account_name_is_refused_and_leaves_no_row(store: Arc<dyn Store>) {
    let id = account(&store, "acme").await;
    let other = Account {
        id: AccountId::generate().unwrap(),
        name: "acme".to_owned(),
        wrapped_key: vec![],
        devbox_capability: false,
        create_time_ms: 9,
    };
    assert!(matches!(store.insert_account(&other, &done()).await, Err(StoreError::Taken)));
    let all = store.accounts().await.unwrap();
    assert_eq!(all.iter().map(|row| &row.id).collect::<Vec<_>>(), [&id]);
    assert_eq!(store.audit(None, 10).await.unwrap().len(), 1);
}

async fn a_token_is_found_by_its_hash_only(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let (token, hash) = token(&account);
    store.insert_token(&token, hash, &Limits::default(), &done()).await.unwrap();
    let (found, owner) = store.token_by_hash(hash).await.unwrap().unwrap();
    assert_eq!((found, owner.id), (token, account));
    let unknown = ApiToken::generate().unwrap().hash();
    assert!(store.token_by_hash(unknown).await.unwrap().is_none());
}

fn token(account: &AccountId) -> (Token, TokenHash) {
    let token = Token {
        id: TokenId::generate().unwrap(),
        account: account.clone(),
        name: "ci".to_owned(),
        create_time_ms: 5,
        expire_time_ms: Some(9),
        revoke_time_ms: None,
        scopes: Scopes::default(),
    };
    (token, ApiToken::generate().unwrap().hash())
}

async fn a_revocation_keeps_its_first_time(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let (token, hash) = token(&account);
    store.insert_token(&token, hash, &Limits::default(), &done()).await.unwrap();
    for time_ms in [1000, 2000] {
        let audit = AuditRecord { time_ms, ..done() };
        let revoked = store.revoke_token(&account, &token.id, &audit).await.unwrap().unwrap();
        assert_eq!(revoked.revoke_time_ms, Some(1000));
    }
    assert_eq!(store.tokens(&account).await.unwrap()[0].revoke_time_ms, Some(1000));
}

async fn an_account_finds_no_row_of_another(store: Arc<dyn Store>) {
    let owner = account(&store, "owner").await;
    let stranger = account(&store, "stranger").await;
    let secret_id = secret(&store, &owner, "KEY").await;
    let devbox = devbox(Some(&[("KEY", &secret_id)]));
    register(&store, &owner, &devbox).await;
    let (token, hash) = token(&owner);
    store.insert_token(&token, hash, &Limits::default(), &done()).await.unwrap();
    let before = wakes_of(&store, &owner).await;

    for selector in [SecretSelector::Name("KEY"), SecretSelector::Id(secret_id.as_str())] {
        assert_eq!(store.secret(&stranger, selector).await.unwrap(), None);
    }
    let seal = |_: &[u8], _| Ok(vec![]);
    assert_eq!(
        store.update_secret(&stranger, &secret_id, &seal, &Limits::default(), &done(), None).await.unwrap(),
        None
    );
    assert_eq!(store.delete_secret(&stranger, &secret_id, &done(), None).await.unwrap(), None);
    assert_eq!(store.secrets(&stranger, "", 10).await.unwrap().total_count, Some(0));
    assert_eq!(store.secret_ids(&stranger, &[secret_id.as_str(), "KEY"]).await.unwrap(), [None, None]);
    assert_eq!(store.devbox(&stranger, &devbox.id).await.unwrap(), None);
    assert_eq!(store.devboxes(&stranger, &first(10)).await.unwrap().unwrap().total_count, Some(0));
    assert_eq!(
        store.devboxes(&stranger, &DevboxList { after: Some(devbox.id.clone()), ..first(10) }).await.unwrap(),
        None
    );
    assert_eq!(store.shutdown_devbox(&stranger, &devbox.id, &done(), None).await.unwrap(), None);
    assert_eq!(store.bundle_contents(&stranger, &devbox.id).await.unwrap(), None);
    assert!(store.tokens(&stranger).await.unwrap().is_empty());
    assert_eq!(store.revoke_token(&stranger, &token.id, &done()).await.unwrap(), None);

    assert_eq!(wakes_of(&store, &owner).await, before);
    assert!(store.secret(&owner, SecretSelector::Name("KEY")).await.unwrap().is_some());
    // A binding that names another account's secret gives nothing.
    let thief = self::devbox(Some(&[("KEY", &secret_id)]));
    register(&store, &stranger, &thief).await;
    assert!(store.bundle_contents(&stranger, &thief.id).await.unwrap().unwrap().values.is_empty());
}

async fn every_write_that_changes_what_devboxes_may_have_wakes_them(store: Arc<dyn Store>) {
    let (account, other) = (account(&store, "acme").await, account(&store, "other").await);
    let start = wakes_of(&store, &account).await;
    let sealed = sealed("KEY");
    let id = &sealed.secret.id;
    let devbox = devbox(None);
    let grant = JoinGrant { hash: JoinSecret::generate().unwrap().hash(), expire_time_ms: 1 };
    store.insert_devbox(&account, &devbox, &|_| Ok(grant), &Limits::default(), &done(), None).await.unwrap();
    assert_eq!(wakes_of(&store, &account).await, start, "a new devbox changes nothing for the others");
    let revisions = [
        store
            .insert_secret(
                &account,
                &sealed.secret,
                &|_, _| Ok(sealed.sealed.clone()),
                &Limits::default(),
                &done(),
                None,
            )
            .await
            .unwrap(),
        store
            .update_secret(&account, id, &|_, _| Ok(vec![1]), &Limits::default(), &done(), None)
            .await
            .unwrap()
            .unwrap()
            .1,
        store.shutdown_devbox(&account, &devbox.id, &done(), None).await.unwrap().unwrap(),
        store.delete_secret(&account, id, &done(), None).await.unwrap().unwrap(),
    ];
    assert_eq!(revisions, [start + 1, start + 2, start + 3, start + 4]);
    assert_eq!(wakes_of(&store, &account).await, start + 4);
    assert_eq!(wakes_of(&store, &other).await, start);
    let ids = [account.clone(), AccountId::new("acc_none"), other.clone()];
    let mut found = store.wakes(&ids).await.unwrap();
    found.sort();
    let mut expected = vec![(account, start + 4), (other, start)];
    expected.sort();
    assert_eq!(found, expected);
}

async fn names_are_unique_in_an_account_only(store: Arc<dyn Store>) {
    let one = account(&store, "one").await;
    let other = account(&store, "other").await;
    secret(&store, &one, "KEY").await;
    secret(&store, &other, "KEY").await;
    let before = wakes_of(&store, &one).await;
    assert!(matches!(
        store
            .insert_secret(&one, &sealed("KEY").secret, &|_, _| Ok(vec![]), &Limits::default(), &done(), None)
            .await,
        Err(StoreError::Taken)
    ));
    assert_eq!(wakes_of(&store, &one).await, before);
}

async fn secrets_are_listed_by_name_and_counted(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    for name in ["b", "A", "_", "a"] {
        secret(&store, &account, name).await;
    }
    let page = store.secrets(&account, "", 3).await.unwrap();
    assert_eq!(page.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["A", "_", "a"]);
    assert_eq!((page.has_more, page.total_count), (true, Some(4)));
    let all = store.secrets(&account, "", 4).await.unwrap();
    assert_eq!((all.rows.len(), all.has_more), (4, false));
}

async fn an_update_gets_the_next_version_and_nothing_is_written_when_sealing_fails(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let id = secret(&store, &account, "KEY").await;
    let seal = |_: &[u8], version: u64| Ok(version.to_be_bytes().to_vec());
    let (updated, _) =
        store.update_secret(&account, &id, &seal, &Limits::default(), &done(), None).await.unwrap().unwrap();
    assert_eq!((updated.version, updated.create_time_ms, updated.update_time_ms), (2, 5, 1000));

    let before = wakes_of(&store, &account).await;
    let failed = store
        .update_secret(&account, &id, &|_, _| Err(CryptoError::Seal), &Limits::default(), &done(), None)
        .await;
    assert!(matches!(failed, Err(StoreError::Seal(_))));
    let kept = store.secret(&account, SecretSelector::Name("KEY")).await.unwrap().unwrap();
    assert_eq!((kept.secret, kept.sealed), (updated, 2u64.to_be_bytes().to_vec()));
    assert_eq!(wakes_of(&store, &account).await, before);
}

async fn updates_at_once_each_get_a_version_of_their_own(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let id = secret(&store, &account, "KEY").await;
    let mut updates = JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        let account = account.clone();
        let id = id.clone();
        updates.spawn(async move {
            store
                .update_secret(&account, &id, &|_, _| Ok(vec![]), &Limits::default(), &done(), None)
                .await
                .unwrap()
                .unwrap()
                .0
                .version
        });
    }
    let mut versions = updates.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, (2..22).collect::<Vec<_>>());
}

async fn devboxes_are_listed_newest_first_page_by_page(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let mut expected = Vec::new();
    for create_time_ms in [1, 2, 2, 3] {
        let devbox = Devbox { create_time_ms, ..devbox(None) };
        register(&store, &account, &devbox).await;
        expected.push((create_time_ms, devbox.id));
    }
    expected.sort();
    expected.reverse();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.devboxes(&account, &DevboxList { after, ..first(3) }).await.unwrap().unwrap();
        assert_eq!(page.total_count, Some(4));
        seen.extend(page.rows.into_iter().map(|row| (row.create_time_ms, row.id)));
        after = seen.last().map(|(_, id)| id.clone());
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, expected);
}

async fn a_devbox_is_read_back_as_it_was_registered(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let id = secret(&store, &account, "KEY").await;
    for bindings in [None, Some(&[][..]), Some(&[("A", &id), ("B", &id)][..])] {
        let devbox = devbox(bindings);
        register(&store, &account, &devbox).await;
        assert_eq!(store.devbox(&account, &devbox.id).await.unwrap(), Some(devbox));
    }
}

async fn a_bundle_holds_what_is_bound_in_order_and_no_deleted_secret(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let first = secret(&store, &account, "FIRST").await;
    let second = secret(&store, &account, "SECOND").await;
    let bound = devbox(Some(&[("Z", &first), ("A", &second), ("B", &first)]));
    let every = devbox(None);
    register(&store, &account, &bound).await;
    register(&store, &account, &every).await;

    assert_eq!(
        names(&store, &account, &bound).await,
        [("A", "SECOND"), ("B", "FIRST"), ("Z", "FIRST")].map(owned)
    );
    assert_eq!(names(&store, &account, &every).await, [("FIRST", "FIRST"), ("SECOND", "SECOND")].map(owned));
    store.delete_secret(&account, &first, &done(), None).await.unwrap();
    assert_eq!(names(&store, &account, &bound).await, [("A", "SECOND")].map(owned));
    assert_eq!(names(&store, &account, &every).await, [("SECOND", "SECOND")].map(owned));
    let contents = store.bundle_contents(&account, &bound.id).await.unwrap().unwrap();
    assert_eq!(contents.revision, 4, "a new account, two creations, one deletion");
    let row = store.account(&account).await.unwrap().unwrap();
    assert_eq!(contents.wrapped_key, row.wrapped_key);
    assert_eq!(contents.values[0].secret.sealed, b"sealed SECOND");
}

fn owned((env, name): (&str, &str)) -> (String, String) {
    (env.to_owned(), name.to_owned())
}

async fn names(store: &Arc<dyn Store>, account: &AccountId, devbox: &Devbox) -> Vec<(String, String)> {
    let contents = store.bundle_contents(account, &devbox.id).await.unwrap().unwrap();
    contents.values.into_iter().map(|value| (value.env, value.secret.secret.name)).collect()
}

async fn a_devbox_that_is_shut_down_has_no_bundle(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let devbox =
        joined(&store, &account, &IssuedCertificate { not_after_time_ms: 5000, ..certificate("01") }).await;
    let renewed = async |shown, serial| {
        store.insert_certificate(&devbox.id, shown, &certificate(serial), &done()).await.unwrap()
    };
    assert!(renewed("01", "02").await.is_some());
    assert!(store.shutdown_devbox(&account, &devbox.id, &done(), None).await.unwrap().is_some());
    assert_eq!(store.bundle_contents(&account, &devbox.id).await.unwrap(), None);
    let ended = store.devbox(&account, &devbox.id).await.unwrap().unwrap();
    assert_eq!((ended.status, ended.end_time_ms), (DevboxStatus::Shutdown, Some(1000)));
    assert_eq!(store.shutdown_devbox(&account, &devbox.id, &done(), None).await.unwrap(), None);
    assert!(renewed("01", "03").await.is_none());
}

async fn a_value_has_to_fit_under_every_name_that_running_devboxes_have_for_it(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let id = secret(&store, &account, "KEY").await;
    let short = devbox(Some(&[("A", &id)]));
    let long = devbox(Some(&[("LONGER", &id)]));
    register(&store, &account, &short).await;
    register(&store, &account, &long).await;
    let update = async || {
        let sealed = vec![0; sealed_len(max_value_len("A"))];
        let seal = move |_: &[u8], _: u64| Ok(sealed.clone());
        store.update_secret(&account, &id, &seal, &Limits::default(), &done(), None).await
    };
    let refused = update().await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLongFor { env, .. } if env == "LONGER"));
    store.shutdown_devbox(&account, &long.id, &done(), None).await.unwrap();
    update().await.unwrap().unwrap();
    let again = devbox(Some(&[("LONGER", &id)]));
    let grant = JoinGrant { hash: JoinSecret::generate().unwrap().hash(), expire_time_ms: 1 };
    let refused =
        store.insert_devbox(&account, &again, &|_| Ok(grant), &Limits::default(), &done(), None).await;
    assert!(matches!(refused, Err(StoreError::TooLongFor { env, .. }) if env == "LONGER"));
}

/// The refusal of a write of one more byte than counted so far.
async fn the_kept_counts_are_those_of_the_rows(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let first = secret(&store, &account, "FIRST").await;
    let second = secret(&store, &account, "SECOND").await;
    let bound = devbox(Some(&[("Z", &first), ("A", &second), ("B", &first)]));
    let hash = register(&store, &account, &bound).await;
    store.redeem_join(&bound.id, hash, &certificate("01"), &done()).await.unwrap().unwrap();
    let counted = async || store.admission_state(&bound.id, "01").await.unwrap().unwrap().bundle_bytes;
    let entry = |env: &str, name: &str, sealed: u64| 128 + env.len() as u64 + name.len() as u64 + sealed;
    let sealed = |name: &str| name.len() as u64 + 7;
    let of_first = |len| entry("Z", "FIRST", len) + entry("B", "FIRST", len);
    let of_second = entry("A", "SECOND", sealed("SECOND"));
    assert_eq!(counted().await, of_first(sealed("FIRST")) + of_second);
    let update = async |len: usize| {
        let seal = move |_: &[u8], _: u64| Ok(vec![0; len]);
        store.update_secret(&account, &first, &seal, &Limits::default(), &done(), None).await.unwrap()
    };
    update(1000).await;
    assert_eq!(counted().await, of_first(1000) + of_second);
    update(10).await;
    assert_eq!(counted().await, of_first(10) + of_second);
    store.delete_secret(&account, &first, &done(), None).await.unwrap();
    assert_eq!(counted().await, of_second);
    store.delete_secret(&account, &second, &done(), None).await.unwrap();
    assert_eq!(counted().await, 0);
}

async fn a_join_token_is_redeemed_once_by_any_number_of_attempts(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let devbox = devbox(None);
    let hash = register(&store, &account, &devbox).await;
    let mut attempts = JoinSet::new();
    for attempt in 0..20 {
        let store = store.clone();
        let id = devbox.id.clone();
        attempts.spawn(async move {
            let certificate = certificate(&format!("{attempt:02x}"));
            let redeemed = store.redeem_join(&id, hash, &certificate, &done()).await.unwrap();
            (redeemed, certificate.serial)
        });
    }
    let outcomes = attempts.join_all().await;
    assert_eq!(outcomes.iter().filter(|(outcome, _)| outcome.is_ok()).count(), 1);
    for (outcome, serial) in outcomes {
        let admission = store.admission_state(&devbox.id, &serial).await.unwrap().unwrap();
        assert_eq!(admission.certificate_not_after_time_ms.is_some(), outcome.is_ok(), "{serial}");
        assert!(matches!(outcome, Ok(None) | Err(JoinRefusal::Used)));
    }
}

async fn a_join_token_is_refused_when_it_is_another_or_over_or_its_devbox_is(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let (devbox, other) = (devbox(None), devbox(None));
    let hash = register(&store, &account, &devbox).await;
    let other_hash = register(&store, &account, &other).await;
    let check = async |id: &DevboxId, hash, now_ms| {
        let checked = store.check_join(id, hash, now_ms).await.unwrap();
        let audit = AuditRecord { time_ms: now_ms, ..done() };
        if let Err(refusal) = checked {
            assert_eq!(store.redeem_join(id, hash, &certificate("bb"), &audit).await.unwrap(), Err(refusal));
        }
        checked
    };
    assert_eq!(check(&devbox.id, hash, 1999).await, Ok(()));
    assert_eq!(check(&devbox.id, hash, 2000).await, Err(JoinRefusal::Expired));
    assert_eq!(check(&devbox.id, other_hash, 1).await, Err(JoinRefusal::Unknown));
    assert_eq!(check(&DevboxId::new("dbx_none"), hash, 1).await, Err(JoinRefusal::Unknown));
    store.shutdown_devbox(&account, &devbox.id, &done(), None).await.unwrap();
    assert_eq!(check(&devbox.id, hash, 1).await, Err(JoinRefusal::Shutdown));
    assert_eq!(check(&other.id, other_hash, 1).await, Ok(()));
}

async fn a_new_join_token_takes_the_last_ones_place_and_ends_certificates_when_redeemed(
    store: Arc<dyn Store>,
) {
    let (account, stranger) = (account(&store, "acme").await, account(&store, "other").await);
    let devbox = devbox(None);
    let first = register(&store, &account, &devbox).await;
    let lasting = |serial| IssuedCertificate { not_after_time_ms: 5000, ..certificate(serial) };
    let other = joined(&store, &account, &lasting("0f")).await;
    assert_eq!(store.redeem_join(&devbox.id, first, &lasting("01"), &done()).await.unwrap(), Ok(None));

    let issue = JoinTokenIssue { id: JoinTokenId::generate().unwrap(), devbox: devbox.id.clone() };
    let hash = JoinSecret::generate().unwrap().hash();
    let grant = JoinGrant { hash, expire_time_ms: 2000 };
    assert!(!store.replace_join(&stranger, &issue, &|_| Ok(grant), &done(), None).await.unwrap());
    assert!(store.replace_join(&account, &issue, &|_| Ok(grant), &done(), None).await.unwrap());
    let end = async |id: &DevboxId, serial: &str| {
        store.admission_state(id, serial).await.unwrap().unwrap().certificate_not_after_time_ms
    };
    assert_eq!(end(&devbox.id, "01").await, Some(5000), "it is not redeemed yet");
    let renewed = async |shown, serial| {
        store.insert_certificate(&devbox.id, shown, &lasting(serial), &done()).await.unwrap()
    };
    assert!(renewed("01", "03").await.is_some());
    assert!(renewed("0f", "04").await.is_none(), "another devbox's");
    assert_eq!(store.check_join(&devbox.id, first, 1).await.unwrap(), Err(JoinRefusal::Unknown));

    let wakes = wakes_of(&store, &account).await;
    let issued = IssuedCertificate { not_after_time_ms: 6000, ..certificate("02") };
    assert_eq!(store.redeem_join(&devbox.id, hash, &issued, &done()).await.unwrap(), Ok(Some(wakes + 1)));
    assert_eq!(end(&devbox.id, "01").await, Some(0), "ended, by any clock");
    assert_eq!(end(&devbox.id, "03").await, Some(0));
    assert!(renewed("01", "04").await.is_none(), "a renewal that began before");
    assert_eq!(end(&devbox.id, "02").await, Some(6000));
    assert_eq!(end(&other.id, "0f").await, Some(5000), "another devbox's");
    store.shutdown_devbox(&account, &devbox.id, &done(), None).await.unwrap();
    assert!(!store.replace_join(&account, &issue, &|_| Ok(grant), &done(), None).await.unwrap());
}

async fn an_admission_state_has_everything_that_decides_about_a_bundle(store: Arc<dyn Store>) {
    let account = account(&store, "acme").await;
    let other = devbox(None);
    register(&store, &account, &other).await;
    let devbox = joined(&store, &account, &certificate("0a")).await;
    let wakes = wakes_of(&store, &account).await;
    let mut expected = AdmissionState {
        account: account.clone(),
        status: DevboxStatus::Running,
        devbox_capability: true,
        revision: 1,
        wakes,
        certificate_not_after_time_ms: Some(6),
        bundle_bytes: 0,
    };
    assert_eq!(store.admission_state(&devbox.id, "0a").await.unwrap().as_ref(), Some(&expected));
    store.shutdown_devbox(&account, &devbox.id, &done(), None).await.unwrap();
    let withdrawn = store.set_devbox_capability(&account, false, &done()).await.unwrap();
    assert_eq!(withdrawn, Some(wakes + 2));
    expected.status = DevboxStatus::Shutdown;
    expected.devbox_capability = false;
    expected.wakes += 2;
    assert_eq!(store.admission_state(&devbox.id, "0a").await.unwrap(), Some(expected));
    let stranger = store.admission_state(&other.id, "0a").await.unwrap().unwrap();
    assert_eq!(stranger.certificate_not_after_time_ms, None, "the certificate of another devbox");
    assert_eq!(store.admission_state(&DevboxId::new("dbx_none"), "0a").await.unwrap(), None);
    let owner = store.devbox_owner(&devbox.id).await.unwrap();
    assert_eq!(owner, Some((account, DevboxStatus::Shutdown)));
}

async fn rows_recorded_at_once_are_all_there(store: Arc<dyn Store>) {
    let mut records = JoinSet::new();
    for _ in 0..600 {
        let store = store.clone();
        records.spawn(async move { store.record(&done()).await.unwrap() });
    }
    records.join_all().await;
    assert_eq!(store.audit(None, 1000).await.unwrap().len(), 600);
}

async fn each_write_leaves_one_audit_row(store: Arc<dyn Store>) {
    let (account, other) = (account(&store, "acme").await, account(&store, "other").await);
    let audit = AuditRecord {
        account: Some(account.clone()),
        actor: Actor::Operator("root".to_owned()),
        object: "sec_1".to_owned(),
        object_name: Some("KEY".to_owned()),
        outcome: Outcome::Refused,
        reason: Some("because".to_owned()),
        remote: Some([127, 0, 0, 1].into()),
        ..record(Action::SecretDelete)
    };
    store.record(&audit).await.unwrap();
    let newest = &store.audit(Some(&account), 1).await.unwrap()[0];
    assert_eq!((newest.time_ms, newest.account.as_deref()), (1000, Some(account.as_str())));
    assert_eq!((newest.actor_kind.as_str(), newest.actor.as_str()), ("operator", "root"));
    assert_eq!((newest.action.as_str(), newest.outcome.as_str()), ("secret.delete", "refused"));
    assert_eq!((newest.object.as_str(), newest.object_name.as_deref()), ("sec_1", Some("KEY")));
    assert_eq!(newest.reason.as_deref(), Some("because"));
    assert_eq!(newest.remote_address.as_deref(), Some("127.0.0.1"));
    assert!(store.audit(Some(&other), 10).await.unwrap().is_empty());
    assert_eq!(store.audit(None, 10).await.unwrap().len(), 3);
}

async fn a_change_by_another_connection_is_noticed(store: Arc<dyn Store>) {
    // The first call has nothing to compare with.
    store.changed().await.unwrap();
    let watching = tokio::spawn({
        let store = store.clone();
        async move { store.changed().await }
    });
    account(&store, "acme").await;
    watching.await.unwrap().unwrap();
}

async fn the_watcher_pauses_under_load_and_misses_no_change(store: Arc<dyn Store>) {
    store.changed().await.unwrap();
    let id = account(&store, "acme").await;
    let looks = async {
        let start = std::time::Instant::now();
        let mut looks = 0_u32;
        while start.elapsed() < std::time::Duration::from_secs(1) {
            store.changed().await.unwrap();
            looks += 1;
        }
        looks
    };
    let load = async {
        for number in 0.. {
            secret(&store, &id, &format!("KEY_{number}")).await;
        }
    };
    let looks = tokio::select! { looks = looks => looks, () = load => 0 };
    // One more than four a second for the one that is under way at the end.
    assert!((1..=6).contains(&looks), "{looks} looks in a second");
}

/// The first `limit` devboxes of any status, counted.
fn first(limit: u32) -> DevboxList {
    DevboxList { limit, after: None, status: None, counted: true }
}
