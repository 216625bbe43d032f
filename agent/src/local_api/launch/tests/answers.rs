//! The answers to launches.

use devbox_launch_proto::Item::{Only, Rename, Require};
use nix::sys::stat::fstat;

use super::*;
use crate::memory::Loss;
use crate::sys::test_support::{in_a_process_of_its_own, limit_locked_memory};

const VARIABLES: [(&str, &[u8]); 3] = [("API_KEY", b"k=1"), ("DB_PASS", b"two\nlines"), ("EMPTY", b"")];
const STRINGS: &[u8] = b"API_KEY=k=1\0DB_PASS=two\nlines\0EMPTY=\0";

#[test]
fn everything_granted_comes_in_one_descriptor() {
    let server = Server::start().holding(&VARIABLES);
    let got = server.everything();
    if has_descriptors(&server) {
        assert_eq!(got, Got::Descriptor(STRINGS.to_vec()));
    }
    wait_until("the launch to be counted", || server.state.counts().served == 1);
}

#[test]
fn without_memfd_secret_the_same_comes_inline() {
    let server = Server::with_fallback().holding(&VARIABLES);
    assert_eq!(server.everything(), Got::Inline(STRINGS.to_vec()));
}

#[test]
fn a_launcher_that_cannot_map_gets_the_same_inline() {
    let server = Server::start().holding(&VARIABLES);
    let inline = Flags { inline: true, ..Flags::default() };
    assert_eq!(server.launch(inline, 0, &[]), Got::Inline(STRINGS.to_vec()));
    let items = [Only(b"EMPTY"), Only(b"API_KEY"), Rename(b"KEY=API_KEY")];
    assert_eq!(server.launch(inline, 0, &items), Got::Inline(b"EMPTY=\0KEY=k=1\0".to_vec()));
}

#[test]
fn a_selection_comes_under_its_new_names_in_order() {
    let server = Server::start().holding(&VARIABLES);
    let items = [Rename(b"ZED=API_KEY"), Only(b"API_KEY"), Only(b"DB_PASS"), Require(b"ZED")];
    let got = server.launch(Flags::default(), 0, &items).strings();
    assert_eq!(got, b"DB_PASS=two\nlines\0ZED=k=1\0");
}

#[test]
fn a_list_has_names_and_nothing_else() {
    let server = Server::start().holding(&VARIABLES);
    let list = Flags { list: true, ..Flags::default() };
    assert_eq!(server.launch(list, 0, &[]), Got::Names(b"API_KEY\0DB_PASS\0EMPTY\0".to_vec()));
    assert_eq!(server.launch(list, 0, &[Rename(b"Z=EMPTY"), Only(b"EMPTY")]), Got::Names(b"Z\0".to_vec()));
}

#[test]
fn no_secrets_at_all_is_an_empty_answer() {
    let server = Server::start().holding(&[]);
    assert_eq!(server.everything(), Got::Inline(Vec::new()));
    assert_eq!(server.launch(Flags { list: true, ..Flags::default() }, 0, &[]), Got::Names(Vec::new()));
}

#[test]
fn five_thousand_variables_and_large_values_arrive_whole() {
    let names: Vec<String> = (0..5_000).map(|number| format!("NAME_{number:04}")).collect();
    let mut variables: Vec<(&str, &[u8])> =
        names.iter().map(|name| (name.as_str(), &[b'v'; 64][..])).collect();
    let large = vec![b'x'; 100 << 10];
    variables.push(("Z_LARGE", &large));
    let mut expected = Vec::new();
    for (name, value) in &variables {
        expected.extend([name.as_bytes(), b"=", value, b"\0"].concat());
    }
    for server in [Server::start(), Server::with_fallback()] {
        server.hold(1, &variables);
        assert_eq!(server.everything().strings(), expected);
        assert_eq!(server.launch(Flags { inline: true, ..Flags::default() }, 0, &[]).strings(), expected);
        let renamed =
            server.launch(Flags { inline: true, ..Flags::default() }, 0, &[Rename(b"A=Z_LARGE")]).strings();
        assert_eq!(renamed.len(), expected.len() - "Z_LARGE".len() + 1);
    }
}

#[test]
fn without_a_descriptor_the_answer_is_inline() {
    in_a_process_of_its_own("local_api::launch::tests::answers::child_with_room_for_the_generation_only");
}

#[test]
#[ignore = "run in a process of its own by without_a_descriptor_the_answer_is_inline"]
fn child_with_room_for_the_generation_only() {
    limit_locked_memory(64 << 10);
    let value = vec![b'v'; 40 << 10];
    let server = Server::start().holding(&[("A", &value)]);
    let Got::Inline(strings) = server.everything() else { panic!() };
    assert_eq!(strings.len(), (40 << 10) + 3);
    let Got::Inline(small) = server.launch(Flags { inline: true, ..Flags::default() }, 0, &[]) else {
        panic!()
    };
    assert_eq!(small, strings);
}

#[test]
fn a_launch_that_no_execve_takes_is_refused_by_the_names_of_the_largest_before_anything_is_locked() {
    let value = vec![b'x'; 100 << 10];
    let names: Vec<_> = (0..64).map(|number| format!("NAME_{number:02}")).collect();
    let variables: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_slice())).collect();
    let server = Server::start().holding(&variables);
    let before = server.memory.bytes_locked();
    for flags in [Flags::default(), Flags { inline: true, ..Flags::default() }] {
        let Got::Refused(ErrorCode::Invalid, text) = server.launch(flags, 0, &[]) else { panic!() };
        assert!(text.contains("NAME_") && text.contains("execve(2) takes no more than 6291456"), "{text}");
    }
    assert_eq!(server.memory.bytes_locked(), before);
    let few: Vec<_> = names[..60].iter().map(|name| Only(name.as_bytes())).collect();
    assert_eq!(server.launch(Flags::default(), 0, &few).strings().len(), 60 * ((100 << 10) + 9));
}

#[test]
fn one_launch_cannot_write_to_another() {
    let server = Server::start().holding(&VARIABLES);
    if !has_descriptors(&server) {
        return;
    }
    let descriptor = || {
        let stream = server.connect();
        send(&stream, &request(Flags::default(), 0, &[]));
        receive_header(&stream).unwrap().1.unwrap()
    };
    let (one, other) = (descriptor(), descriptor());
    assert_ne!(fstat(&one).unwrap().st_ino, 0);
    let mut spoilt = LockedPages::received(&one, STRINGS.len()).unwrap();
    spoilt.bytes_mut().fill(b'!');
    let clean = LockedPages::received(&other, STRINGS.len()).unwrap();
    assert_eq!(clean.bytes()[..STRINGS.len()], *STRINGS);
    assert_eq!(server.everything().strings(), STRINGS);
}

#[test]
fn a_new_bundle_is_what_the_next_launch_gets() {
    let server = Server::start().holding(&VARIABLES);
    assert_eq!(server.everything().strings(), STRINGS);
    let large = vec![b'y'; 20_000];
    server.hold(2, &[("NEW", &large)]);
    assert_eq!(server.everything().strings().len(), 20_005);
}

#[test]
fn a_peer_without_a_rule_is_denied_with_the_rule_it_lacks() {
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let server = Server::with(memory, Policy::own_uid_only(geteuid().as_raw() + 1)).holding(&VARIABLES);
    let Got::Refused(ErrorCode::Denied, text) = server.everything() else { panic!() };
    let uid = geteuid().as_raw();
    assert!(text.contains(&format!("add a [[rule]] with uid = {uid}")), "{text}");
    wait_until("the refusal to be counted", || server.state.counts().refused == 1);

    server.state.set_policy(policy(&["any = true\nenv = ['DB_*']"]));
    assert_eq!(server.everything().strings(), b"DB_PASS=two\nlines\0");
    assert_eq!(server.launch(Flags::default(), 0, &[Only(b"API_KEY")]).code(), ErrorCode::Denied);
}

#[test]
fn after_a_loss_a_launch_is_told_the_reason() {
    let server = Server::start().holding(&VARIABLES);
    for (loss, code) in [
        (Loss::Stale, ErrorCode::Stale),
        (Loss::Revoked, ErrorCode::Denied),
        (Loss::Stopping, ErrorCode::NotReady),
    ] {
        server.vault.lose(loss, "because");
        assert_eq!(server.launch(Flags::default(), 60_000, &[]), Got::Refused(code, "because".into()));
    }
    server.wait_until_nothing_is_locked();
}

#[test]
fn past_the_lease_nothing_is_served_and_nothing_is_left() {
    let server = Server::start().holding(&VARIABLES);
    assert!(server.vault.renew_lease(BootTime::now()));
    assert_eq!(server.everything().code(), ErrorCode::Stale);
    server.wait_until_nothing_is_locked();
}

#[test]
fn many_launches_nonblocking_each_get_their_own_whole_answer() {
    let server = Server::start().holding(&VARIABLES);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(server.everything().strings(), STRINGS);
                }
            });
        }
    });
    wait_until("every launch to be counted", || server.state.counts().served == 800);
}

#[test]
fn no_value_is_in_the_log_even_at_trace_level() {
    let server = Server::start().holding(&[("NAME_IN_LOG", b"canary-7f3a")]);
    let log = crate::telemetry::test_support::Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = server.directory.path().join("logged.sock");
    tracing::subscriber::with_default(subscriber.finish(), || {
        runtime.block_on(async {
            let listener = UnixListener::bind(&path).unwrap();
            let client = tokio::task::spawn_blocking(move || {
                for items in [&[][..], &[Item::Rename(b"NEW=NAME_IN_LOG")]] {
                    let stream = BlockingStream::connect(&path).unwrap();
                    send(&stream, &request(Flags::default(), 0, items));
                    receive(&stream);
                }
            });
            serve(listener, Arc::clone(&server.state), async { client.await.unwrap() }).await;
        });
    });
    let text = log.text();
    for told in ["revision=1", "names=\"*\"", "names=\"NEW=NAME_IN_LOG\"", "rules=1"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert!(!text.contains("canary-7f3a"), "{text}");
}
